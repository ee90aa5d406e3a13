//! Lowers a graph to a plan: each operation gets a kernel, packed constants, and inputs in the
//! layout that its kernel reads.

mod analysis;
mod band_fusion;
mod convolutions;
mod epilogue;
mod flat;
mod images;
mod kernel_kind;
mod merge_heads;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use self::analysis::GraphAnalysis;
pub(super) use self::band_fusion::{BandPolicy, fuse_bands};
use self::flat::ImageChannels;
use self::kernel_kind::{ImageValue, KernelKind};
use self::merge_heads::merge_heads;
use super::kernels::KernelSet;
use super::kernels::elementwise::ActivationKind;
use super::lanes::LANES;
use super::layout::ImageLayout;
use super::memory::MappedMemory;
use super::pack;
use super::plan::{Owner, Plan, Step, ValueBuffer, ValueLayout};
use super::work::{Assemble, FillBorder, ImageRef, InPlaceActivation, Pack, PlacedImage, Work};
use crate::constant::Constant;
use crate::error::EngineError;
use crate::graph::{Graph, ValueId};
use crate::shape::element_count;

/// Images of at least this size share memory with buffers of other layouts, and every run writes
/// their borders. That takes a hundredth of the time to write the image. Smaller images keep their
/// borders of zeros.
const REWRITTEN_BORDER_BYTES_MIN: usize = 1 << 20;

/// Lowers an optimised graph to the kernels of a set.
///
/// # Errors
/// If an operation has no kernel and the reference cannot load it either.
pub(super) fn lower(graph: &Graph, kernels: &'static KernelSet) -> Result<Plan, EngineError> {
    // The clone shares the constants of the graph.
    let graph = &merge_heads(graph.clone());
    let analysis = &GraphAnalysis::new(graph, kernels);
    let mut lowering = Lowering {
        graph,
        analysis,
        images: HashMap::new(),
        bordered_copies: HashMap::new(),
        flat_buffers: HashMap::new(),
        channel_slices: HashMap::new(),
        plan: Plan {
            kernels,
            buffers: Vec::new(),
            steps: Vec::new(),
            input_len: element_count(&graph.input().shape),
            output_lens: Vec::new(),
        },
    };
    lowering.lower_input();
    for (node, kind) in graph.nodes().iter().zip(&analysis.kinds) {
        lowering.lower_node(node.op.name(), kind)?;
    }
    lowering.lower_outputs();
    Ok(lowering.plan)
}

struct Lowering<'g> {
    graph: &'g Graph,
    analysis: &'g GraphAnalysis<'g>,
    /// The blocked image of each value that has one.
    images: HashMap<ValueId, ImageRef>,
    /// Copies of images with other border values, and those values.
    bordered_copies: HashMap<ValueId, Vec<(Option<&'g Constant>, ImageRef)>>,
    /// The flat buffer of each value that has one.
    flat_buffers: HashMap<ValueId, usize>,
    /// The channels of each value that is a slice of an image.
    channel_slices: HashMap<ValueId, ImageChannels>,
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
            writes: output.buffer,
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
        let buffer = self.add_buffer(ValueLayout::Flat { len }, Owner::Input);
        self.flat_buffers.insert(self.graph.input_id(), buffer);
    }

    fn add_buffer(&mut self, layout: ValueLayout, owner: Owner) -> usize {
        self.plan.buffers.push(ValueBuffer { layout, owner });
        self.plan.buffers.len() - 1
    }

    fn push_step(&mut self, label: String, draft: StepDraft) {
        let rows = match self.plan.buffers[draft.writes].layout {
            _ if draft.is_whole => 1,
            ValueLayout::Image { layout, .. } => layout.height,
            // A flat buffer made from an image is written in the rows of that image.
            ValueLayout::Flat { .. } => self.plan.height(draft.reads[0]),
        };
        let StepDraft { work, reads, writes, row_unit, groups, macs, .. } = draft;
        let step = Step { label, work, reads, writes, rows, row_unit, groups, macs };
        self.plan.steps.push(step);
    }

    /// Adds a blocked image for a value of the graph.
    fn add_image(&mut self, image: ImageValue, border_values: Option<&'g Constant>) -> ImageRef {
        let border = self.analysis.border(image.id);
        let layout = ImageLayout::whole(image.shape, border);
        let is_f32 = self.analysis.is_stored_as_f32(image.id);
        let element_bytes = if is_f32 { size_of::<f32>() } else { self.plan.kernels.element_bytes };
        let is_large = layout.elements() * element_bytes >= REWRITTEN_BORDER_BYTES_MIN;
        let rewrites_border = border_values.is_some() || (is_large && border != [0; 4]);
        let value_layout = ValueLayout::Image { layout, element_bytes, rewrites_border };
        let buffer = self.add_buffer(value_layout, Owner::Arena);
        ImageRef { buffer, layout, element_bytes }
    }

    /// Adds the image that a node writes.
    fn add_output_image(&mut self, output: ImageValue) -> ImageRef {
        let image = self.add_image(output, self.analysis.border_values(output.id));
        self.images.insert(output.id, image);
        image
    }

    /// Pushes the step that fills an image's border, unless the border stays zero. It follows the
    /// step that writes the image.
    fn push_border(&mut self, image: ImageRef, border_values: Option<&Constant>) {
        let ValueLayout::Image { rewrites_border: true, .. } =
            self.plan.buffers[image.buffer].layout
        else {
            return;
        };
        let values = self.pack_lanes(border_values.map_or(&[], Constant::data), &image);
        let mut draft =
            StepDraft::by_block(FillBorder { image, values: Arc::new(values) }, Vec::new(), &image);
        (draft.is_whole, draft.groups) = (true, 1);
        self.push_step("border".to_owned(), draft);
    }

    /// Converts one number for each lane of an image to the network's format. Missing numbers are
    /// zeros.
    fn pack_lanes(&self, numbers: &[f32], image: &ImageRef) -> MappedMemory {
        let mut lanes = numbers.to_vec();
        lanes.resize(image.layout.blocks() * LANES, 0.0);
        pack::in_format(self.plan.kernels, &lanes)
    }

    /// Returns the block with lanes beyond the last channel as a range of blocks, empty if there is
    /// none. A step that copies channels must fill these lanes itself. Images stored as `f32` in a
    /// network of another format need no fill, because no kernel computes with them.
    fn partial_block(&self, image: &ImageRef) -> Range<usize> {
        let blocks = image.layout.blocks();
        let is_full = image.layout.channels.is_multiple_of(LANES);
        let is_widened = image.element_bytes != self.plan.kernels.element_bytes;
        if is_full || is_widened { blocks..blocks } else { blocks - 1..blocks }
    }

    /// Returns the value as a blocked image, and packs it first if it is flat.
    fn blocked_image(&mut self, image: ImageValue) -> ImageRef {
        if let Some(&packed) = self.images.get(&image.id) {
            return packed;
        }
        let input = self.flat_buffers[&image.id];
        self.lower_pack(input, false, image)
    }

    /// Packs a flat buffer into the image of `output`.
    fn lower_pack(&mut self, input: usize, channels_last: bool, output: ImageValue) -> ImageRef {
        let packed = self.add_output_image(output);
        let work = Pack { input, channels_last, output: packed };
        let mut draft = StepDraft::whole(work, vec![input], packed.buffer);
        draft.is_whole = false;
        self.push_step("pack".to_owned(), draft);
        self.push_border(packed, self.analysis.border_values(output.id));
        packed
    }

    /// Returns the value as an image whose border holds `border_values`.
    fn image_with_border(
        &mut self,
        value: ImageValue,
        border_values: Option<&'g Constant>,
    ) -> ImageRef {
        let image = self.blocked_image(value);
        if self.analysis.border_values(value.id) == border_values {
            return image;
        }
        let copies = self.bordered_copies.get(&value.id).into_iter().flatten();
        if let Some((_, copy)) =
            copies.clone().find(|(copied_with, _)| *copied_with == border_values)
        {
            return *copy;
        }
        let copy = self.add_image(value, border_values);
        let source = PlacedImage { image, channel: 0, top: 0, left: 0 };
        let work = Assemble {
            fill: self.pack_lanes(&[], &copy),
            filled_blocks: self.partial_block(&copy),
            sources: vec![source],
            output: copy,
        };
        let mut draft = StepDraft::by_block(work, vec![image.buffer], &copy);
        draft.groups = 1;
        self.push_step("copy for another border".to_owned(), draft);
        self.push_border(copy, border_values);
        self.bordered_copies.entry(value.id).or_default().push((border_values, copy));
        copy
    }

    fn lower_node(
        &mut self,
        name: &'static str,
        kind: &'g KernelKind<'g>,
    ) -> Result<(), EngineError> {
        match kind {
            KernelKind::Fused => {}
            KernelKind::Planar { convolution, channels_last } => {
                self.lower_planar(convolution, *channels_last);
            }
            KernelKind::Direct(convolution) => self.lower_direct(convolution),
            KernelKind::Winograd(convolution) => self.lower_winograd(convolution),
            KernelKind::Depthwise(convolution) => self.lower_depthwise(convolution),
            KernelKind::FullyConnected(product) => self.lower_fully_connected(name, product),
            KernelKind::Affine { input, scale, shift, output } => {
                self.lower_affine(name, *input, [scale, shift], *output);
            }
            KernelKind::Activation { activation, input, output } => {
                self.lower_activation(name, activation, *input, *output);
            }
            KernelKind::Binary { op, operands, output } => {
                self.lower_binary(name, *op, *operands, *output);
            }
            KernelKind::ChannelScale { image, scale, output } => {
                self.lower_channel_scale(name, *image, *scale, *output);
            }
            KernelKind::Sum { addend, fused, output } => {
                self.lower_sum(name, *addend, *fused, *output);
            }
            KernelKind::Pool { kind, window, input, output } => {
                self.lower_pool(name, *kind, *window, *input, *output);
            }
            KernelKind::GlobalMean { input, output } => {
                self.lower_global_mean(name, *input, *output);
            }
            KernelKind::Upsample { input, output } => self.lower_upsample(name, *input, *output),
            KernelKind::Pad { before, value, input, output } => {
                self.lower_pad(name, *before, *value, *input, *output);
            }
            KernelKind::Concat { inputs, output } => self.lower_concat(name, inputs, *output),
            KernelKind::ToChannelsLast { input, output } => {
                self.lower_to_channels_last(*input, *output);
            }
            KernelKind::FromChannelsLast { input, output } => {
                let flat = self.flat_buffer(*input);
                self.lower_pack(flat, true, *output);
            }
            KernelKind::Reshape { input, output } => self.lower_reshape(*input, *output),
            KernelKind::ChannelSlice { image, channels, output } => {
                self.lower_channel_slice(*image, channels.clone(), *output);
            }
            KernelKind::FlatActivation { kind, input, output } => {
                self.lower_flat_activation(name, *kind, *input, *output);
            }
            KernelKind::Fallback(node) => self.lower_fallback(node)?,
        }
        Ok(())
    }

    /// Pushes the step for an activation that an epilogue cannot compute.
    fn push_activation(&mut self, image: ImageRef, activation_step: Option<ActivationKind>) {
        let Some(kind) = activation_step else { return };
        let draft =
            StepDraft::by_block(InPlaceActivation { kind, image }, vec![image.buffer], &image);
        self.push_step("activation".to_owned(), draft);
    }
}
