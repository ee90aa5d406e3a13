//! Depthwise convolution.

use super::{ImageRef, OutputRegion, PackedEpilogue, RowWindow, RunContext, Work, block_ptr};
use crate::cpu::kernels::depthwise::DepthwiseArgs;
use crate::cpu::memory::MappedMemory;

/// A convolution of each channel with a kernel of its own.
pub(in crate::cpu) struct Depthwise {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) output: ImageRef,
    pub(in crate::cpu) kernel: [usize; 2],
    pub(in crate::cpu) strides: [usize; 2],
    /// Border before the image: top, left.
    pub(in crate::cpu) pads: [usize; 2],
    pub(in crate::cpu) weights: MappedMemory,
    pub(in crate::cpu) bias: MappedMemory,
    pub(in crate::cpu) epilogue: PackedEpilogue,
}

impl Work for Depthwise {
    fn algorithm(&self) -> &'static str {
        "depthwise"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let kernels = run.kernels;
        let widens_to_f32 = self.output.element_bytes != kernels.element_bytes;
        let table = if widens_to_f32 { &kernels.depthwise_to_f32 } else { &kernels.depthwise };
        let depthwise_fn = table.get(self.kernel, self.strides);
        let taps = self.kernel[0] * self.kernel[1];
        let first = [region.rows.start, 0];
        let from = [region.rows.start * self.strides[0], 0];
        for item in region.items.clone() {
            for block in region.groups.clone() {
                // SAFETY: a group is a block, and its taps lie in the bordered input.
                unsafe {
                    depthwise_fn(&DepthwiseArgs {
                        input: self.input.pixel_ptr(run, item, block, from, self.pads),
                        input_row_stride: self.input.layout.row_stride(),
                        kernel: self.kernel,
                        strides: self.strides,
                        weights: block_ptr(&self.weights, block * taps),
                        bias: block_ptr(&self.bias, block),
                        epilogue: self.epilogue.at_block(block),
                        output: self.output.pixel_ptr(run, item, block, first, [0, 0]),
                        output_row_stride: self.output.layout.row_stride(),
                        rows: region.rows.len(),
                        width: self.output.layout.width,
                    });
                }
            }
        }
    }

    fn row_window(&self) -> Option<RowWindow> {
        let offset = self.input.layout.border[0] as isize - self.pads[0] as isize;
        Some(RowWindow { stride: self.strides[0], height: self.kernel[0], offset })
    }

    fn update_layout(&mut self, image: &ImageRef) {
        self.input.update_layout(image);
        self.output.update_layout(image);
    }

    fn weight_bytes(&self) -> usize {
        self.weights.bytes()
    }
}
