//! Lowers operations on flat buffers, and the conversion of images to flat buffers.

use std::ops::Range;

use candle_core::Device;

use super::kernel_kind::ImageValue;
use super::{Lowering, StepDraft};
use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::plan::{Owner, ValueLayout};
use crate::cpu::work::{Fallback, FlatActivation, FlatCopy, ImageRef, Unpack};
use crate::error::EngineError;
use crate::graph::{Node, ValueId};
use crate::reference::ReferenceOp;
use crate::shape::element_count;

/// Some channels of a blocked image.
#[derive(Clone)]
pub(super) struct ImageChannels {
    image: ImageRef,
    channels: Range<usize>,
}

impl ImageChannels {
    fn all(image: ImageRef) -> Self {
        Self { image, channels: 0..image.layout.channels }
    }
}

impl<'g> Lowering<'g> {
    pub(super) fn lower_to_channels_last(&mut self, input: ImageValue, to: ValueId) {
        let output = self.add_flat_buffer(to);
        let source = match self.channel_slices.get(&input.id) {
            Some(slice) => slice.clone(),
            None => ImageChannels::all(self.blocked_image(input)),
        };
        self.push_unpack(source, true, output);
    }

    pub(super) fn lower_reshape(&mut self, from: ValueId, to: ValueId) {
        let is_vector =
            |id| ImageValue::of(self.graph, id).is_some_and(|image| image.sides() == [1, 1]);
        // The image has a border for the readers of `from`, not for the readers of `to`.
        let has_border = self.analysis.border(to) != [0; 4];
        if let Some(&image) = self.images.get(&from)
            && is_vector(from)
            && is_vector(to)
            && !has_border
        {
            self.images.insert(to, image);
            return;
        }
        let buffer = self.flat_buffer(from);
        self.flat_buffers.insert(to, buffer);
    }

    pub(super) fn lower_channel_slice(
        &mut self,
        image: ImageValue,
        channels: Range<usize>,
        to: ValueId,
    ) {
        let slice = ImageChannels { image: self.blocked_image(image), channels };
        self.channel_slices.insert(to, slice);
    }

    pub(super) fn lower_flat_activation(
        &mut self,
        name: &'static str,
        kind: ActivationKind,
        from: ValueId,
        to: ValueId,
    ) {
        let input = self.flat_buffer(from);
        let output = self.add_flat_buffer(to);
        let len = element_count(self.graph.shape(to));
        let work = FlatActivation { input, output, len, kind };
        self.push_step(name.to_owned(), StepDraft::whole(work, vec![input], output));
    }

    pub(super) fn lower_fallback(&mut self, node: &'g Node) -> Result<(), EngineError> {
        let reference_op = ReferenceOp::load(self.graph, node, &Device::Cpu)
            .map_err(|source| EngineError::Tensor { op: node.op.name(), source })?;
        let shape = |id: ValueId| self.graph.shape(id).to_vec();
        let shapes: Vec<Vec<usize>> = node.inputs.iter().map(|&id| shape(id)).collect();
        let reads: Vec<usize> = node.inputs.iter().map(|&id| self.flat_buffer(id)).collect();
        let output = self.add_flat_buffer(node.output);
        let len = element_count(self.graph.shape(node.output));
        let inputs = reads.iter().copied().zip(shapes).collect();
        let work = Fallback { op: node.op.name(), reference_op, inputs, output, len };
        self.push_step(node.op.name().to_owned(), StepDraft::whole(work, reads, output));
        Ok(())
    }

    /// Makes the steps write each output to the caller's memory.
    pub(super) fn lower_outputs(&mut self) {
        let ids: Vec<ValueId> = self.graph.output_ids().collect();
        for (index, id) in ids.into_iter().enumerate() {
            let len = element_count(self.graph.shape(id));
            self.plan.output_lens.push(len);
            match self.flat_buffers.get(&id).copied() {
                Some(buffer) if self.plan.buffers[buffer].owner == Owner::Arena => {
                    self.plan.buffers[buffer].owner = Owner::Output(index);
                }
                Some(input) => {
                    let output = self.add_buffer(ValueLayout::Flat { len }, Owner::Output(index));
                    let draft =
                        StepDraft::whole(FlatCopy { input, output, len }, vec![input], output);
                    self.push_step("copy".to_owned(), draft);
                }
                None => {
                    let output = self.add_buffer(ValueLayout::Flat { len }, Owner::Output(index));
                    self.push_unpack(self.channels_of(id), false, output);
                }
            }
        }
    }

    fn add_flat_buffer(&mut self, id: ValueId) -> usize {
        let len = element_count(self.graph.shape(id));
        let buffer = self.add_buffer(ValueLayout::Flat { len }, Owner::Arena);
        self.flat_buffers.insert(id, buffer);
        buffer
    }

    /// Returns the value's flat buffer, and unpacks the value first if it is an image.
    pub(super) fn flat_buffer(&mut self, id: ValueId) -> usize {
        if let Some(&buffer) = self.flat_buffers.get(&id) {
            return buffer;
        }
        let output = self.add_flat_buffer(id);
        self.push_unpack(self.channels_of(id), false, output);
        output
    }

    /// Returns the image that holds a value without a flat buffer, and the value's channels in it.
    fn channels_of(&self, id: ValueId) -> ImageChannels {
        match self.channel_slices.get(&id) {
            Some(slice) => slice.clone(),
            None => ImageChannels::all(self.images[&id]),
        }
    }

    /// Pushes the step that writes channels of an image in the order of the shape or with channels
    /// last.
    fn push_unpack(&mut self, source: ImageChannels, channels_last: bool, output: usize) {
        let ImageChannels { image, channels } = source;
        let work = Unpack { input: image, channels, channels_last, output };
        let mut draft = StepDraft::whole(work, vec![image.buffer], output);
        draft.is_whole = false;
        self.push_step("unpack".to_owned(), draft);
    }
}
