//! Lowers a graph to a plan: each operation gets a kernel, packed constants, and inputs in the
//! layout that its kernel reads.

mod analysis;
mod band_fusion;
mod convolutions;
mod epilogue;
mod images;
mod kernel_kind;
mod merge_heads;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Device;

use self::analysis::{GraphAnalysis, image_shape};
pub(super) use self::band_fusion::{BandPolicy, fuse_bands};
use self::kernel_kind::KernelKind;
use self::merge_heads::merge_heads;
use super::kernels::KernelSet;
use super::kernels::elementwise::ActivationKind;
use super::lanes::LANES;
use super::layout::ImageLayout;
use super::memory::Buffer;
use super::pack;
use super::plan::{Owner, Plan, Step, Value, ValueLayout};
use super::work::{
    Assemble, Fallback, FillBorder, FlatActivation, FlatCopy, ImageRef, InPlaceActivation, Pack,
    PlacedImage, Unpack, Work,
};
use crate::constant::Constant;
use crate::error::EngineError;
use crate::graph::{Graph, Node, ValueId};
use crate::op::Op;
use crate::reference::ReferenceOp;
use crate::shape::known_elements;

/// Images from this size on share memory with values of other layouts and write their borders in
/// every run. That takes a hundredth of the time to write the image. Smaller images keep their
/// borders of zeros.
const OWN_BORDER_BYTES: usize = 1 << 20;

/// Lowers an optimised graph to the kernels of a set.
///
/// # Errors
/// If an operation has no kernel and the reference cannot load it either.
pub(super) fn lower(graph: &Graph, kernels: &'static KernelSet) -> Result<Plan, EngineError> {
    // The clone shares the constants of the graph.
    let graph = &merge_heads(graph.clone());
    let mut lowering = Lowering {
        graph,
        analysis: GraphAnalysis::new(graph, kernels),
        images: HashMap::new(),
        bordered_copies: HashMap::new(),
        flat_values: HashMap::new(),
        channel_slices: HashMap::new(),
        plan: Plan {
            kernels,
            values: Vec::new(),
            steps: Vec::new(),
            input_len: known_elements(&graph.input().shape),
            output_lens: Vec::new(),
        },
    };
    lowering.lower_input();
    for (node, kind) in graph.nodes().iter().zip(lowering.analysis.kinds.clone()) {
        lowering.lower_node(node, kind)?;
    }
    lowering.lower_outputs();
    Ok(lowering.plan)
}

struct Lowering<'g> {
    graph: &'g Graph,
    analysis: GraphAnalysis<'g>,
    /// The blocked image of each value that has one.
    images: HashMap<ValueId, ImageRef>,
    /// Copies of images whose borders hold other numbers.
    bordered_copies: HashMap<ValueId, Vec<(Option<&'g Constant>, ImageRef)>>,
    /// The flat value of each value that has one.
    flat_values: HashMap<ValueId, usize>,
    /// The image and channels of each value that is a slice of an image.
    channel_slices: HashMap<ValueId, (ImageRef, Range<usize>)>,
    plan: Plan,
}

/// A step before it is added to the plan.
struct StepDraft {
    work: Box<dyn Work>,
    reads: Vec<usize>,
    writes: usize,
    row_unit: usize,
    groups: usize,
    macs: u64,
    /// Whether the step's rows cannot be computed separately.
    is_whole: bool,
}

impl StepDraft {
    /// Returns a step whose groups are the blocks of an image.
    fn by_block(work: impl Work + 'static, reads: Vec<usize>, output: &ImageRef) -> Self {
        Self {
            work: Box::new(work),
            reads,
            writes: output.value,
            row_unit: 1,
            groups: output.layout.blocks(),
            macs: 0,
            is_whole: false,
        }
    }

    /// Returns a step that cannot be split between threads.
    fn whole(work: impl Work + 'static, reads: Vec<usize>, writes: usize) -> Self {
        Self {
            work: Box::new(work),
            reads,
            writes,
            row_unit: 1,
            groups: 1,
            macs: 0,
            is_whole: true,
        }
    }
}

impl<'g> Lowering<'g> {
    fn lower_input(&mut self) {
        let len = self.plan.input_len;
        let value = self.new_value(ValueLayout::Flat { len }, Owner::Input);
        self.flat_values.insert(self.graph.input_id(), value);
    }

    fn new_value(&mut self, layout: ValueLayout, owner: Owner) -> usize {
        self.plan.values.push(Value { layout, owner });
        self.plan.values.len() - 1
    }

    fn new_flat_value(&mut self, id: ValueId) -> usize {
        let len = known_elements(self.graph.shape(id));
        let value = self.new_value(ValueLayout::Flat { len }, Owner::Arena);
        self.flat_values.insert(id, value);
        value
    }

    fn push_step(&mut self, label: String, draft: StepDraft) {
        let rows = match self.plan.values[draft.writes].layout {
            _ if draft.is_whole => 1,
            ValueLayout::Image { layout, .. } => layout.height,
            // A flat value made from an image is written in the rows of that image.
            ValueLayout::Flat { .. } => self.plan.height(draft.reads[0]),
        };
        let StepDraft { work, reads, writes, row_unit, groups, macs, .. } = draft;
        let step = Step { label, work, reads, writes, rows, row_unit, groups, macs };
        self.plan.steps.push(step);
    }

    /// Adds a blocked image for a value of the graph.
    fn new_image(&mut self, id: ValueId, fill: Option<&'g Constant>) -> ImageRef {
        let shape = image_shape(self.graph.shape(id)).expect("its kernel kind is for images only");
        let border = self.analysis.border(id);
        let layout = ImageLayout::whole(shape, border);
        let is_f32 = self.analysis.is_stored_as_f32(id);
        let element_bytes = if is_f32 { size_of::<f32>() } else { self.plan.kernels.element_bytes };
        let is_large = layout.elements() * element_bytes >= OWN_BORDER_BYTES;
        let has_own_border = fill.is_some() || (is_large && border != [0; 4]);
        let value_layout = ValueLayout::Image { layout, element_bytes, has_own_border };
        let value = self.new_value(value_layout, Owner::Arena);
        ImageRef { value, layout, element_bytes }
    }

    /// Adds the image that a node writes.
    fn new_output_image(&mut self, id: ValueId) -> ImageRef {
        let image = self.new_image(id, self.analysis.border_fill(id));
        self.images.insert(id, image);
        image
    }

    /// Pushes the step that fills an image's border, unless the border stays zero. It follows the
    /// step that writes the image.
    fn push_border(&mut self, image: ImageRef, fill: Option<&Constant>) {
        let ValueLayout::Image { has_own_border: true, .. } = self.plan.values[image.value].layout
        else {
            return;
        };
        let values = self.pack_lanes(fill.map_or(&[], Constant::data), &image);
        let mut draft =
            StepDraft::by_block(FillBorder { image, values: Arc::new(values) }, Vec::new(), &image);
        (draft.is_whole, draft.groups) = (true, 1);
        self.push_step("border".to_owned(), draft);
    }

    /// Converts one number for each lane of an image to the network's format. Missing numbers are
    /// zeros.
    fn pack_lanes(&self, numbers: &[f32], image: &ImageRef) -> Buffer {
        let mut lanes = numbers.to_vec();
        lanes.resize(image.layout.blocks() * LANES, 0.0);
        pack::in_format(self.plan.kernels, &lanes)
    }

    /// Returns the block with lanes beyond the last channel, or an empty range if there is none. A
    /// step that copies channels must fill these lanes itself. Images stored as `f32` in a network
    /// of another format need no fill, because no kernel computes with them.
    fn partial_block(&self, image: &ImageRef) -> Range<usize> {
        let blocks = image.layout.blocks();
        let is_full = image.layout.channels.is_multiple_of(LANES);
        let is_f32 = image.element_bytes != self.plan.kernels.element_bytes;
        if is_full || is_f32 { blocks..blocks } else { blocks - 1..blocks }
    }

    /// Returns the value as a blocked image, and packs it first if it is flat.
    fn blocked_image(&mut self, id: ValueId) -> ImageRef {
        if let Some(&image) = self.images.get(&id) {
            return image;
        }
        let input = self.flat_values[&id];
        let image = self.new_output_image(id);
        self.push_pack(id, input, false, image);
        image
    }

    fn push_pack(&mut self, id: ValueId, input: usize, channels_last: bool, output: ImageRef) {
        let work = Pack { input, channels_last, output };
        let mut draft = StepDraft::whole(work, vec![input], output.value);
        draft.is_whole = false;
        self.push_step("pack".to_owned(), draft);
        self.push_border(output, self.analysis.border_fill(id));
    }

    /// Returns the value as an image whose border holds `fill`.
    fn image_with_border(&mut self, id: ValueId, fill: Option<&'g Constant>) -> ImageRef {
        let image = self.blocked_image(id);
        if self.analysis.border_fill(id) == fill {
            return image;
        }
        let copies = self.bordered_copies.get(&id).into_iter().flatten();
        if let Some((_, copy)) = copies.clone().find(|(copy_fill, _)| *copy_fill == fill) {
            return *copy;
        }
        let copy = self.new_image(id, fill);
        let source = PlacedImage { image, channel: 0, top: 0, left: 0 };
        let work = Assemble {
            fill: self.pack_lanes(&[], &copy),
            filled_blocks: self.partial_block(&copy),
            sources: vec![source],
            output: copy,
        };
        let mut draft = StepDraft::by_block(work, vec![image.value], &copy);
        draft.groups = 1;
        self.push_step("copy for another border".to_owned(), draft);
        self.push_border(copy, fill);
        self.bordered_copies.entry(id).or_default().push((fill, copy));
        copy
    }

    /// Returns the value in the order of its shape, and unpacks it first if it is an image.
    fn flat_value(&mut self, id: ValueId) -> usize {
        if let Some(&value) = self.flat_values.get(&id) {
            return value;
        }
        let output = self.new_flat_value(id);
        self.push_unpack(id, false, output);
        output
    }

    /// Pushes the step that writes an image, or some of its channels, in the order of the shape or
    /// with channels last.
    fn push_unpack(&mut self, id: ValueId, channels_last: bool, output: usize) {
        let (input, channels) = match self.channel_slices.get(&id) {
            Some(slice) => slice.clone(),
            None => {
                let image = self.blocked_image(id);
                (image, 0..image.layout.channels)
            }
        };
        let work = Unpack { input, channels, channels_last, output };
        let mut draft = StepDraft::whole(work, vec![input.value], output);
        draft.is_whole = false;
        self.push_step("unpack".to_owned(), draft);
    }

    fn lower_node(&mut self, node: &'g Node, kind: KernelKind) -> Result<(), EngineError> {
        match kind {
            KernelKind::Fused => {}
            KernelKind::Planar { channels_last } => self.lower_planar(node, channels_last),
            KernelKind::Dense | KernelKind::Winograd => self.lower_dense(node, kind),
            KernelKind::Depthwise => self.lower_depthwise(node),
            KernelKind::FullyConnected => self.lower_fully_connected(node),
            KernelKind::Affine => self.lower_affine(node),
            KernelKind::Activation => self.lower_activation(node),
            KernelKind::Binary | KernelKind::ChannelScale => self.lower_binary(node, kind),
            KernelKind::Pool => self.lower_pool(node),
            KernelKind::GlobalMean => self.lower_global_mean(node),
            KernelKind::Upsample => self.lower_upsample(node),
            KernelKind::Pad | KernelKind::Concat => self.lower_assemble(node),
            KernelKind::ToChannelsLast => {
                let output = self.new_flat_value(node.output);
                self.push_unpack(node.inputs[0], true, output);
            }
            KernelKind::FromChannelsLast => {
                let input = self.flat_value(node.inputs[0]);
                let output = self.new_output_image(node.output);
                self.push_pack(node.output, input, true, output);
            }
            KernelKind::Reshape => self.lower_reshape(node),
            KernelKind::ChannelSlice => self.lower_channel_slice(node),
            KernelKind::FlatActivation => self.lower_flat_activation(node),
            KernelKind::Fallback => self.lower_fallback(node)?,
        }
        Ok(())
    }

    /// Pushes the step for an activation that an epilogue cannot compute.
    fn push_activation(&mut self, image: ImageRef, activation_step: Option<ActivationKind>) {
        let Some(kind) = activation_step else { return };
        let draft =
            StepDraft::by_block(InPlaceActivation { kind, image }, vec![image.value], &image);
        self.push_step("activation".to_owned(), draft);
    }

    fn lower_reshape(&mut self, node: &'g Node) {
        let (from, to) = (node.inputs[0], node.output);
        let is_vector = |id| matches!(image_shape(self.graph.shape(id)), Some([_, 1, 1]));
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
        let value = self.flat_value(from);
        self.flat_values.insert(to, value);
    }

    fn lower_channel_slice(&mut self, node: &'g Node) {
        let Op::Slice { start, .. } = node.op else {
            unreachable!("its kernel kind is for slices only")
        };
        let channels = self.graph.shape(node.output)[0];
        let image = self.images[&node.inputs[0]];
        self.channel_slices.insert(node.output, (image, start..start + channels));
    }

    fn lower_flat_activation(&mut self, node: &'g Node) {
        let Op::Activation(activation) = &node.op else {
            unreachable!("its kernel kind is for activations only")
        };
        let input = self.flat_value(node.inputs[0]);
        let output = self.new_flat_value(node.output);
        let len = known_elements(self.graph.shape(node.output));
        let work =
            FlatActivation { input, output, len, kind: epilogue::activation_kind(activation) };
        self.push_step(node.op.name().to_owned(), StepDraft::whole(work, vec![input], output));
    }

    fn lower_fallback(&mut self, node: &'g Node) -> Result<(), EngineError> {
        let kernel = ReferenceOp::load(self.graph, node, &Device::Cpu)
            .map_err(|source| EngineError::Tensor { op: node.op.name(), source })?;
        let shape = |id: ValueId| self.graph.shape(id).to_vec();
        let shapes: Vec<Vec<usize>> = node.inputs.iter().map(|&id| shape(id)).collect();
        let reads: Vec<usize> = node.inputs.iter().map(|&id| self.flat_value(id)).collect();
        let output = self.new_flat_value(node.output);
        let len = known_elements(self.graph.shape(node.output));
        let inputs = reads.iter().copied().zip(shapes).collect();
        let work = Fallback { op: node.op.name(), kernel, inputs, output, len };
        self.push_step(node.op.name().to_owned(), StepDraft::whole(work, reads, output));
        Ok(())
    }

    /// Makes the steps write each output to the caller's memory.
    fn lower_outputs(&mut self) {
        let ids: Vec<ValueId> = self.graph.output_ids().collect();
        for (index, id) in ids.into_iter().enumerate() {
            let len = known_elements(self.graph.shape(id));
            self.plan.output_lens.push(len);
            match self.flat_values.get(&id).copied() {
                Some(value) if self.plan.values[value].owner == Owner::Arena => {
                    self.plan.values[value].owner = Owner::Output(index);
                }
                Some(input) => {
                    let output = self.new_value(ValueLayout::Flat { len }, Owner::Output(index));
                    let draft =
                        StepDraft::whole(FlatCopy { input, output, len }, vec![input], output);
                    self.push_step("copy".to_owned(), draft);
                }
                None => {
                    let output = self.new_value(ValueLayout::Flat { len }, Owner::Output(index));
                    self.push_unpack(id, false, output);
                }
            }
        }
    }
}
