//! Which kernel each operation of a graph gets, and how its values have to lie for that.

use crate::constant::Constant;
use crate::cpu::kernels::KernelSet;
use crate::cpu::lanes::LANES;
use crate::graph::{Graph, Node, ValueId};
use crate::op::{Activation, BinaryOp, Conv, Op, ResizeMode};

/// The kernel of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A convolution of the network's input as it lies; true with its channels last.
    Planar {
        channels_last: bool,
    },
    Dense,
    Winograd,
    Depthwise,
    /// A convolution or matrix product with one pixel.
    Vector,
    Affine,
    Activation,
    /// A function of two images of one shape.
    Binary,
    /// An image times one number per channel.
    Gate,
    Pool,
    GlobalMean,
    Enlarge,
    Pad,
    Concat,
    /// To `[height, width, channels]`.
    ChannelsLast,
    /// From `[height, width, channels]`.
    ChannelsFirst,
    /// The same numbers under another shape.
    Alias,
    /// Some channels of an image, which nobody reads as an image.
    Part,
    FlatCurve,
    /// Part of the operation that reads it.
    Absorbed,
    Fallback,
}

impl Class {
    /// Whether the operation reads its inputs as blocked images.
    fn reads_images(self) -> bool {
        match self {
            Self::Dense
            | Self::Winograd
            | Self::Depthwise
            | Self::Vector
            | Self::Affine
            | Self::Activation
            | Self::Binary
            | Self::Gate
            | Self::Pool
            | Self::GlobalMean
            | Self::Enlarge
            | Self::Pad
            | Self::Concat => true,
            Self::Planar { .. }
            | Self::ChannelsLast
            | Self::ChannelsFirst
            | Self::Alias
            | Self::Part
            | Self::Absorbed
            | Self::FlatCurve
            | Self::Fallback => false,
        }
    }
}

impl Class {
    /// Whether the operation writes a blocked image whoever reads it.
    fn writes_image(self) -> bool {
        self.reads_images() || matches!(self, Self::Planar { .. } | Self::ChannelsFirst)
    }
}

/// What is known of a graph before it is lowered.
pub(super) struct Classes<'g> {
    graph: &'g Graph,
    /// Per node.
    pub(super) of_node: Vec<Class>,
    /// Per value: the nodes that read it.
    readers: Vec<Vec<usize>>,
    producers: Vec<Option<usize>>,
    is_output: Vec<bool>,
    /// See [`KernelSet::winograd_pixels_min`].
    winograd_pixels_min: usize,
}

/// Most channels of an input that is read as it lies.
const PLANAR_CHANNELS_MAX: usize = 4;

/// Winograd saves multiplications by a factor of four and costs transforms, which grow with the
/// channels and not with their product: below this many channels on either side the direct
/// kernel is faster.
const WINOGRAD_CHANNELS_MIN: usize = 32;

/// An image as `[channels, height, width]`; a vector is an image of one pixel.
pub(super) fn image_shape(shape: &[usize]) -> Option<[usize; 3]> {
    match *shape {
        [channels] => Some([channels, 1, 1]),
        [channels, height, width] => Some([channels, height, width]),
        _ => None,
    }
}

impl<'g> Classes<'g> {
    pub(super) fn of(graph: &'g Graph, kernels: &KernelSet) -> Self {
        let mut readers = vec![Vec::new(); graph.value_count()];
        let mut producers = vec![None; graph.value_count()];
        let mut is_output = vec![false; graph.value_count()];
        for (at, node) in graph.nodes().iter().enumerate() {
            producers[node.output.index()] = Some(at);
            for input in &node.inputs {
                readers[input.index()].push(at);
            }
        }
        graph.output_ids().for_each(|id| is_output[id.index()] = true);
        let mut classes = Self {
            graph,
            of_node: Vec::new(),
            readers,
            producers,
            is_output,
            winograd_pixels_min: kernels.winograd_pixels_min,
        };
        classes.of_node = graph.nodes().iter().map(|node| classes.class(node)).collect();
        for at in 0..graph.nodes().len() {
            if classes.is_absorbed(at) {
                classes.of_node[at] = Class::Absorbed;
            }
        }
        for at in 0..graph.nodes().len() {
            if classes.is_part(at) {
                classes.of_node[at] = Class::Part;
            }
        }
        classes
    }

    fn class(&self, node: &Node) -> Class {
        let shape = |id: ValueId| image_shape(self.graph.shape(id));
        let (Some(input), output) = (shape(node.inputs[0]), shape(node.output)) else {
            return self.flat_class(node);
        };
        let Some(output) = output else { return self.flat_class(node) };
        match &node.op {
            Op::Conv(conv) => self.convolution(node, conv, input, output),
            Op::Linear(_) if self.graph.shape(node.inputs[0]).len() == 1 => Class::Vector,
            Op::Affine(affine)
                if along_channels(&affine.scale, input).is_some()
                    && along_channels(&affine.shift, input).is_some() =>
            {
                Class::Affine
            }
            Op::Activation(Activation::PRelu(slopes))
                if along_channels(slopes, input).is_none() =>
            {
                Class::Fallback
            }
            Op::Activation(_) => Class::Activation,
            Op::Binary(op) => match (shape(node.inputs[1]), *op) {
                // In lanes beyond the last channel it would be 0 / 0, and kernels that read channels
                // by twos multiply one of them with zero.
                (_, BinaryOp::Div) if !input[0].is_multiple_of(LANES) => Class::Fallback,
                (Some(other), _) if other == input => Class::Binary,
                (Some([c, 1, 1]), BinaryOp::Mul) if c == input[0] && output == input => Class::Gate,
                _ => Class::Fallback,
            },
            Op::MaxPool(_) | Op::AveragePool(_) => Class::Pool,
            Op::GlobalAveragePool => Class::GlobalMean,
            Op::Resize(ResizeMode::Nearest) => Class::Enlarge,
            Op::Pad { .. } => Class::Pad,
            Op::Concat { axis: 0 } => Class::Concat,
            Op::Transpose { perm } if *perm == [1, 2, 0] => Class::ChannelsLast,
            Op::Transpose { perm } if *perm == [2, 0, 1] => Class::ChannelsFirst,
            _ => self.flat_class(node),
        }
    }

    fn flat_class(&self, node: &Node) -> Class {
        match &node.op {
            Op::Reshape => Class::Alias,
            Op::Activation(Activation::PRelu(_)) => Class::Fallback,
            Op::Activation(_) => Class::FlatCurve,
            _ => Class::Fallback,
        }
    }

    fn convolution(
        &self,
        node: &Node,
        conv: &Conv,
        input: [usize; 3],
        output: [usize; 3],
    ) -> Class {
        let ([down, right], pads) = (conv.window.strides, conv.window.pads);
        let slopes_fit = match &conv.activation {
            Some(Activation::PRelu(slopes)) => along_channels(slopes, output).is_some(),
            _ => true,
        };
        if conv.dilations != [1, 1] || !slopes_fit {
            return Class::Fallback;
        }
        if conv.is_depthwise() {
            return Class::Depthwise;
        }
        if conv.groups != 1 {
            return Class::Fallback;
        }
        if pads == [0; 4] && output[1..] == [1, 1] && conv.window.kernel == input[1..] {
            return Class::Vector;
        }
        if down != right || down > 2 {
            return Class::Fallback;
        }
        if let Some(class) = self.planar(node, input) {
            return class;
        }
        let is_winograd = conv.window.kernel == [3, 3]
            && down == 1
            && pads == [1; 4]
            && input[0].min(output[0]) >= WINOGRAD_CHANNELS_MIN
            && output[1] * output[2] >= self.winograd_pixels_min;
        if is_winograd { Class::Winograd } else { Class::Dense }
    }

    /// A convolution of few channels that come straight from the caller.
    fn planar(&self, node: &Node, input: [usize; 3]) -> Option<Class> {
        if node.inputs.len() > 1 || input[0] > PLANAR_CHANNELS_MAX {
            return None;
        }
        let source = node.inputs[0];
        if source == self.graph.input_id() {
            return Some(Class::Planar { channels_last: false });
        }
        self.transposed_input(source).map(|_| Class::Planar { channels_last: true })
    }

    /// The network's input, when `value` is it with the channels moved to the front.
    pub(super) fn transposed_input(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        let is_first = matches!(&node.op, Op::Transpose { perm } if *perm == [2, 0, 1]);
        (is_first && node.inputs[0] == self.graph.input_id()).then_some(node.inputs[0])
    }

    pub(super) fn producer(&self, value: ValueId) -> Option<&'g Node> {
        self.producers[value.index()].map(|at| &self.graph.nodes()[at])
    }

    /// The one node that reads `value` when nobody else needs it.
    fn sole_reader(&self, value: ValueId) -> Option<usize> {
        match *self.readers[value.index()] {
            [reader] if !self.is_output[value.index()] => Some(reader),
            _ => None,
        }
    }

    fn is_absorbed(&self, at: usize) -> bool {
        let node = &self.graph.nodes()[at];
        let readers = &self.readers[node.output.index()];
        let class = |at: usize| self.of_node[at];
        match class(at) {
            Class::ChannelsFirst => {
                node.inputs[0] == self.graph.input_id()
                    && !self.is_output[node.output.index()]
                    && readers.iter().all(|&r| matches!(class(r), Class::Planar { .. }))
            }
            Class::Alias => self.sole_reader(node.output).is_some_and(|reader| {
                matches!(self.graph.nodes()[reader].op, Op::Linear(_))
                    && class(reader) == Class::Vector
                    && self.flattened(node.output).is_some()
            }),
            Class::Gate | Class::Enlarge => self.sole_reader(node.output).is_some_and(|reader| {
                let sum = &self.graph.nodes()[reader];
                let other = sum.inputs.iter().find(|&&input| input != node.output);
                matches!(sum.op, Op::Binary(BinaryOp::Add))
                    && class(reader) == Class::Binary
                    && other.is_some_and(|&other| self.absorbed(other).is_none())
            }),
            _ => false,
        }
    }

    fn is_part(&self, at: usize) -> bool {
        let node = &self.graph.nodes()[at];
        let is_of_channels = matches!(node.op, Op::Slice { axis: 0, step: 1, .. })
            && self.graph.shape(node.output).len() == 3;
        let is_of_image = node.inputs.first().and_then(|input| self.producers[input.index()]);
        is_of_channels
            && is_of_image.is_some_and(|at| self.of_node[at].writes_image())
            && !self.is_read_as_image(node.output)
    }

    /// The image that `value` is the flattened form of.
    pub(super) fn flattened(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        let from = self.graph.shape(*node.inputs.first()?);
        let is_flattening = matches!(node.op, Op::Reshape) && from.len() == 3;
        (is_flattening && self.graph.shape(value).len() == 1).then_some(node.inputs[0])
    }

    /// The gate or enlargement whose result `value` is, when the sum that reads it computes it.
    pub(super) fn absorbed(&self, value: ValueId) -> Option<&'g Node> {
        let at = self.producers[value.index()]?;
        let node = &self.graph.nodes()[at];
        let is_part = matches!(node.op, Op::Binary(BinaryOp::Mul) | Op::Resize(_));
        (is_part && self.of_node[at] == Class::Absorbed).then_some(node)
    }

    /// Whether anybody reads the value as a blocked image.
    pub(super) fn is_read_as_image(&self, value: ValueId) -> bool {
        self.readers[value.index()].iter().any(|&at| match self.of_node[at] {
            Class::Alias => self.is_read_as_image(self.graph.nodes()[at].output),
            // A flattening is read by its matrix product, a gate or an enlargement by a sum.
            Class::Absorbed => true,
            class => class.reads_images(),
        })
    }

    /// Whether the value's image holds `f32` in a network of another format: nothing but the
    /// caller reads it, and its kernel can write it so.
    pub(super) fn is_wide(&self, value: ValueId) -> bool {
        let Some(at) = self.producers[value.index()] else { return false };
        let node = &self.graph.nodes()[at];
        match self.of_node[at] {
            Class::Dense | Class::Winograd | Class::Vector => {}
            Class::Depthwise if node.inputs.len() == 1 => {}
            Class::Concat => {
                let is_last = |&part: &ValueId| {
                    let producer = self.producers[part.index()].map(|at| self.of_node[at]);
                    self.sole_reader(part).is_some()
                        && matches!(producer, Some(Class::Dense | Class::Winograd | Class::Vector))
                };
                return !self.is_read_as_image(value) && node.inputs.iter().all(is_last);
            }
            _ => return false,
        }
        match self.sole_reader(value) {
            Some(reader) if self.of_node[reader] == Class::Concat => {
                self.is_wide(self.graph.nodes()[reader].output)
            }
            _ => !self.is_read_as_image(value),
        }
    }

    /// The border the value's image needs: the largest of those who read it.
    pub(super) fn border(&self, value: ValueId) -> [usize; 4] {
        let mut border = [0; 4];
        for conv in self.bordered_readers(value) {
            for (side, &pad) in border.iter_mut().zip(&conv.window.pads) {
                *side = pad.max(*side);
            }
        }
        border
    }

    /// What the value's own image has in its border: what the first reader wants. Others read a
    /// copy if they want something else.
    pub(super) fn border_fill(&self, value: ValueId) -> Option<&'g Constant> {
        self.bordered_readers(value).next().and_then(|conv| conv.border_values.as_ref())
    }

    fn bordered_readers(&self, value: ValueId) -> impl Iterator<Item = &'g Conv> {
        self.readers[value.index()].iter().filter_map(move |&at| {
            let node = &self.graph.nodes()[at];
            let reads =
                matches!(self.of_node[at], Class::Dense | Class::Winograd | Class::Depthwise);
            match &node.op {
                Op::Conv(conv)
                    if reads && node.inputs[0] == value && conv.window.pads != [0; 4] =>
                {
                    Some(conv)
                }
                _ => None,
            }
        })
    }
}

/// One number per channel, when the constant varies along no other axis.
pub(super) fn along_channels(constant: &Constant, image: [usize; 3]) -> Option<Vec<f32>> {
    constant.along(0, image[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::fixtures::NetworkBuilder;
    use crate::fixtures::{int, ints, string};

    /// The kind of each node and its class.
    fn classes(graph: &Graph) -> Vec<(&'static str, Class)> {
        let classes = Classes::of(graph, &PORTABLE_F32).of_node;
        graph.nodes().iter().map(|node| node.op.name()).zip(classes).collect()
    }

    /// The class of the last node.
    fn last(graph: &Graph) -> Class {
        classes(graph).last().expect("there are nodes").1
    }

    fn convolution(
        draft: &mut NetworkBuilder,
        from: &str,
        to: &str,
        dims: [usize; 4],
        groups: usize,
    ) {
        let weight = format!("weight of {to}");
        draft.noise(&weight, &[dims[0], dims[1] / groups, dims[2], dims[3]], 0.1);
        let pads = [dims[2] / 2, dims[3] / 2, dims[2] / 2, dims[3] / 2].map(|pad| pad as i64);
        let attributes = [ints("pads", &pads), int("group", groups as i64)];
        draft.push("Conv", &[from, &weight], to, &attributes);
    }

    /// A convolution behind one of 1×1.
    fn convolved(channels: usize, out: usize, kernel: [usize; 2], groups: usize) -> Class {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [channels, channels, 1, 1], 1);
        convolution(&mut draft, "a", "y", [out, channels, kernel[0], kernel[1]], groups);
        last(&draft.graph(&[channels, 8, 8]))
    }

    #[test]
    fn convolutions_get_the_kernel_of_their_shape() {
        assert_eq!(convolved(32, 32, [3, 3], 1), Class::Winograd);
        assert_eq!(convolved(32, 31, [3, 3], 1), Class::Dense);
        assert_eq!(convolved(31, 32, [3, 3], 1), Class::Dense);
        assert_eq!(convolved(32, 32, [3, 5], 1), Class::Dense);
        assert_eq!(convolved(32, 32, [1, 1], 1), Class::Dense);
        assert_eq!(convolved(32, 32, [3, 3], 32), Class::Depthwise);
        assert_eq!(convolved(32, 32, [3, 3], 2), Class::Fallback);
        // Two outputs for each channel.
        assert_eq!(convolved(16, 32, [3, 3], 16), Class::Fallback);
    }

    #[test]
    fn a_kernel_as_large_as_the_image_is_a_vector() {
        let mut draft = NetworkBuilder::default();
        draft.noise("weight", &[5, 20, 3, 4], 0.1);
        draft.push("Conv", &["x", "weight"], "y", &[]);
        assert_eq!(last(&draft.graph(&[20, 3, 4])), Class::Vector);
        let mut draft = NetworkBuilder::default();
        draft.linear("x", "y", [5, 20]);
        assert_eq!(last(&draft.graph(&[20])), Class::Vector);
    }

    #[test]
    fn few_channels_of_the_input_are_read_as_they_lie() {
        let planar = |channels: usize| {
            let mut draft = NetworkBuilder::default();
            convolution(&mut draft, "x", "y", [8, channels, 3, 3], 1);
            last(&draft.graph(&[channels, 8, 8]))
        };
        assert_eq!(planar(4), Class::Planar { channels_last: false });
        assert_eq!(planar(5), Class::Dense);
    }

    #[test]
    fn a_transposed_input_is_absorbed_when_only_planar_kernels_read_it() {
        let mut draft = NetworkBuilder::default();
        draft.push("Transpose", &["x"], "a", &[ints("perm", &[0, 3, 1, 2])]);
        convolution(&mut draft, "a", "y", [8, 3, 3, 3], 1);
        let planar = ("Conv", Class::Planar { channels_last: true });
        let alone = draft.clone().graph(&[8, 8, 3]);
        assert_eq!(classes(&alone), [("Transpose", Class::Absorbed), planar]);
        let shown = draft.clone().graph_with(&[8, 8, 3], &["y", "a"]);
        assert_eq!(classes(&shown), [("Transpose", Class::ChannelsFirst), planar]);
    }

    #[test]
    fn a_flattening_is_absorbed_by_its_one_matrix_product() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        draft.push("Flatten", &["a"], "b", &[]);
        draft.linear("b", "y", [3, 20 * 12]);
        let absorbed =
            [("Conv", Class::Dense), ("Reshape", Class::Absorbed), ("Linear", Class::Vector)];
        assert_eq!(classes(&draft.clone().graph(&[8, 3, 4])), absorbed);
        let shown = draft.clone().graph_with(&[8, 3, 4], &["y", "b"]);
        assert_eq!(classes(&shown)[1], ("Reshape", Class::Alias));
        draft.linear("b", "z", [3, 20 * 12]);
        let twice = draft.graph_with(&[8, 3, 4], &["y", "z"]);
        assert_eq!(classes(&twice)[1], ("Reshape", Class::Alias));
    }

    /// `gate` is the one factor, `a` the other; what `outputs` of their sums are shown.
    fn gated(outputs: &[&str]) -> Class {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 3, 3], 1);
        draft.push("GlobalAveragePool", &["a"], "gate", &[]);
        draft.push("Mul", &["a", "gate"], "b", &[]);
        draft.push("Add", &["a", "b"], "y", &[]);
        draft.push("Add", &["b", "b"], "z", &[]);
        let graph = draft.graph_with(&[8, 6, 5], outputs);
        classes(&graph).into_iter().find(|(op, _)| *op == "Mul").expect("there is a product").1
    }

    #[test]
    fn a_gate_is_absorbed_by_the_one_sum_that_reads_it_once() {
        assert_eq!(gated(&["y"]), Class::Absorbed);
        assert_eq!(gated(&["z"]), Class::Gate);
        assert_eq!(gated(&["y", "z"]), Class::Gate);
        assert_eq!(gated(&["y", "b"]), Class::Gate);
    }

    #[test]
    fn one_of_two_enlargements_is_absorbed_by_their_sum() {
        let mut draft = NetworkBuilder::default();
        draft.numbers("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
        for (from, to) in [("x", "a"), ("other", "b")] {
            if from == "other" {
                convolution(&mut draft, "x", "other", [20, 20, 1, 1], 1);
            }
            let attributes = [
                string("mode", "nearest"),
                string("coordinate_transformation_mode", "asymmetric"),
                string("nearest_mode", "floor"),
            ];
            draft.push("Resize", &[from, "", "scales"], to, &attributes);
        }
        draft.push("Add", &["a", "b"], "y", &[]);
        let graph = draft.graph(&[20, 3, 4]);
        let of = |class| classes(&graph).iter().filter(|(_, c)| *c == class).count();
        assert_eq!((of(Class::Absorbed), of(Class::Enlarge), of(Class::Binary)), (1, 1, 1));
    }

    #[test]
    fn some_channels_that_nobody_convolves_stay_where_they_are() {
        let slice = |reader: &str| {
            let mut draft = NetworkBuilder::default();
            convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
            draft.longs("start", &[3]);
            draft.longs("end", &[7]);
            draft.longs("axis", &[1]);
            draft.push("Slice", &["a", "start", "end", "axis"], "b", &[]);
            match reader {
                "Conv" => convolution(&mut draft, "b", "y", [20, 4, 1, 1], 1),
                "Flatten" => draft.push("Flatten", &["b"], "y", &[]),
                _ => draft.push("Transpose", &["b"], "y", &[ints("perm", &[0, 2, 3, 1])]),
            }
            let graph = draft.graph(&[8, 4, 4]);
            classes(&graph).into_iter().find(|(op, _)| *op == "Slice").expect("there is one").1
        };
        assert_eq!(slice("Transpose"), Class::Part);
        assert_eq!(slice("Flatten"), Class::Part);
        assert_eq!(slice("Conv"), Class::Fallback);
    }

    /// Nothing that is read as an image of the network's format is wider than it.
    #[test]
    fn only_what_the_caller_alone_reads_is_wide() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 3, 3], 1);
        convolution(&mut draft, "a", "b", [20, 20, 3, 3], 1);
        convolution(&mut draft, "a", "c", [12, 20, 1, 1], 1);
        draft.push("Concat", &["b", "c"], "y", &[int("axis", 1)]);
        let is_wide = |outputs: &[&str]| {
            let graph = draft.clone().graph_with(&[8, 4, 4], outputs);
            let classes = Classes::of(&graph, &PORTABLE_F32);
            graph.nodes().iter().map(|node| classes.is_wide(node.output)).collect::<Vec<_>>()
        };
        assert_eq!(is_wide(&["y"]), [false, true, true, true]);
        // A part that is shown itself is read twice, and parts are of the format of the whole.
        assert_eq!(is_wide(&["y", "c"]), [false; 4]);
        assert_eq!(is_wide(&["b", "c"]), [false, true, true]);
    }

    #[test]
    fn a_value_has_the_largest_border_and_the_fill_of_its_first_reader() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        convolution(&mut draft, "a", "b", [20, 20, 3, 5], 1);
        convolution(&mut draft, "a", "c", [20, 20, 7, 1], 1);
        convolution(&mut draft, "a", "d", [20, 20, 1, 1], 1);
        let graph = draft.graph_with(&[8, 9, 9], &["b", "c", "d"]);
        let classes = Classes::of(&graph, &PORTABLE_F32);
        assert_eq!(classes.border(graph.nodes()[0].output), [3, 2, 3, 2]);
        assert!(classes.border_fill(graph.nodes()[0].output).is_none());
        assert_eq!(classes.border(graph.nodes()[3].output), [0; 4]);
    }
}
