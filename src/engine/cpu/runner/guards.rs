//! For tests: poisons the memory that no kernel may use before a run, and checks it after the run.
//! A kernel that reads poison computes a NaN; a kernel that overwrites it is found by the check.

use std::ops::Range;

use super::PlanRunner;
use crate::cpu::lanes::LANES;
use crate::cpu::memory::{MappedMemory, POISON};
use crate::cpu::plan::ValueLayout;

impl PlanRunner {
    /// Poisons all memory except the borders that steps expect to hold zeros. The inside of images
    /// and the scratch are poisoned too, because a run must write them before it reads them.
    pub(in crate::cpu) fn poison(&mut self) {
        bytes_mut(&mut self._arena).fill(POISON);
        bytes_mut(&mut self.scratch).fill(POISON);
        for border in self.zero_borders() {
            bytes_mut(&mut self._arena)[border].fill(0);
        }
    }

    /// Panics if a run wrote to bytes between buffers or after the scratch, or to a border of
    /// zeros.
    #[track_caller]
    pub(in crate::cpu) fn assert_guards_intact(&self) {
        let (arena, scratch) = (bytes(&self._arena), bytes(&self.scratch));
        let is_poison = |bytes: &[u8]| bytes.iter().all(|&byte| byte == POISON);
        let mut ranges: Vec<Range<usize>> = self.buffer_ranges().map(|(_, at)| at).collect();
        ranges.sort_by_key(|range| (range.start, range.end));
        let mut next = 0;
        for Range { start, end } in ranges {
            assert!(start <= next || is_poison(&arena[next..start]), "bytes before {start}");
            next = next.max(end);
        }
        assert!(is_poison(&arena[next..]), "bytes behind the arena");
        assert!(is_poison(&scratch[self.schedule.scratch_bytes..]), "bytes behind the scratch");
        for border in self.zero_borders() {
            assert!(arena[border].iter().all(|&byte| byte == 0), "a border of zeros");
        }
    }

    /// Returns the bytes of each buffer, for each item.
    fn buffer_ranges(&self) -> impl Iterator<Item = (ValueLayout, Range<usize>)> {
        let placed = self.plan.buffers.iter().zip(&self.schedule.arena_places);
        placed.filter_map(|(buffer, place)| Some((buffer.layout, (*place)?))).flat_map(
            |(layout, place)| {
                let items = if place.item_stride == 0 { 1 } else { self.schedule.items_max };
                (0..items).map(move |item| {
                    let start = place.offset + item * place.item_stride;
                    (layout, start..start + layout.bytes())
                })
            },
        )
    }

    /// Returns the bytes of all borders that hold zeros from the start.
    fn zero_borders(&self) -> Vec<Range<usize>> {
        let mut borders = Vec::new();
        for (value_layout, at) in self.buffer_ranges() {
            let ValueLayout::Image { layout, element_bytes, rewrites_border: false } = value_layout
            else {
                continue;
            };
            let [top, left, bottom, right] = layout.border;
            let (row, pixel) = (layout.row_stride() * element_bytes, LANES * element_bytes);
            for block in 0..layout.blocks() {
                let first = at.start + block * layout.block_stride() * element_bytes;
                borders.push(first..first + top * row);
                for y in top..top + layout.height {
                    let line = first + y * row;
                    borders.push(line..line + left * pixel);
                    borders.push(line + row - right * pixel..line + row);
                }
                let below = first + (top + layout.height) * row;
                borders.push(below..below + bottom * row);
            }
        }
        borders
    }
}

fn bytes(memory: &MappedMemory) -> &[u8] {
    // SAFETY: the bytes belong to the mapping, and no run uses them while it is borrowed.
    unsafe { std::slice::from_raw_parts(memory.start(), memory.bytes()) }
}

fn bytes_mut(memory: &mut MappedMemory) -> &mut [u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts_mut(memory.start(), memory.bytes()) }
}
