//! Operations on each element alone.

use super::{ImageRef, OutputRegion, PackedEpilogue, RunContext, Work, block_ptr};
use crate::cpu::kernels::elementwise::{ActivationArgs, ActivationKind, ElementwiseArgs};
use crate::cpu::lanes::LANES;
use crate::cpu::memory::MappedMemory;
use crate::op::BinaryOp;

/// Computes `epilogue((a × scale + shift) × channel_scale ∘ b)`, without the parts that are `None`.
pub(in crate::cpu) struct Elementwise {
    pub(in crate::cpu) a: ImageRef,
    /// Scale and shift per channel.
    pub(in crate::cpu) affine: Option<[MappedMemory; 2]>,
    /// An image of one pixel: the factors of squeeze-and-excite.
    pub(in crate::cpu) channel_scale: Option<ImageRef>,
    pub(in crate::cpu) b: Option<(BinaryOp, ImageRef)>,
    /// Rows and columns of the output for each pixel of `b`.
    pub(in crate::cpu) b_upsample: [usize; 2],
    pub(in crate::cpu) epilogue: PackedEpilogue,
    pub(in crate::cpu) output: ImageRef,
}

impl Work for Elementwise {
    fn algorithm(&self) -> &'static str {
        "elementwise"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        for item in region.items.clone() {
            for block in region.groups.clone() {
                for y in region.rows.clone() {
                    // SAFETY: the row lies in a block of images of one size; the channel scale has
                    // one pixel.
                    unsafe {
                        let at = |of: &ImageRef| of.pixel_ptr(run, item, block, [y, 0], [0, 0]);
                        (run.kernels.elementwise)(&ElementwiseArgs {
                            a: at(&self.a),
                            affine: self.affine.as_ref().map(|[scale, shift]| {
                                [block_ptr(scale, block), block_ptr(shift, block)]
                            }),
                            channel_scale: self.channel_scale.map(|scale| {
                                scale.pixel_ptr(run, item, block, [0, 0], [0, 0]).cast_const()
                            }),
                            b: self.b.map(|(op, b)| {
                                let row = [y / self.b_upsample[0], 0];
                                (op, b.pixel_ptr(run, item, block, row, [0, 0]).cast_const())
                            }),
                            b_repeat: self.b_upsample[1],
                            epilogue: self.epilogue.at_block(block),
                            output: at(&self.output),
                            count: self.output.layout.width,
                        });
                    }
                }
            }
        }
    }
}

/// Applies an activation to every element of an image, in place.
pub(in crate::cpu) struct InPlaceActivation {
    pub(in crate::cpu) kind: ActivationKind,
    pub(in crate::cpu) image: ImageRef,
}

impl Work for InPlaceActivation {
    fn algorithm(&self) -> &'static str {
        "activation"
    }

    unsafe fn run(&self, run: &RunContext<'_>, region: &OutputRegion) {
        let is_widened = self.image.element_bytes != run.kernels.element_bytes;
        let activation =
            if is_widened { run.kernels.activation_f32 } else { run.kernels.activation };
        debug_assert!(self.image.layout.row_stride() >= self.image.layout.width * LANES);
        for item in region.items.clone() {
            for block in region.groups.clone() {
                for y in region.rows.clone() {
                    // SAFETY: the row lies in the block.
                    unsafe {
                        activation(&ActivationArgs {
                            kind: self.kind,
                            data: self.image.pixel_ptr(run, item, block, [y, 0], [0, 0]),
                            count: self.image.layout.width,
                        });
                    }
                }
            }
        }
    }
}
