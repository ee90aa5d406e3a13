//! Lowers operations on images other than convolutions.

use super::epilogue::{self, ImageActivation};
use super::kernel_kind::{FusedTerm, ImageValue};
use super::{Lowering, StepDraft};
use crate::cpu::kernels::pool::PoolKind;
use crate::cpu::pack;
use crate::cpu::work::{
    Assemble, Elementwise, GlobalMean, ImageRef, PackedEpilogue, PlacedImage, Pool, Upsample,
};
use crate::op::{BinaryOp, Window};

/// The images that an [`Elementwise`] step reads.
struct Operands {
    a: ImageValue,
    channel_scale: Option<ImageValue>,
    b: Option<(BinaryOp, ImageValue)>,
}

impl Lowering<'_> {
    pub(super) fn lower_affine(
        &mut self,
        name: &'static str,
        input: ImageValue,
        numbers: [&[f32]; 2],
        output: ImageValue,
    ) {
        let a = self.blocked_image(input);
        let written = self.add_output_image(output);
        let work = Elementwise {
            a,
            affine: Some(numbers.map(|numbers| pack::per_channel(numbers, 0.0))),
            channel_scale: None,
            b: None,
            b_upsample: [1, 1],
            epilogue: PackedEpilogue::Identity,
            output: written,
        };
        self.push_step(name.to_owned(), StepDraft::by_block(work, vec![a.buffer], &written));
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_activation(
        &mut self,
        name: &'static str,
        activation: &ImageActivation,
        input: ImageValue,
        output: ImageValue,
    ) {
        let a = self.blocked_image(input);
        let written = self.add_output_image(output);
        let (epilogue, activation_step) = epilogue::split_activation(Some(activation));
        let work = Elementwise {
            a,
            affine: None,
            channel_scale: None,
            b: None,
            b_upsample: [1, 1],
            epilogue,
            output: written,
        };
        self.push_step(name.to_owned(), StepDraft::by_block(work, vec![a.buffer], &written));
        self.push_activation(written, activation_step);
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_binary(
        &mut self,
        name: &'static str,
        op: BinaryOp,
        [a, b]: [ImageValue; 2],
        output: ImageValue,
    ) {
        self.lower_elementwise(name, Operands { a, channel_scale: None, b: Some((op, b)) }, output);
    }

    pub(super) fn lower_channel_scale(
        &mut self,
        name: &'static str,
        image: ImageValue,
        scale: ImageValue,
        output: ImageValue,
    ) {
        let operands = Operands { a: image, channel_scale: Some(scale), b: None };
        self.lower_elementwise(name, operands, output);
    }

    pub(super) fn lower_sum(
        &mut self,
        name: &'static str,
        addend: ImageValue,
        fused: FusedTerm,
        output: ImageValue,
    ) {
        let operands = match fused {
            FusedTerm::Scaled { image, scale } => {
                Operands { a: image, channel_scale: Some(scale), b: Some((BinaryOp::Add, addend)) }
            }
            FusedTerm::Upsampled(image) => {
                Operands { a: addend, channel_scale: None, b: Some((BinaryOp::Add, image)) }
            }
        };
        self.lower_elementwise(name, operands, output);
    }

    fn lower_elementwise(&mut self, name: &'static str, operands: Operands, output: ImageValue) {
        let a = self.blocked_image(operands.a);
        let channel_scale = operands.channel_scale.map(|scale| self.blocked_image(scale));
        let b = operands.b.map(|(op, b)| (op, self.blocked_image(b)));
        let written = self.add_output_image(output);
        let reads = [Some(a), channel_scale, b.map(|(_, b)| b)].into_iter().flatten();
        let reads = reads.map(|image| image.buffer).collect();
        let work = Elementwise {
            a,
            affine: None,
            channel_scale,
            b,
            b_upsample: b.map_or([1, 1], |(_, b)| upsample_factor(&b, &written)),
            epilogue: PackedEpilogue::Identity,
            output: written,
        };
        self.push_step(name.to_owned(), StepDraft::by_block(work, reads, &written));
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_pool(
        &mut self,
        name: &'static str,
        kind: PoolKind,
        window: Window,
        input: ImageValue,
        output: ImageValue,
    ) {
        let read = self.blocked_image(input);
        let written = self.add_output_image(output);
        let work = Pool { kind, window, input: read, output: written };
        let draft = StepDraft::by_block(work, vec![read.buffer], &written);
        let [high, wide] = window.kernel;
        self.push_step(format!("{name} {high}×{wide}"), draft);
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_global_mean(
        &mut self,
        name: &'static str,
        input: ImageValue,
        output: ImageValue,
    ) {
        let read = self.blocked_image(input);
        let written = self.add_output_image(output);
        let work = GlobalMean { input: read, output: written };
        self.push_step(name.to_owned(), StepDraft::by_block(work, vec![read.buffer], &written));
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_upsample(
        &mut self,
        name: &'static str,
        input: ImageValue,
        output: ImageValue,
    ) {
        let read = self.blocked_image(input);
        let written = self.add_output_image(output);
        let factor = upsample_factor(&read, &written);
        let work = Upsample { input: read, output: written, factor };
        let draft = StepDraft::by_block(work, vec![read.buffer], &written);
        self.push_step(format!("{name} ×{}", factor[0]), draft);
        self.push_border(written, self.analysis.border_values(output.id));
    }

    pub(super) fn lower_pad(
        &mut self,
        name: &'static str,
        [channel, top, left]: [usize; 3],
        value: f32,
        input: ImageValue,
        output: ImageValue,
    ) {
        let image = self.blocked_image(input);
        let written = self.add_output_image(output);
        let work = Assemble {
            fill: self.pack_lanes(&vec![value; written.layout.channels], &written),
            filled_blocks: 0..written.layout.blocks(),
            sources: vec![PlacedImage { image, channel, top, left }],
            output: written,
        };
        self.push_assemble(name, work, output);
    }

    pub(super) fn lower_concat(
        &mut self,
        name: &'static str,
        inputs: &[ImageValue],
        output: ImageValue,
    ) {
        let mut channel = 0;
        let mut sources = Vec::new();
        for &input in inputs {
            let image = self.blocked_image(input);
            sources.push(PlacedImage { image, channel, top: 0, left: 0 });
            channel += input.channels();
        }
        let written = self.add_output_image(output);
        let work = Assemble {
            fill: self.pack_lanes(&[], &written),
            filled_blocks: self.partial_block(&written),
            sources,
            output: written,
        };
        self.push_assemble(name, work, output);
    }

    fn push_assemble(&mut self, name: &'static str, work: Assemble, output: ImageValue) {
        let written = work.output;
        let reads = work.sources.iter().map(|source| source.image.buffer).collect();
        let mut draft = StepDraft::by_block(work, reads, &written);
        draft.groups = 1;
        self.push_step(name.to_owned(), draft);
        self.push_border(written, self.analysis.border_values(output.id));
    }
}

/// Returns the rows and columns of `large` for each pixel of `small`.
fn upsample_factor(small: &ImageRef, large: &ImageRef) -> [usize; 2] {
    [large.layout.height / small.layout.height, large.layout.width / small.layout.width]
}
