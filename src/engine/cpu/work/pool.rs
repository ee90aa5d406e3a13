//! Pooling.

use super::{ImageRef, OutputRegion, RowWindow, RunContext, Work};
use crate::cpu::kernels::pool::{GlobalMeanArgs, PoolArgs, PoolKind};
use crate::op::Window;

/// The maximum or the mean of each window.
pub(in crate::cpu) struct Pool {
    pub(in crate::cpu) kind: PoolKind,
    pub(in crate::cpu) window: Window,
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) output: ImageRef,
}

impl Work for Pool {
    fn algorithm(&self) -> &'static str {
        "window"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let (input, output) = (self.input.layout, self.output.layout);
        let [top, left, ..] = self.window.pads;
        for item in region.items.clone() {
            for block in region.groups.clone() {
                // SAFETY: a group is a block, and the kernel stays inside the image.
                unsafe {
                    (run.kernels.pool)(&PoolArgs {
                        kind: self.kind,
                        input: self.input.pixel_ptr(run, item, block, [0, 0], [0, 0]),
                        input_row_stride: input.row_stride(),
                        image: [input.height, input.width],
                        kernel: self.window.kernel,
                        strides: self.window.strides,
                        pads: [top, left],
                        output: self.output.pixel_ptr(
                            run,
                            item,
                            block,
                            [region.rows.start, 0],
                            [0, 0],
                        ),
                        output_row_stride: output.row_stride(),
                        y: region.rows.start,
                        rows: region.rows.len(),
                        width: output.width,
                    });
                }
            }
        }
    }

    fn row_window(&self) -> Option<RowWindow> {
        let offset = self.input.layout.border[0] as isize - self.window.pads[0] as isize;
        let ([height, _], [stride, _]) = (self.window.kernel, self.window.strides);
        Some(RowWindow { stride, height, offset })
    }

    fn update_layout(&mut self, image: &ImageRef) {
        self.input.update_layout(image);
        self.output.update_layout(image);
    }
}

/// The mean of all pixels of a channel.
pub(in crate::cpu) struct GlobalMean {
    pub(in crate::cpu) input: ImageRef,
    pub(in crate::cpu) output: ImageRef,
}

impl Work for GlobalMean {
    fn algorithm(&self) -> &'static str {
        "mean"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            for block in region.groups.clone() {
                // SAFETY: a group is a block, and the output has one pixel.
                unsafe {
                    (run.kernels.global_mean)(&GlobalMeanArgs {
                        input: self.input.pixel_ptr(run, item, block, [0, 0], [0, 0]),
                        input_row_stride: self.input.layout.row_stride(),
                        height: self.input.layout.height,
                        width: self.input.layout.width,
                        output: self.output.pixel_ptr(run, item, block, [0, 0], [0, 0]),
                    });
                }
            }
        }
    }
}
