//! Pools.

use super::{Image, Region, RowWindow, Run, Work};
use crate::cpu::kernels::pool::{GlobalMeanArgs, PoolArgs, PoolKind};
use crate::op::Window;

/// The largest number or the mean of each window.
pub(in crate::cpu) struct Pool {
    pub(in crate::cpu) kind: PoolKind,
    pub(in crate::cpu) window: Window,
    pub(in crate::cpu) input: Image,
    pub(in crate::cpu) output: Image,
}

impl Work for Pool {
    fn algorithm(&self) -> &'static str {
        "window"
    }

    unsafe fn run(&self, run: &Run<'_>, region: &Region) {
        let (input, output) = (self.input.layout, self.output.layout);
        let [top, left, ..] = self.window.pads;
        for item in region.items.clone() {
            for block in region.groups.clone() {
                // SAFETY: a group is a block; the kernel keeps inside the image.
                unsafe {
                    (run.kernels.pool)(&PoolArgs {
                        kind: self.kind,
                        input: self.input.at(run, item, block, [0, 0], [0, 0]),
                        input_row: input.row(),
                        image: [input.height, input.width],
                        kernel: self.window.kernel,
                        strides: self.window.strides,
                        pads: [top, left],
                        output: self.output.at(run, item, block, [region.rows.start, 0], [0, 0]),
                        output_row: output.row(),
                        y: region.rows.start,
                        rows: region.rows.len(),
                        width: output.width,
                    });
                }
            }
        }
    }

    fn row_window(&self) -> Option<RowWindow> {
        let first = self.input.layout.border[0] as isize - self.window.pads[0] as isize;
        let ([height, _], [stride, _]) = (self.window.kernel, self.window.strides);
        Some(RowWindow { stride, height, first })
    }

    fn store(&mut self, image: &Image) {
        self.input.store(image);
        self.output.store(image);
    }
}

/// The mean of all pixels of a channel.
pub(in crate::cpu) struct GlobalMean {
    pub(in crate::cpu) input: Image,
    pub(in crate::cpu) output: Image,
}

impl Work for GlobalMean {
    fn algorithm(&self) -> &'static str {
        "mean"
    }

    unsafe fn run(&self, run: &Run<'_>, region: &Region) {
        for item in region.items.clone() {
            for block in region.groups.clone() {
                // SAFETY: a group is a block; the output has one pixel.
                unsafe {
                    (run.kernels.global_mean)(&GlobalMeanArgs {
                        input: self.input.at(run, item, block, [0, 0], [0, 0]),
                        input_row: self.input.layout.row(),
                        height: self.input.layout.height,
                        width: self.input.layout.width,
                        output: self.output.at(run, item, block, [0, 0], [0, 0]),
                    });
                }
            }
        }
    }
}
