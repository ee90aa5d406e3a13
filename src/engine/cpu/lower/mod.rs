//! From a graph to a plan: each operation gets a kernel, its constants packed, and its inputs in
//! the form the kernel reads.

mod analysis;
mod bands;
mod convolutions;
mod epilogue;
mod images;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::Device;

use self::analysis::{GraphAnalysis, KernelKind, image_shape};
pub(super) use self::bands::{BandPolicy, bands};
use super::kernels::KernelSet;
use super::kernels::elementwise::ActivationKind;
use super::lanes::LANES;
use super::layout::ImageLayout;
use super::memory::Buffer;
use super::pack;
use super::plan::{Owner, Plan, Step, Value, ValueLayout};
use super::work::{
    Assemble, Copy, Fallback, FillBorder, FlatActivation, ImageRef, InPlaceActivation, Pack,
    PlacedImage, Unpack, Work,
};
use crate::constant::Constant;
use crate::error::EngineError;
use crate::graph::{Graph, Node, ValueId};
use crate::op::Op;
use crate::reference::Operation;
use crate::shape::known_elements;

/// Images from this size on share memory with values of other forms and write their borders each
/// time, which takes a hundredth of the time to write the image; smaller ones keep theirs.
const OWN_BORDER_BYTES: usize = 1 << 20;

/// Lowers an optimised graph to the kernels of a set.
///
/// # Errors
/// An operation without a kernel that the reference cannot load either.
pub(super) fn lower(graph: &Graph, kernels: &'static KernelSet) -> Result<Plan, EngineError> {
    let mut lowering = Lowering {
        graph,
        analysis: GraphAnalysis::new(graph, kernels),
        images: HashMap::new(),
        copies: HashMap::new(),
        flats: HashMap::new(),
        parts: HashMap::new(),
        plan: Plan {
            kernels,
            values: Vec::new(),
            steps: Vec::new(),
            input_len: known_elements(&graph.input().shape),
            output_lens: Vec::new(),
        },
    };
    lowering.input();
    for (node, kind) in graph.nodes().iter().zip(lowering.analysis.kinds.clone()) {
        lowering.node(node, kind)?;
    }
    lowering.outputs();
    Ok(lowering.plan)
}

struct Lowering<'g> {
    graph: &'g Graph,
    analysis: GraphAnalysis<'g>,
    /// The blocked form of each value that has one.
    images: HashMap<ValueId, ImageRef>,
    /// Further blocked forms, whose borders hold something else.
    copies: HashMap<ValueId, Vec<(Option<&'g Constant>, ImageRef)>>,
    /// The flat form of each value that has one.
    flats: HashMap<ValueId, usize>,
    /// Each value that is some channels of an image.
    parts: HashMap<ValueId, (ImageRef, Range<usize>)>,
    plan: Plan,
}

/// A step before its place in the plan is known.
struct Draft {
    work: Box<dyn Work>,
    reads: Vec<usize>,
    writes: usize,
    row_unit: usize,
    groups: usize,
    macs: u64,
    /// Whether rows cannot be computed apart.
    is_whole: bool,
}

impl Draft {
    /// A step whose groups are blocks of sixteen channels of an image.
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

    /// A step that cannot be cut.
    fn whole(work: impl Work + 'static, reads: Vec<usize>, writes: usize) -> Self {
        let (row_unit, groups) = (1, 1);
        let (work, macs, is_whole) = (Box::new(work), 0, true);
        Self { work, reads, writes, row_unit, groups, macs, is_whole }
    }
}

impl<'g> Lowering<'g> {
    fn input(&mut self) {
        let len = self.plan.input_len;
        let value = self.value(ValueLayout::Flat { len }, Owner::Input);
        self.flats.insert(self.graph.input_id(), value);
    }

    fn value(&mut self, layout: ValueLayout, owner: Owner) -> usize {
        self.plan.values.push(Value { layout, owner });
        self.plan.values.len() - 1
    }

    fn flat(&mut self, id: ValueId) -> usize {
        let len = known_elements(self.graph.shape(id));
        let value = self.value(ValueLayout::Flat { len }, Owner::Arena);
        self.flats.insert(id, value);
        value
    }

    fn push(&mut self, label: String, draft: Draft) {
        let rows = match self.plan.values[draft.writes].layout {
            _ if draft.is_whole => 1,
            ValueLayout::Image { layout, .. } => layout.height,
            // A flat value is written in the rows of the image it comes from.
            ValueLayout::Flat { .. } => self.plan.height(draft.reads[0]),
        };
        let Draft { work, reads, writes, row_unit, groups, macs, .. } = draft;
        let step = Step { label, work, reads, writes, rows, row_unit, groups, macs };
        self.plan.steps.push(step);
    }

    /// A new blocked image for a value of the graph.
    fn new_image(&mut self, id: ValueId, fill: Option<&'g Constant>) -> ImageRef {
        let shape = image_shape(self.graph.shape(id)).expect("its kernel kind is for images only");
        let border = self.analysis.border(id);
        let layout = ImageLayout::whole(shape, border);
        let is_wide = self.analysis.is_stored_as_f32(id);
        let element_bytes =
            if is_wide { size_of::<f32>() } else { self.plan.kernels.element_bytes };
        let is_large = layout.elements() * element_bytes >= OWN_BORDER_BYTES;
        let has_own_border = fill.is_some() || (is_large && border != [0; 4]);
        let value_layout = ValueLayout::Image { layout, element_bytes, has_own_border };
        let value = self.value(value_layout, Owner::Arena);
        ImageRef { value, layout, element_bytes }
    }

    /// The image a node writes.
    fn output_image(&mut self, id: ValueId) -> ImageRef {
        let image = self.new_image(id, self.analysis.border_fill(id));
        self.images.insert(id, image);
        image
    }

    /// After the step that writes an image: its border, unless it stays zero.
    fn border(&mut self, image: ImageRef, fill: Option<&Constant>) {
        let ValueLayout::Image { has_own_border: true, .. } = self.plan.values[image.value].layout
        else {
            return;
        };
        let values = self.lanes(fill.map_or(&[], Constant::data), &image);
        let mut draft =
            Draft::by_block(FillBorder { image, values: Arc::new(values) }, Vec::new(), &image);
        (draft.is_whole, draft.groups) = (true, 1);
        self.push("border".to_owned(), draft);
    }

    /// A number of the network for each lane of an image: zeros behind the numbers given.
    fn lanes(&self, numbers: &[f32], image: &ImageRef) -> Buffer {
        let mut lanes = numbers.to_vec();
        lanes.resize(image.layout.blocks() * LANES, 0.0);
        pack::in_format(self.plan.kernels, &lanes)
    }

    /// The block with lanes beyond the last channel, which a step that copies channels has to
    /// write itself. Nobody computes with images that are wider than the network's format.
    fn beyond(&self, image: &ImageRef) -> Range<usize> {
        let blocks = image.layout.blocks();
        let is_full = image.layout.channels.is_multiple_of(LANES);
        let is_wide = image.element_bytes != self.plan.kernels.element_bytes;
        if is_full || is_wide { blocks..blocks } else { blocks - 1..blocks }
    }

    /// The value as an image, packed if it is flat so far.
    fn image(&mut self, id: ValueId) -> ImageRef {
        if let Some(&image) = self.images.get(&id) {
            return image;
        }
        let input = self.flats[&id];
        let image = self.output_image(id);
        self.pack(id, input, false, image);
        image
    }

    fn pack(&mut self, id: ValueId, input: usize, channels_last: bool, output: ImageRef) {
        let work = Pack { input, channels_last, output };
        let mut draft = Draft::whole(work, vec![input], output.value);
        draft.is_whole = false;
        self.push("pack".to_owned(), draft);
        self.border(output, self.analysis.border_fill(id));
    }

    /// The value as an image whose border holds `fill`.
    fn bordered(&mut self, id: ValueId, fill: Option<&'g Constant>) -> ImageRef {
        let image = self.image(id);
        if self.analysis.border_fill(id) == fill {
            return image;
        }
        let copies = self.copies.get(&id).into_iter().flatten();
        if let Some((_, copy)) = copies.clone().find(|(of, _)| *of == fill) {
            return *copy;
        }
        let copy = self.new_image(id, fill);
        let part = PlacedImage { image, channel: 0, top: 0, left: 0 };
        let (zeros, filled) = (self.lanes(&[], &copy), self.beyond(&copy));
        let work = Assemble { fill: zeros, filled, parts: vec![part], output: copy };
        let mut draft = Draft::by_block(work, vec![image.value], &copy);
        draft.groups = 1;
        self.push("copy for another border".to_owned(), draft);
        self.border(copy, fill);
        self.copies.entry(id).or_default().push((fill, copy));
        copy
    }

    /// The value as its shape says, unpacked if it is an image so far.
    fn unpacked(&mut self, id: ValueId) -> usize {
        if let Some(&value) = self.flats.get(&id) {
            return value;
        }
        let output = self.flat(id);
        self.unpack(id, false, output);
        output
    }

    /// Writes an image, or a part of one, as its shape says or with channels last.
    fn unpack(&mut self, id: ValueId, channels_last: bool, output: usize) {
        let (input, channels) = match self.parts.get(&id) {
            Some(part) => part.clone(),
            None => {
                let image = self.image(id);
                (image, 0..image.layout.channels)
            }
        };
        let work = Unpack { input, channels, channels_last, output };
        let mut draft = Draft::whole(work, vec![input.value], output);
        draft.is_whole = false;
        self.push("unpack".to_owned(), draft);
    }

    fn node(&mut self, node: &'g Node, kind: KernelKind) -> Result<(), EngineError> {
        match kind {
            KernelKind::Fused => {}
            KernelKind::Planar { channels_last } => self.planar(node, channels_last),
            KernelKind::Dense | KernelKind::Winograd => self.dense(node, kind),
            KernelKind::Depthwise => self.depthwise(node),
            KernelKind::FullyConnected => self.vector(node),
            KernelKind::Affine => self.affine(node),
            KernelKind::Activation => self.activation(node),
            KernelKind::Binary | KernelKind::ChannelScale => self.binary(node, kind),
            KernelKind::Pool => self.pool(node),
            KernelKind::GlobalMean => self.global_mean(node),
            KernelKind::Upsample => self.enlarge(node),
            KernelKind::Pad | KernelKind::Concat => self.assemble(node),
            KernelKind::ToChannelsLast => {
                let output = self.flat(node.output);
                self.unpack(node.inputs[0], true, output);
            }
            KernelKind::FromChannelsLast => {
                let input = self.unpacked(node.inputs[0]);
                let output = self.output_image(node.output);
                self.pack(node.output, input, true, output);
            }
            KernelKind::Reshape => self.alias(node),
            KernelKind::ChannelSlice => self.part(node),
            KernelKind::FlatActivation => self.flat_activation(node),
            KernelKind::Fallback => self.fallback(node)?,
        }
        Ok(())
    }

    /// The part of an activation that no register computes.
    fn push_activation(&mut self, image: ImageRef, activation_step: Option<ActivationKind>) {
        let Some(kind) = activation_step else { return };
        let draft = Draft::by_block(InPlaceActivation { kind, image }, vec![image.value], &image);
        self.push("activation".to_owned(), draft);
    }

    fn alias(&mut self, node: &'g Node) {
        let (from, to) = (node.inputs[0], node.output);
        let is_vector = |id| matches!(image_shape(self.graph.shape(id)), Some([_, 1, 1]));
        // The image was made for those who read it under its first name.
        let has_border = self.analysis.border(to) != [0; 4];
        if let Some(&image) = self.images.get(&from)
            && is_vector(from)
            && is_vector(to)
            && !has_border
        {
            self.images.insert(to, image);
            return;
        }
        let value = self.unpacked(from);
        self.flats.insert(to, value);
    }

    fn part(&mut self, node: &'g Node) {
        let Op::Slice { start, .. } = node.op else {
            unreachable!("its kernel kind is for slices only")
        };
        let channels = self.graph.shape(node.output)[0];
        let image = self.images[&node.inputs[0]];
        self.parts.insert(node.output, (image, start..start + channels));
    }

    fn flat_activation(&mut self, node: &'g Node) {
        let Op::Activation(activation) = &node.op else {
            unreachable!("its kernel kind is for activations only")
        };
        let input = self.unpacked(node.inputs[0]);
        let output = self.flat(node.output);
        let len = known_elements(self.graph.shape(node.output));
        let work =
            FlatActivation { input, output, len, kind: epilogue::activation_kind(activation) };
        self.push(node.op.name().to_owned(), Draft::whole(work, vec![input], output));
    }

    fn fallback(&mut self, node: &'g Node) -> Result<(), EngineError> {
        let kernel = Operation::load(self.graph, node, &Device::Cpu)
            .map_err(|source| EngineError::Tensor { op: node.op.name(), source })?;
        let shape = |id: ValueId| self.graph.shape(id).to_vec();
        let shapes: Vec<Vec<usize>> = node.inputs.iter().map(|&id| shape(id)).collect();
        let reads: Vec<usize> = node.inputs.iter().map(|&id| self.unpacked(id)).collect();
        let output = self.flat(node.output);
        let len = known_elements(self.graph.shape(node.output));
        let inputs = reads.iter().copied().zip(shapes).collect();
        let work = Fallback { op: node.op.name(), kernel, inputs, output, len };
        self.push(node.op.name().to_owned(), Draft::whole(work, reads, output));
        Ok(())
    }

    /// Sees to it that each output is written where the caller wants it.
    fn outputs(&mut self) {
        let ids: Vec<ValueId> = self.graph.output_ids().collect();
        for (index, id) in ids.into_iter().enumerate() {
            let len = known_elements(self.graph.shape(id));
            self.plan.output_lens.push(len);
            match self.flats.get(&id).copied() {
                Some(value) if self.plan.values[value].owner == Owner::Arena => {
                    self.plan.values[value].owner = Owner::Output(index);
                }
                Some(input) => {
                    let output = self.value(ValueLayout::Flat { len }, Owner::Output(index));
                    let draft = Draft::whole(Copy { input, output, len }, vec![input], output);
                    self.push("copy".to_owned(), draft);
                }
                None => {
                    let output = self.value(ValueLayout::Flat { len }, Owner::Output(index));
                    self.unpack(id, false, output);
                }
            }
        }
    }
}
