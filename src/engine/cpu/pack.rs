//! Packs weights into the order in which kernels read them, once, when the network is loaded.

use super::kernels::KernelSet;
use super::kernels::winograd::{KERNEL_TRANSFORM, SIDE_IN, TRANSFORMED_LEN};
use super::lanes::LANES;
use super::lanes::bf16::to_bf16;
use super::memory::MappedMemory;
use crate::constant::Constant;

/// Packs one number per channel into whole blocks. Lanes beyond the last channel hold `padding`.
pub(super) fn per_channel(numbers: &[f32], padding: f32) -> MappedMemory {
    let mut padded = numbers.to_vec();
    // A kernel may load two blocks at once.
    padded.resize(numbers.len().next_multiple_of(2 * LANES), padding);
    MappedMemory::from_slice(&padded)
}

/// Converts numbers to the format of the kernel set.
pub(super) fn in_format(kernels: &KernelSet, numbers: &[f32]) -> MappedMemory {
    let mut writer = Writer::new(numbers.len(), kernels.element_bytes);
    numbers.iter().for_each(|&number| writer.push(number));
    writer.memory
}

/// Writes numbers into memory one by one, so that packed weights are never held twice.
struct Writer {
    memory: MappedMemory,
    element_bytes: usize,
    len: usize,
    written: usize,
}

impl Writer {
    /// Returns a writer for `len` elements of `element_bytes` bytes: 4 for `f32`, 2 for bfloat16.
    fn new(len: usize, element_bytes: usize) -> Self {
        Self { memory: MappedMemory::zeroed(len * element_bytes), element_bytes, len, written: 0 }
    }

    fn push(&mut self, number: f32) {
        assert!(self.written < self.len, "there is room for every number");
        // SAFETY: the element lies in the memory, and no other code has its pointer yet.
        unsafe {
            match self.element_bytes {
                2 => *self.memory.start().cast::<u16>().add(self.written) = to_bf16(number),
                _ => *self.memory.start().cast::<f32>().add(self.written) = number,
            }
        }
        self.written += 1;
    }
}

/// The packed layout of a dense kernel: `[group][input block][row][column][dot][block of the
/// group][16][depth]`. A group has as many blocks of output channels as a tile; the last group may
/// have fewer. A dot multiplies `depth` input channels of one tap: see `Format::dot`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProductShape {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Height and width.
    pub(super) kernel: [usize; 2],
    /// Channels of an input block: 16, or 1 for planar images.
    pub(super) block_channels: usize,
    /// Input channels of a dot.
    pub(super) depth: usize,
    /// Most blocks of output channels of a tile.
    pub(super) tile_blocks: usize,
    /// Whether the last block of input channels is padded with zero weights to the length of the
    /// others.
    pub(super) pads_last_block: bool,
}

impl ProductShape {
    #[inline]
    pub(super) fn input_blocks(&self) -> usize {
        self.inputs.div_ceil(self.block_channels)
    }

    /// Returns the dots per tap in a full block of input channels, and in the last block.
    #[inline]
    pub(super) fn dots_per_tap(&self) -> [usize; 2] {
        let last = match self.pads_last_block {
            true => self.block_channels,
            false => self.inputs - (self.input_blocks() - 1) * self.block_channels,
        };
        [self.block_channels.div_ceil(self.depth), last.div_ceil(self.depth)]
    }

    #[inline]
    pub(super) fn output_blocks(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    #[inline]
    pub(super) fn groups(&self) -> usize {
        self.output_blocks().div_ceil(self.tile_blocks)
    }

    /// Returns the first block of output channels of a group, and the group's number of blocks.
    #[inline]
    pub(super) fn group_blocks(&self, index: usize) -> (usize, usize) {
        let from = index * self.tile_blocks;
        (from, self.tile_blocks.min(self.output_blocks() - from))
    }

    /// Elements of one block of output channels.
    #[inline]
    pub(super) fn block_elements(&self) -> usize {
        let [dots, last] = self.dots_per_tap();
        let taps = self.kernel[0] * self.kernel[1];
        ((self.input_blocks() - 1) * dots + last) * taps * LANES * self.depth
    }

    /// Elements of all groups.
    fn elements(&self) -> usize {
        self.block_elements() * self.output_blocks()
    }

    /// Packs `weight(output, input, tap)`, where `tap` is `row × columns + column`.
    fn pack(&self, writer: &mut Writer, weight: impl Fn(usize, usize, usize) -> f32) {
        let [dots, dots_last] = self.dots_per_tap();
        for (from, blocks) in (0..self.groups()).map(|group| self.group_blocks(group)) {
            for block in 0..self.input_blocks() {
                let dots = if block + 1 < self.input_blocks() { dots } else { dots_last };
                for tap in 0..self.kernel[0] * self.kernel[1] {
                    for dot in 0..dots {
                        for output in from * LANES..(from + blocks) * LANES {
                            for deep in 0..self.depth {
                                let input = block * self.block_channels + dot * self.depth + deep;
                                let is_there = output < self.outputs && input < self.inputs;
                                let number =
                                    if is_there { weight(output, input, tap) } else { 0.0 };
                                writer.push(number);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Packs a convolution's `[out, in, height, width]` as elements of `element_bytes` bytes.
    pub(super) fn pack_constant(&self, weight: &Constant, element_bytes: usize) -> MappedMemory {
        let taps = self.kernel[0] * self.kernel[1];
        let data = weight.data();
        let mut writer = Writer::new(self.elements(), element_bytes);
        self.pack(&mut writer, |output, input, tap| {
            data[(output * self.inputs + input) * taps + tap]
        });
        writer.memory
    }
}

/// Transforms a 3×3 kernel for Winograd's algorithm, and packs one `f32` matrix for each of the 36
/// elements of a transformed tile.
pub(super) fn winograd(weight: &Constant, shape: &ProductShape) -> MappedMemory {
    let transformed: Vec<[f32; TRANSFORMED_LEN]> =
        weight.data().chunks_exact(9).map(transform_kernel).collect();
    let kernel = |output: usize, input: usize| transformed[output * shape.inputs + input];
    let mut writer = Writer::new(TRANSFORMED_LEN * shape.elements(), size_of::<f32>());
    for element in 0..TRANSFORMED_LEN {
        shape.pack(&mut writer, |output, input, _| kernel(output, input)[element]);
    }
    writer.memory
}

/// Computes `G g Gᵀ`.
fn transform_kernel(taps: &[f32]) -> [f32; TRANSFORMED_LEN] {
    let mut half = [[0.0; 3]; SIDE_IN];
    for (row, g) in half.iter_mut().zip(KERNEL_TRANSFORM) {
        for (column, sum) in row.iter_mut().enumerate() {
            *sum = (0..3).map(|k| g[k] * f64::from(taps[k * 3 + column])).sum::<f64>();
        }
    }
    let mut numbers = [0.0; TRANSFORMED_LEN];
    for (at, number) in numbers.iter_mut().enumerate() {
        let (row, g) = (half[at / SIDE_IN], KERNEL_TRANSFORM[at % SIDE_IN]);
        *number = (0..3).map(|k| row[k] * g[k]).sum::<f64>() as f32;
    }
    numbers
}

/// Packs a depthwise kernel as `[block][row][column][16]`.
pub(super) fn depthwise(weight: &Constant, channels: usize) -> Vec<f32> {
    let taps = weight.data().len() / channels;
    let mut packed = vec![0.0; channels.next_multiple_of(LANES) * taps];
    for (channel, kernel) in weight.data().chunks_exact(taps).enumerate() {
        for (tap, &number) in kernel.iter().enumerate() {
            packed[(channel / LANES * taps + tap) * LANES + channel % LANES] = number;
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> impl Iterator<Item = ProductShape> {
        let sizes = [(1, 1), (16, 16), (17, 15), (40, 33), (70, 3)];
        let kinds = [(LANES, 1, 1), (LANES, 1, 2), (LANES, 2, 1), (LANES, 2, 2), (1, 1, 2)];
        sizes.into_iter().flat_map(move |(outputs, inputs)| {
            kinds.into_iter().flat_map(move |(block_channels, depth, tile_blocks)| {
                let kernel = [2, 3];
                [false, true].map(|pads_last_block| ProductShape {
                    outputs,
                    inputs,
                    kernel,
                    block_channels,
                    depth,
                    tile_blocks,
                    pads_last_block,
                })
            })
        })
    }

    /// Returns the written elements, which must fill the memory.
    fn floats(writer: &Writer) -> Vec<f32> {
        assert_eq!(writer.written, writer.len);
        let numbers = writer.memory.start().cast_const().cast::<f32>();
        // SAFETY: `len` elements were written.
        unsafe { std::slice::from_raw_parts(numbers, writer.len) }.to_vec()
    }

    /// Reads packed weights in the order of a tile: for each dot, the blocks of the group one after
    /// another.
    fn read(shape: &ProductShape, packed: &[f32], mut visit: impl FnMut([usize; 3], f32)) {
        let [dots, dots_last] = shape.dots_per_tap();
        for (first, blocks) in (0..shape.groups()).map(|group| shape.group_blocks(group)) {
            let mut weights = packed[first * shape.block_elements()..].iter();
            for input_block in 0..shape.input_blocks() {
                let is_last = input_block + 1 == shape.input_blocks();
                for (tap, dot) in (0..shape.kernel[0] * shape.kernel[1]).flat_map(|tap| {
                    (0..if is_last { dots_last } else { dots }).map(move |d| (tap, d))
                }) {
                    for lane in 0..blocks * LANES {
                        for deep in 0..shape.depth {
                            let input =
                                input_block * shape.block_channels + dot * shape.depth + deep;
                            visit([first * LANES + lane, input, tap], *weights.next().unwrap());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_tile_finds_each_weight_once_and_zeros_in_the_padding() {
        for shape in shapes() {
            let name = |[output, input, tap]: [usize; 3]| (output * 100 + input) * 10 + tap + 1;
            let mut writer = Writer::new(shape.elements(), size_of::<f32>());
            shape.pack(&mut writer, |output, input, tap| name([output, input, tap]) as f32);
            let packed = floats(&writer);
            let mut found = 0;
            read(&shape, &packed, |at, weight| {
                let is_there = at[0] < shape.outputs && at[1] < shape.inputs;
                assert_eq!(
                    weight,
                    if is_there { name(at) as f32 } else { 0.0 },
                    "{shape:?} {at:?}"
                );
                found += usize::from(is_there);
            });
            assert_eq!(found, shape.outputs * shape.inputs * 6, "{shape:?}");
        }
    }

    #[test]
    fn groups_are_all_blocks_of_outputs_in_order() {
        for shape in shapes() {
            let blocks = (0..shape.groups()).map(|group| shape.group_blocks(group));
            let blocks = blocks.flat_map(|(first, count)| first..first + count);
            assert!(blocks.eq(0..shape.outputs.div_ceil(LANES)), "{shape:?}");
        }
    }

    #[test]
    fn a_depthwise_kernel_lies_tap_by_tap_in_blocks() {
        let numbers: Vec<f32> = (0..17 * 6).map(|number| number as f32).collect();
        let packed = depthwise(&Constant::new(vec![17, 1, 2, 3], numbers.clone()), 17);
        assert_eq!(packed.len(), 2 * 6 * LANES);
        for (channel, tap) in (0..17).flat_map(|channel| (0..6).map(move |tap| (channel, tap))) {
            let at = (channel / LANES * 6 + tap) * LANES + channel % LANES;
            assert_eq!(packed[at], numbers[channel * 6 + tap]);
        }
        assert!(packed[6 * LANES..].iter().filter(|&&number| number != 0.0).count() == 6);
    }

    /// The kernel has one tap, in the middle. Each transformed element is then the product of two
    /// entries of the middle column of `G`.
    #[test]
    fn a_kernel_of_one_tap_is_transformed_to_the_products_of_its_column() {
        let mut taps = [0.0; 9];
        taps[4] = 1.0;
        let numbers = transform_kernel(&taps);
        for (at, &number) in numbers.iter().enumerate() {
            let [row, column] = [at / SIDE_IN, at % SIDE_IN].map(|at| KERNEL_TRANSFORM[at][1]);
            assert_eq!(number, (row * column) as f32);
        }
    }

    #[test]
    fn numbers_per_channel_fill_pairs_of_blocks() {
        let memory = per_channel(&[1.0, 2.0], 3.0);
        // SAFETY: the memory holds two blocks.
        let numbers =
            unsafe { std::slice::from_raw_parts(memory.start().cast::<f32>(), 2 * LANES) };
        assert_eq!(&numbers[..2], [1.0, 2.0]);
        assert!(numbers[2..].iter().all(|&number| number == 3.0));
    }
}
