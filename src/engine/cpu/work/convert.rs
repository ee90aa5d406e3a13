//! Steps that convert between blocked images and flat buffers. A flat buffer holds `f32` in the
//! order of its value's shape.

use std::ops::Range;

use super::{ImageRef, OutputRegion, RunContext, Work};
use crate::cpu::kernels::elementwise::{ActivationArgs, ActivationKind};
use crate::cpu::lanes::LANES;
use crate::cpu::lanes::bf16::{from_bf16, to_bf16};
use crate::cpu::layout::ImageLayout;

/// Converts a flat buffer to a blocked image.
pub(in crate::cpu) struct Pack {
    pub(in crate::cpu) input: usize,
    /// Whether the input is `[height, width, channels]` instead of `[channels, height, width]`.
    pub(in crate::cpu) channels_last: bool,
    pub(in crate::cpu) output: ImageRef,
}

/// Converts channels of a blocked image to a flat buffer.
pub(in crate::cpu) struct Unpack {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) channels: Range<usize>,
    pub(in crate::cpu) channels_last: bool,
    pub(in crate::cpu) output: usize,
}

/// Returns the index of a channel and pixel in a flat buffer.
fn flat_index(image: &ImageRef, channels_last: bool, channel: usize, [y, x]: [usize; 2]) -> usize {
    let layout = &image.layout;
    if channels_last {
        (y * layout.width + x) * layout.channels + channel
    } else {
        (channel * layout.height + y) * layout.width + x
    }
}

impl Work for Pack {
    fn algorithm(&self) -> &'static str {
        "pack"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let layout = self.output.layout;
        for item in region.items.clone() {
            // Lanes beyond the last channel get zeros.
            let lanes = layout.blocks() * LANES;
            for (y, channel) in
                region.rows.clone().flat_map(|y| (0..lanes).map(move |channel| (y, channel)))
            {
                for x in 0..layout.width {
                    // SAFETY: the number lies in the input, and its lane in the output.
                    unsafe {
                        let from = run.item_ptr(self.input, item).cast::<f32>();
                        let at = flat_index(&self.output, self.channels_last, channel, [y, x]);
                        let number = if channel < layout.channels { *from.add(at) } else { 0.0 };
                        let pixel =
                            self.output.pixel_ptr(run, item, channel / LANES, [y, x], [0, 0]);
                        match self.output.element_bytes {
                            2 => *pixel.cast::<u16>().add(channel % LANES) = to_bf16(number),
                            _ => *pixel.cast::<f32>().add(channel % LANES) = number,
                        }
                    }
                }
            }
        }
    }
}

impl Unpack {
    /// Converts one row.
    ///
    /// # Safety
    /// The row and the channels lie in the input, and their numbers in the output.
    unsafe fn unpack_row(&self, run: &RunContext<'_>, item: usize, y: usize) {
        let ImageLayout { height, width, .. } = self.input.layout;
        let [next_pixel, next_channel] =
            if self.channels_last { [self.channels.len(), 1] } else { [1, height * width] };
        for (index, channel) in self.channels.clone().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let from = self.input.pixel_ptr(run, item, channel / LANES, [y, 0], [0, 0]);
                let to = run.item_ptr(self.output, item).cast::<f32>();
                let to = to.add(y * width * next_pixel + index * next_channel);
                for x in 0..width {
                    let lane = x * LANES + channel % LANES;
                    *to.add(x * next_pixel) = match self.input.element_bytes {
                        2 => from_bf16(*from.cast::<u16>().add(lane)),
                        _ => *from.cast::<f32>().add(lane),
                    };
                }
            }
        }
    }
}

impl Work for Unpack {
    fn algorithm(&self) -> &'static str {
        "unpack"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for (item, y) in
            region.items.clone().flat_map(|item| region.rows.clone().map(move |y| (item, y)))
        {
            // SAFETY: guaranteed by the caller.
            unsafe { self.unpack_row(run, item, y) };
        }
    }
}

pub(in crate::cpu) struct FlatCopy {
    pub(in crate::cpu) input: usize,
    pub(in crate::cpu) output: usize,
    pub(in crate::cpu) len: usize,
}

impl Work for FlatCopy {
    fn algorithm(&self) -> &'static str {
        "copy"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            // SAFETY: both flat buffers have this length.
            unsafe {
                let from = run.item_ptr(self.input, item).cast_const().cast::<f32>();
                std::ptr::copy_nonoverlapping(
                    from,
                    run.item_ptr(self.output, item).cast(),
                    self.len,
                );
            }
        }
    }
}

/// Applies an activation to every element of a flat buffer.
pub(in crate::cpu) struct FlatActivation {
    pub(in crate::cpu) input: usize,
    pub(in crate::cpu) output: usize,
    pub(in crate::cpu) len: usize,
    pub(in crate::cpu) kind: ActivationKind,
}

impl Work for FlatActivation {
    fn algorithm(&self) -> &'static str {
        "activation"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            // SAFETY: both flat buffers have this length and do not overlap.
            unsafe {
                let from = run.item_ptr(self.input, item).cast_const().cast::<f32>();
                let to = run.item_ptr(self.output, item).cast::<f32>();
                std::ptr::copy_nonoverlapping(from, to, self.len);
                let count = self.len / LANES;
                let args = ActivationArgs { kind: self.kind, data: to.cast(), count };
                (run.kernels.activation_f32)(&args);
                let rest =
                    std::slice::from_raw_parts_mut(to.add(count * LANES), self.len - count * LANES);
                self.kind.apply(rest);
            }
        }
    }
}
