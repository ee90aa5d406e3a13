//! Lowers a graph to a plan: chooses the work of each operation, lays out its constants, and puts
//! its inputs into the layout that the work reads.

mod moves;

use std::collections::HashMap;

use super::cudnn::FusedEpilogue;
use super::element_type::ElementType;
use super::layout::{StridedPair, ValueLayout};
use super::plan::{ConstantOffset, Constants, ExternalValue, Plan, Step, ValueBuffer, Work};
use super::work::{
    ActivationPlan, Binary, Copy, CudnnConvolution, Depthwise, Elementwise, EpiloguePlan,
    MatrixProduct, PeriodicConstant, Reduce, Resample, ResampleKind, Softmax, WindowPlan,
};
use crate::Precision;
use crate::constant::Constant;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{self, Activation, AveragePool, Conv, Op, Window};
use crate::shape::{element_count, strides};

/// Lowers an optimised graph. Kernels store values in the type of `precision`, and products round
/// as `precision` says.
pub(super) fn lower(graph: &Graph, precision: Precision) -> Plan {
    let element_type = ElementType::of(precision);
    let mut lowering = Lowering {
        graph,
        precision,
        element_type,
        constants: Constants::default(),
        buffers: Vec::new(),
        buffer_of: HashMap::new(),
        steps: Vec::new(),
    };
    let input = lowering.lower_input();
    for node in graph.nodes() {
        lowering.lower_node(node);
    }
    let outputs = graph.output_ids().map(|id| lowering.lower_output(id)).collect();
    let Lowering { constants, buffers, steps, .. } = lowering;
    let mut plan = Plan { element_type, constants, buffers, steps, input, outputs };
    set_live_ranges(&mut plan);
    plan
}

struct Lowering<'g> {
    graph: &'g Graph,
    precision: Precision,
    element_type: ElementType,
    constants: Constants,
    buffers: Vec<ValueBuffer>,
    /// Buffer of each value, per layout.
    buffer_of: HashMap<(ValueId, ValueLayout), usize>,
    steps: Vec<Step>,
}

impl<'g> Lowering<'g> {
    fn shape(&self, id: ValueId) -> &'g [usize] {
        self.graph.shape(id)
    }

    /// Adds a buffer for the value in `layout` and returns its index.
    fn add_buffer(&mut self, id: ValueId, layout: ValueLayout) -> usize {
        let len = element_count(self.shape(id));
        let buffer = self.buffers.len();
        self.buffers.push(ValueBuffer { len, live_range: [usize::MAX, 0] });
        self.buffer_of.insert((id, layout), buffer);
        buffer
    }

    fn push_step(&mut self, work: impl Work + 'static, reads: Vec<usize>, writes: usize) {
        self.steps.push(Step { work: Box::new(work), reads, writes });
    }

    /// Returns the layout in which a value has a buffer: channels last if it has both.
    fn layout_of(&self, id: ValueId) -> ValueLayout {
        match self.buffer_of.contains_key(&(id, ValueLayout::ChannelsLast)) {
            true => ValueLayout::ChannelsLast,
            false => ValueLayout::Flat,
        }
    }

    /// Returns the buffer of a value in `layout`, converting from the other layout if needed.
    fn buffer_in(&mut self, id: ValueId, layout: ValueLayout) -> usize {
        if let Some(&buffer) = self.buffer_of.get(&(id, layout)) {
            return buffer;
        }
        let (other, shape) = (self.layout_of(id), self.shape(id));
        let from = self.buffer_of[&(id, other)];
        let pair = relayout(shape, &other.strides(shape), &layout.strides(shape));
        self.copy_or_reuse(pair, from, (id, layout))
    }

    /// Returns a buffer with the elements of `from`, copied along `pair`; `from` itself if the copy
    /// would change nothing.
    fn copy_or_reuse(
        &mut self,
        pair: StridedPair,
        from: usize,
        to: (ValueId, ValueLayout),
    ) -> usize {
        if pair.is_identity() {
            self.buffer_of.insert(to, from);
            return from;
        }
        let buffer = self.add_buffer(to.0, to.1);
        self.push_step(Copy::new(pair, [0, 0], self.element_type), vec![from], buffer);
        buffer
    }

    /// Lowers the input. An image is stored with its channels last, unless the network transposes
    /// it: then the graph's own input has its channels last already.
    fn lower_input(&mut self) -> ExternalValue {
        let id = self.graph.input_id();
        let shape = self.shape(id);
        let is_transpose = |&at: &usize| matches!(self.graph.nodes()[at].op, Op::Transpose { .. });
        let is_transposed = Uses::of(self.graph).readers(id).iter().any(is_transpose);
        let layout = match *shape {
            [0..=INPUT_CHANNELS_MAX, _, _] if !is_transposed => ValueLayout::ChannelsLast,
            _ => ValueLayout::Flat,
        };
        let buffer = self.add_buffer(id, layout);
        ExternalValue { buffer, pair: relayout(shape, &strides(shape), &layout.strides(shape)) }
    }

    fn lower_output(&mut self, id: ValueId) -> ExternalValue {
        let (shape, layout) = (self.shape(id), self.layout_of(id));
        let buffer = self.buffer_of[&(id, layout)];
        ExternalValue { buffer, pair: relayout(shape, &layout.strides(shape), &strides(shape)) }
    }

    fn lower_node(&mut self, node: &'g Node) {
        let (x, y) = (node.inputs[0], node.output);
        match &node.op {
            Op::Conv(conv) => self.lower_convolution(node, conv),
            Op::Linear(linear) => self.lower_linear(node, linear),
            Op::Affine(affine) => {
                let layout = self.layout_of(x);
                let scale = Some(self.periodic_constant(&affine.scale, y, layout));
                let shift = Some(self.periodic_constant(&affine.shift, y, layout));
                self.lower_elementwise(
                    node,
                    EpiloguePlan { scale, shift, activation: ActivationPlan::NONE },
                );
            }
            Op::Activation(activation) => {
                let layout = self.layout_of(x);
                let activation = self.activation_plan(activation, y, layout);
                self.lower_elementwise(node, EpiloguePlan { activation, ..EpiloguePlan::NONE });
            }
            Op::Binary(op) => self.lower_binary(node, *op),
            Op::MaxPool(window) => self.lower_resample(node, ResampleKind::MaxPool, *window),
            Op::AveragePool(AveragePool { window, count_include_pad }) => {
                let kind = match *count_include_pad {
                    true => ResampleKind::AveragePoolWithBorder,
                    false => ResampleKind::AveragePoolInside,
                };
                self.lower_resample(node, kind, *window);
            }
            Op::GlobalAveragePool => self.lower_reduce(node, op::Reduction::Mean, &[1, 2]),
            Op::Resize(mode) => self.lower_resample(node, ResampleKind::Resize(*mode), NO_WINDOW),
            Op::Pad { before, after, value } => self.lower_pad(node, before, after, *value),
            Op::Concat { axis } => self.lower_concat(node, *axis),
            Op::Slice { axis, start, step } => self.lower_slice(node, *axis, [*start, *step]),
            Op::Transpose { perm } => self.lower_transpose(node, perm),
            Op::Reshape => self.lower_reshape(node),
            Op::Expand => self.lower_expand(node),
            Op::Softmax { axis } => self.lower_softmax(node, *axis),
            Op::Reduce { reduction, axes } => self.lower_reduce(node, *reduction, axes),
        }
    }

    fn periodic_constant(
        &mut self,
        constant: &Constant,
        value: ValueId,
        layout: ValueLayout,
    ) -> PeriodicConstant {
        PeriodicConstant::broadcast(&mut self.constants, constant, self.graph.shape(value), layout)
    }

    fn activation_plan(
        &mut self,
        activation: &Activation,
        value: ValueId,
        layout: ValueLayout,
    ) -> ActivationPlan {
        let slopes = match activation {
            Activation::PRelu(slopes) => Some(self.periodic_constant(slopes, value, layout)),
            _ => None,
        };
        ActivationPlan::of(activation, slopes)
    }

    fn lower_elementwise(&mut self, node: &Node, epilogue: EpiloguePlan) {
        let layout = self.layout_of(node.inputs[0]);
        let from = self.buffer_in(node.inputs[0], layout);
        let work =
            Elementwise::new(epilogue, element_count(self.shape(node.output)), self.element_type);
        let to = self.add_buffer(node.output, layout);
        self.push_step(work, vec![from], to);
    }

    /// Returns the bias, residual and activation of a convolution, or `None` if it has none of
    /// them.
    fn epilogue_plan(&mut self, node: &Node, conv: &Conv) -> Option<EpiloguePlan> {
        let bias = conv.bias.as_ref();
        let shift = bias.map(|bias| PeriodicConstant::repeating(&mut self.constants, bias.data()));
        let layout = ValueLayout::ChannelsLast;
        let activation =
            conv.activation.as_ref().map(|f| self.activation_plan(f, node.output, layout));
        let is_empty = shift.is_none() && activation.is_none() && node.inputs.len() == 1;
        let activation = activation.unwrap_or(ActivationPlan::NONE);
        (!is_empty).then_some(EpiloguePlan { scale: None, shift, activation })
    }

    fn lower_convolution(&mut self, node: &'g Node, conv: &Conv) {
        let layout = ValueLayout::ChannelsLast;
        let reads: Vec<usize> = node.inputs.iter().map(|&id| self.buffer_in(id, layout)).collect();
        let (x_shape, y_shape) = (self.shape(node.inputs[0]), self.shape(node.output));
        let epilogue_plan = self.epilogue_plan(node, conv);
        let window_plan = WindowPlan::new(x_shape, y_shape, conv.window, conv.dilations);
        let weight = self.convolution_weight(conv);
        let border = conv.border_values.as_ref();
        let border_values = border.map(|values| self.constants.add_f32(values.data()));
        let writes = self.add_buffer(node.output, layout);
        let (out_channels, group_channels) = (conv.out_channels(), conv.group_channels());
        let work: Box<dyn Work> = if group_channels == 1 && conv.groups > 1 {
            let multiplier = out_channels / conv.groups;
            let window_plan = WindowPlan { channels: out_channels, ..window_plan };
            let epilogue = epilogue_plan.unwrap_or(EpiloguePlan::NONE);
            Box::new(Depthwise::new(
                window_plan,
                multiplier,
                weight,
                border_values,
                epilogue,
                self.element_type,
            ))
        } else {
            let len = element_count(y_shape);
            let epilogue = epilogue_plan.map(|plan| Elementwise::new(plan, len, self.element_type));
            if is_1x1(conv) {
                let (pixels, sizes) = (y_shape[1] * y_shape[2], [out_channels, group_channels]);
                Box::new(MatrixProduct::new(weight, epilogue, pixels, sizes, self.precision))
            } else {
                Box::new(self.dense_convolution(conv, window_plan, weight, border_values, epilogue))
            }
        };
        self.steps.push(Step { work, reads, writes });
    }

    fn dense_convolution(
        &mut self,
        conv: &Conv,
        window_plan: WindowPlan,
        weight: ConstantOffset,
        border_values: Option<ConstantOffset>,
        epilogue: Option<Elementwise>,
    ) -> CudnnConvolution {
        let is_fused = matches!(conv.activation, Some(Activation::Relu));
        let zeros = vec![0.0; conv.out_channels()];
        let bias = conv.bias.as_ref().map_or(zeros.as_slice(), Constant::data);
        CudnnConvolution {
            weight,
            bias: is_fused.then(|| self.constants.add(bias, self.element_type)),
            border_values,
            fused: if is_fused { FusedEpilogue::Relu } else { FusedEpilogue::None },
            epilogue,
            window_plan,
            out_channels: conv.out_channels(),
            groups: conv.groups,
            precision: self.precision,
            prepared: Default::default(),
        }
    }

    /// Adds the weights of a convolution, for depthwise convolutions as `[taps, out channels]`,
    /// else as `[out channels, taps, channels of a group]`.
    fn convolution_weight(&mut self, conv: &Conv) -> ConstantOffset {
        let (out_channels, group_channels) = (conv.out_channels(), conv.group_channels());
        let (taps, data) = (conv.taps(), conv.weight.data());
        let mut numbers = vec![0.0; data.len()];
        for (index, &weight) in data.iter().enumerate() {
            let out_channel = index / (group_channels * taps);
            let in_channel = index / taps % group_channels;
            let tap = index % taps;
            let to = match group_channels == 1 && conv.groups > 1 {
                true => tap * out_channels + out_channel,
                false => (out_channel * taps + tap) * group_channels + in_channel,
            };
            numbers[to] = weight;
        }
        self.constants.add(&numbers, self.element_type)
    }

    fn lower_linear(&mut self, node: &Node, linear: &op::Linear) {
        let from = self.buffer_in(node.inputs[0], ValueLayout::Flat);
        let len = element_count(self.shape(node.output));
        let (out_len, in_len) = (linear.out_len(), linear.in_len());
        let weight = self.constants.add(linear.weight.data(), self.element_type);
        let epilogue = linear.bias.as_ref().map(|bias| {
            let shift = Some(PeriodicConstant::repeating(&mut self.constants, bias.data()));
            let plan = EpiloguePlan { shift, ..EpiloguePlan::NONE };
            Elementwise::new(plan, len, self.element_type)
        });
        let vectors = len / out_len;
        let work = MatrixProduct::new(weight, epilogue, vectors, [out_len, in_len], self.precision);
        let to = self.add_buffer(node.output, ValueLayout::Flat);
        self.push_step(work, vec![from], to);
    }

    fn lower_binary(&mut self, node: &Node, op: op::BinaryOp) {
        let [a, b] = [node.inputs[0], node.inputs[1]];
        let layout = match [a, b].map(|id| self.layout_of(id)) {
            [ValueLayout::Flat, ValueLayout::Flat] => ValueLayout::Flat,
            _ => ValueLayout::ChannelsLast,
        };
        let reads = vec![self.buffer_in(a, layout), self.buffer_in(b, layout)];
        let shape = self.shape(node.output);
        let broadcast = |id: ValueId| {
            let from = self.shape(id);
            let dense = layout.strides(from);
            let axes = from.iter().zip(shape).zip(dense);
            axes.map(|((f, t), stride)| if f == t { stride } else { 0 }).collect::<Vec<usize>>()
        };
        let [a_strides, b_strides] = [a, b].map(broadcast);
        let item_strides = [a, b].map(|id| element_count(self.shape(id)));
        let written = layout.strides(shape);
        let pair = StridedPair::new(shape, [&a_strides, &b_strides], item_strides, &written);
        let writes = self.add_buffer(node.output, layout);
        self.push_step(Binary::new(op, pair, self.element_type), reads, writes);
    }

    fn lower_resample(&mut self, node: &Node, kind: ResampleKind, window: Window) {
        let (x, y) = (node.inputs[0], node.output);
        let from = self.buffer_in(x, ValueLayout::ChannelsLast);
        let window_plan = WindowPlan::new(self.shape(x), self.shape(y), window, [1, 1]);
        let to = self.add_buffer(y, ValueLayout::ChannelsLast);
        self.push_step(Resample::new(kind, window_plan, self.element_type), vec![from], to);
    }

    fn lower_reduce(&mut self, node: &Node, reduction: op::Reduction, axes: &[usize]) {
        let layout = self.layout_of(node.inputs[0]);
        let from = self.buffer_in(node.inputs[0], layout);
        let shape = self.shape(node.inputs[0]);
        let x_strides = layout.strides(shape);
        let work = Reduce::new(reduction, shape, &x_strides, axes, self.element_type);
        let to = self.add_buffer(node.output, layout);
        self.push_step(work, vec![from], to);
    }

    fn lower_softmax(&mut self, node: &Node, axis: usize) {
        let from = self.buffer_in(node.inputs[0], ValueLayout::Flat);
        let shape = self.shape(node.output);
        let sizes = [&shape[..axis], &shape[axis..=axis], &shape[axis + 1..]].map(element_count);
        let to = self.add_buffer(node.output, ValueLayout::Flat);
        self.push_step(Softmax::new(sizes, self.element_type), vec![from], to);
    }
}

/// An input whose first axis is larger is not `[channels, height, width]` but
/// `[height, width, channels]`.
const INPUT_CHANNELS_MAX: usize = 4;

/// The window of an operation that has none.
const NO_WINDOW: Window = Window { kernel: [1, 1], strides: [1, 1], pads: [0; 4] };

/// Returns the pair that copies a whole item from one layout to another, given their strides.
fn relayout(shape: &[usize], from: &[usize], to: &[usize]) -> StridedPair {
    let len = element_count(shape);
    StridedPair::new(shape, [from, to], [len, len], to)
}

fn is_1x1(conv: &Conv) -> bool {
    conv.window == NO_WINDOW && conv.groups == 1
}

/// Sets the live range of each buffer, from the step that first writes it to the step that last
/// reads it. The input is live from the start, outputs are live to the end.
fn set_live_ranges(plan: &mut Plan) {
    let (first, last) = (0, plan.steps.len() + 1);
    let mut extend = |buffer: usize, step: usize| {
        let [from, to] = &mut plan.buffers[buffer].live_range;
        (*from, *to) = ((*from).min(step), (*to).max(step));
    };
    extend(plan.input.buffer, first);
    for (index, step) in plan.steps.iter().enumerate() {
        step.reads.iter().chain([&step.writes]).for_each(|&buffer| extend(buffer, index + 1));
    }
    plan.outputs.iter().for_each(|output| extend(output.buffer, last));
}
