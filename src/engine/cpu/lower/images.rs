//! Lowers operations on images other than convolutions.

use super::analysis;
use super::kernel_kind::KernelKind;
use super::{Lowering, StepDraft, epilogue};
use crate::cpu::kernels::pool::PoolKind;
use crate::cpu::pack;
use crate::cpu::work::{
    Assemble, Elementwise, GlobalMean, ImageRef, PackedEpilogue, PlacedImage, Pool, Upsample,
};
use crate::graph::{Node, ValueId};
use crate::op::{BinaryOp, Op};

/// The values that an [`Elementwise`] step reads.
struct Operands {
    a: ValueId,
    channel_scale: Option<ValueId>,
    b: Option<(BinaryOp, ValueId)>,
}

impl<'g> Lowering<'g> {
    pub(super) fn lower_affine(&mut self, node: &'g Node) {
        let Op::Affine(affine) = &node.op else {
            unreachable!("its kernel kind is for scales and shifts only")
        };
        let a = self.blocked_image(node.inputs[0]);
        let output = self.new_output_image(node.output);
        let shape = [a.layout.channels, a.layout.height, a.layout.width];
        let per_channel = |constant| {
            let numbers = analysis::along_channels(constant, shape)
                .expect("other constants have the kernel kind Fallback");
            pack::per_channel(&numbers, 0.0)
        };
        let work = Elementwise {
            a,
            affine: Some([per_channel(&affine.scale), per_channel(&affine.shift)]),
            channel_scale: None,
            b: None,
            b_upsample: [1, 1],
            epilogue: PackedEpilogue::Identity,
            output,
        };
        self.push_step(
            node.op.name().to_owned(),
            StepDraft::by_block(work, vec![a.value], &output),
        );
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_activation(&mut self, node: &'g Node) {
        let Op::Activation(activation) = &node.op else {
            unreachable!("its kernel kind is for activations only")
        };
        let a = self.blocked_image(node.inputs[0]);
        let output = self.new_output_image(node.output);
        let (epilogue, activation_step) =
            epilogue::lower_activation(Some(activation), a.layout.channels);
        let work = Elementwise {
            a,
            affine: None,
            channel_scale: None,
            b: None,
            b_upsample: [1, 1],
            epilogue,
            output,
        };
        self.push_step(
            node.op.name().to_owned(),
            StepDraft::by_block(work, vec![a.value], &output),
        );
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_binary(&mut self, node: &'g Node, kind: KernelKind) {
        let Op::Binary(op) = &node.op else {
            unreachable!("its kernel kind is for functions of two values only")
        };
        let fused = node.inputs.iter().find_map(|&id| Some((id, self.analysis.fused_operand(id)?)));
        let other =
            |id: ValueId| *node.inputs.iter().find(|&&input| input != id).expect("a sum of two");
        let operands = match (fused, kind) {
            (Some((product, Node { op: Op::Binary(_), inputs, .. })), _) => Operands {
                a: inputs[0],
                channel_scale: Some(inputs[1]),
                b: Some((BinaryOp::Add, other(product))),
            },
            (Some((upsampled, upsample)), _) => Operands {
                a: other(upsampled),
                channel_scale: None,
                b: Some((BinaryOp::Add, upsample.inputs[0])),
            },
            (None, KernelKind::ChannelScale) => {
                Operands { a: node.inputs[0], channel_scale: Some(node.inputs[1]), b: None }
            }
            (None, _) => {
                Operands { a: node.inputs[0], channel_scale: None, b: Some((*op, node.inputs[1])) }
            }
        };
        let a = self.blocked_image(operands.a);
        let channel_scale = operands.channel_scale.map(|id| self.blocked_image(id));
        let b = operands.b.map(|(op, id)| (op, self.blocked_image(id)));
        let output = self.new_output_image(node.output);
        let reads = [Some(a), channel_scale, b.map(|(_, b)| b)].into_iter().flatten();
        let reads = reads.map(|image| image.value).collect();
        let work = Elementwise {
            a,
            affine: None,
            channel_scale,
            b,
            b_upsample: b.map_or([1, 1], |(_, b)| upsample_factor(&b, &output)),
            epilogue: PackedEpilogue::Identity,
            output,
        };
        let draft = StepDraft::by_block(work, reads, &output);
        self.push_step(node.op.name().to_owned(), draft);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_pool(&mut self, node: &'g Node) {
        let (kind, window) = match &node.op {
            Op::MaxPool(window) => (PoolKind::Max, *window),
            Op::AveragePool(pool) if pool.count_include_pad => {
                (PoolKind::MeanWithBorder, pool.window)
            }
            Op::AveragePool(pool) => (PoolKind::Mean, pool.window),
            _ => unreachable!("its kernel kind is for pools only"),
        };
        let input = self.blocked_image(node.inputs[0]);
        let output = self.new_output_image(node.output);
        let work = Pool { kind, window, input, output };
        let draft = StepDraft::by_block(work, vec![input.value], &output);
        let [high, wide] = window.kernel;
        self.push_step(format!("{} {high}×{wide}", node.op.name()), draft);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_global_mean(&mut self, node: &'g Node) {
        let input = self.blocked_image(node.inputs[0]);
        let output = self.new_output_image(node.output);
        let draft = StepDraft::by_block(GlobalMean { input, output }, vec![input.value], &output);
        self.push_step(node.op.name().to_owned(), draft);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_upsample(&mut self, node: &'g Node) {
        let input = self.blocked_image(node.inputs[0]);
        let output = self.new_output_image(node.output);
        let factor = upsample_factor(&input, &output);
        let work = Upsample { input, output, factor };
        let draft = StepDraft::by_block(work, vec![input.value], &output);
        self.push_step(format!("{} ×{}", node.op.name(), factor[0]), draft);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_assemble(&mut self, node: &'g Node) {
        let inputs: Vec<ImageRef> = node.inputs.iter().map(|&id| self.blocked_image(id)).collect();
        let output = self.new_output_image(node.output);
        let (fill, filled_blocks) = match &node.op {
            Op::Pad { value, .. } => {
                let fill = self.pack_lanes(&vec![*value; output.layout.channels], &output);
                (fill, 0..output.layout.blocks())
            }
            _ => (self.pack_lanes(&[], &output), self.partial_block(&output)),
        };
        let [mut channel, top, left] = match &node.op {
            Op::Pad { before, .. } => {
                [0, 1, 2].map(|axis: usize| before.get(axis).copied().unwrap_or(0))
            }
            _ => [0; 3],
        };
        let mut sources = Vec::new();
        for image in inputs {
            sources.push(PlacedImage { image, channel, top, left });
            channel += image.layout.channels;
        }
        let reads = sources.iter().map(|source| source.image.value).collect();
        let work = Assemble { fill, filled_blocks, sources, output };
        let mut draft = StepDraft::by_block(work, reads, &output);
        draft.groups = 1;
        self.push_step(node.op.name().to_owned(), draft);
        self.push_border(output, self.analysis.border_fill(node.output));
    }
}

/// Returns the rows and columns of `large` for each pixel of `small`.
fn upsample_factor(small: &ImageRef, large: &ImageRef) -> [usize; 2] {
    [large.layout.height / small.layout.height, large.layout.width / small.layout.width]
}
