//! Chooses the kernel of each operation of a graph, and finds out what layout its values need.

use super::kernel_kind::KernelKind;
use crate::constant::Constant;
use crate::cpu::kernels::KernelSet;
use crate::cpu::lanes::LANES;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{Activation, BinaryOp, Conv, Op, ResizeMode};

/// Facts about a graph that lowering needs.
pub(super) struct GraphAnalysis<'g> {
    graph: &'g Graph,
    /// Kernel of each node.
    pub(super) kinds: Vec<KernelKind>,
    uses: Uses,
    /// See [`KernelSet::winograd_pixels_min`].
    winograd_pixels_min: usize,
}

/// Most channels of an input that is read in the caller's layout.
const PLANAR_CHANNELS_MAX: usize = 4;

/// Winograd's algorithm divides the multiplications by four, but adds transforms. The transforms
/// grow with the channels, and the multiplications with the product of input and output channels.
/// With fewer channels than this on either side, the direct kernel is faster.
const WINOGRAD_CHANNELS_MIN: usize = 32;

/// Returns the shape as `[channels, height, width]`. A vector is an image of one pixel.
pub(super) fn image_shape(shape: &[usize]) -> Option<[usize; 3]> {
    match *shape {
        [channels] => Some([channels, 1, 1]),
        [channels, height, width] => Some([channels, height, width]),
        _ => None,
    }
}

impl<'g> GraphAnalysis<'g> {
    pub(super) fn new(graph: &'g Graph, kernels: &KernelSet) -> Self {
        let mut analysis = Self {
            graph,
            kinds: Vec::new(),
            uses: Uses::of(graph),
            winograd_pixels_min: kernels.winograd_pixels_min,
        };
        analysis.kinds = graph.nodes().iter().map(|node| analysis.kind_of(node)).collect();
        for at in 0..graph.nodes().len() {
            if analysis.is_fused(at) {
                analysis.kinds[at] = KernelKind::Fused;
            }
        }
        for at in 0..graph.nodes().len() {
            if analysis.is_channel_slice(at) {
                analysis.kinds[at] = KernelKind::ChannelSlice;
            }
        }
        analysis
    }

    fn kind_of(&self, node: &Node) -> KernelKind {
        let shape = |id: ValueId| image_shape(self.graph.shape(id));
        let (Some(input), output) = (shape(node.inputs[0]), shape(node.output)) else {
            return self.flat_kind(node);
        };
        let Some(output) = output else { return self.flat_kind(node) };
        match &node.op {
            Op::Conv(conv) => self.convolution_kind(node, conv, input, output),
            Op::Linear(_) if self.graph.shape(node.inputs[0]).len() == 1 => {
                KernelKind::FullyConnected
            }
            Op::Affine(affine)
                if along_channels(&affine.scale, input).is_some()
                    && along_channels(&affine.shift, input).is_some() =>
            {
                KernelKind::Affine
            }
            Op::Activation(Activation::PRelu(slopes))
                if along_channels(slopes, input).is_none() =>
            {
                KernelKind::Fallback
            }
            Op::Activation(_) => KernelKind::Activation,
            Op::Binary(op) => match (shape(node.inputs[1]), *op) {
                // Lanes beyond the last channel would be 0 / 0. Kernels that read channels in pairs
                // multiply one of these lanes by zero, which gives a NaN.
                (_, BinaryOp::Div) if !input[0].is_multiple_of(LANES) => KernelKind::Fallback,
                (Some(other), _) if other == input => KernelKind::Binary,
                (Some([c, 1, 1]), BinaryOp::Mul) if c == input[0] && output == input => {
                    KernelKind::ChannelScale
                }
                _ => KernelKind::Fallback,
            },
            Op::MaxPool(_) | Op::AveragePool(_) => KernelKind::Pool,
            Op::GlobalAveragePool => KernelKind::GlobalMean,
            Op::Resize(ResizeMode::Nearest) => KernelKind::Upsample,
            Op::Pad { .. } => KernelKind::Pad,
            Op::Concat { axis: 0 } => KernelKind::Concat,
            Op::Transpose { perm } if *perm == [1, 2, 0] => KernelKind::ToChannelsLast,
            Op::Transpose { perm } if *perm == [2, 0, 1] => KernelKind::FromChannelsLast,
            _ => self.flat_kind(node),
        }
    }

    fn flat_kind(&self, node: &Node) -> KernelKind {
        match &node.op {
            Op::Reshape => KernelKind::Reshape,
            Op::Activation(Activation::PRelu(_)) => KernelKind::Fallback,
            Op::Activation(_) => KernelKind::FlatActivation,
            _ => KernelKind::Fallback,
        }
    }

    fn convolution_kind(
        &self,
        node: &Node,
        conv: &Conv,
        input: [usize; 3],
        output: [usize; 3],
    ) -> KernelKind {
        let ([down, right], pads) = (conv.window.strides, conv.window.pads);
        let slopes_fit = match &conv.activation {
            Some(Activation::PRelu(slopes)) => along_channels(slopes, output).is_some(),
            _ => true,
        };
        if conv.dilations != [1, 1] || !slopes_fit {
            return KernelKind::Fallback;
        }
        if conv.is_depthwise() {
            return KernelKind::Depthwise;
        }
        if conv.groups != 1 {
            return KernelKind::Fallback;
        }
        if pads == [0; 4] && output[1..] == [1, 1] && conv.window.kernel == input[1..] {
            return KernelKind::FullyConnected;
        }
        if down != right || down > 2 {
            return KernelKind::Fallback;
        }
        if let Some(kind) = self.planar_kind(node, input) {
            return kind;
        }
        let is_winograd = conv.window.kernel == [3, 3]
            && down == 1
            && pads == [1; 4]
            && input[0].min(output[0]) >= WINOGRAD_CHANNELS_MIN
            && output[1] * output[2] >= self.winograd_pixels_min;
        if is_winograd { KernelKind::Winograd } else { KernelKind::Dense }
    }

    /// Returns the kind of a convolution that reads few channels straight from the caller's input.
    fn planar_kind(&self, node: &Node, input: [usize; 3]) -> Option<KernelKind> {
        if node.inputs.len() > 1 || input[0] > PLANAR_CHANNELS_MAX {
            return None;
        }
        let source = node.inputs[0];
        if source == self.graph.input_id() {
            return Some(KernelKind::Planar { channels_last: false });
        }
        self.transposed_input(source).map(|_| KernelKind::Planar { channels_last: true })
    }

    /// Returns the network's input, if `value` is that input with its channels moved to the front.
    pub(super) fn transposed_input(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        let is_first = matches!(&node.op, Op::Transpose { perm } if *perm == [2, 0, 1]);
        (is_first && node.inputs[0] == self.graph.input_id()).then_some(node.inputs[0])
    }

    pub(super) fn producer(&self, value: ValueId) -> Option<&'g Node> {
        self.uses.producer(value).map(|at| &self.graph.nodes()[at])
    }

    fn is_fused(&self, at: usize) -> bool {
        let node = &self.graph.nodes()[at];
        let readers = self.uses.readers(node.output);
        let kind = |at: usize| self.kinds[at];
        match kind(at) {
            KernelKind::FromChannelsLast => {
                node.inputs[0] == self.graph.input_id()
                    && !self.uses.is_output(node.output)
                    && readers.iter().all(|&r| matches!(kind(r), KernelKind::Planar { .. }))
            }
            KernelKind::Reshape => self.uses.sole_reader(node.output).is_some_and(|reader| {
                matches!(self.graph.nodes()[reader].op, Op::Linear(_))
                    && kind(reader) == KernelKind::FullyConnected
                    && self.flattened_image(node.output).is_some()
            }),
            KernelKind::ChannelScale | KernelKind::Upsample => {
                self.uses.sole_reader(node.output).is_some_and(|reader| {
                    let sum = &self.graph.nodes()[reader];
                    let other = sum.inputs.iter().find(|&&input| input != node.output);
                    matches!(sum.op, Op::Binary(BinaryOp::Add))
                        && kind(reader) == KernelKind::Binary
                        && other.is_some_and(|&other| self.fused_operand(other).is_none())
                })
            }
            _ => false,
        }
    }

    fn is_channel_slice(&self, at: usize) -> bool {
        let node = &self.graph.nodes()[at];
        let is_of_channels = matches!(node.op, Op::Slice { axis: 0, step: 1, .. })
            && self.graph.shape(node.output).len() == 3;
        let is_of_image = node.inputs.first().and_then(|input| self.uses.producer(*input));
        is_of_channels
            && is_of_image.is_some_and(|at| self.kinds[at].writes_image())
            && !self.is_read_as_image(node.output)
    }

    /// Returns the image whose flattened form `value` is.
    pub(super) fn flattened_image(&self, value: ValueId) -> Option<ValueId> {
        let node = self.producer(value)?;
        let from = self.graph.shape(*node.inputs.first()?);
        let is_flattening = matches!(node.op, Op::Reshape) && from.len() == 3;
        (is_flattening && self.graph.shape(value).len() == 1).then_some(node.inputs[0])
    }

    /// Returns the channel scale or upsampling that computes `value`, if it is fused into the sum
    /// that reads it.
    pub(super) fn fused_operand(&self, value: ValueId) -> Option<&'g Node> {
        let at = self.uses.producer(value)?;
        let node = &self.graph.nodes()[at];
        let is_operand = matches!(node.op, Op::Binary(BinaryOp::Mul) | Op::Resize(_));
        (is_operand && self.kinds[at] == KernelKind::Fused).then_some(node)
    }

    /// Returns whether a kernel reads the value as a blocked image.
    pub(super) fn is_read_as_image(&self, value: ValueId) -> bool {
        self.uses.readers(value).iter().any(|&at| match self.kinds[at] {
            KernelKind::Reshape => self.is_read_as_image(self.graph.nodes()[at].output),
            // The matrix product reads a fused flattening; the sum reads a fused channel scale or
            // upsampling.
            KernelKind::Fused => true,
            kind => kind.reads_images(),
        })
    }

    /// Returns whether the value's image may hold `f32` in a network of another format. It may, if
    /// only the caller reads the value and its kernel can write `f32`.
    pub(super) fn is_stored_as_f32(&self, value: ValueId) -> bool {
        let Some(at) = self.uses.producer(value) else { return false };
        let node = &self.graph.nodes()[at];
        match self.kinds[at] {
            KernelKind::Dense | KernelKind::Winograd | KernelKind::FullyConnected => {}
            KernelKind::Depthwise if node.inputs.len() == 1 => {}
            KernelKind::Concat => {
                let is_last = |&part: &ValueId| {
                    let producer = self.uses.producer(part).map(|at| self.kinds[at]);
                    self.uses.sole_reader(part).is_some()
                        && matches!(
                            producer,
                            Some(
                                KernelKind::Dense
                                    | KernelKind::Winograd
                                    | KernelKind::FullyConnected
                            )
                        )
                };
                return !self.is_read_as_image(value) && node.inputs.iter().all(is_last);
            }
            _ => return false,
        }
        match self.uses.sole_reader(value) {
            Some(reader) if self.kinds[reader] == KernelKind::Concat => {
                self.is_stored_as_f32(self.graph.nodes()[reader].output)
            }
            _ => !self.is_read_as_image(value),
        }
    }

    /// Returns the border that the value's image needs: the largest border of its readers.
    pub(super) fn border(&self, value: ValueId) -> [usize; 4] {
        let mut border = [0; 4];
        for conv in self.bordered_readers(value) {
            for (side, &pad) in border.iter_mut().zip(&conv.window.pads) {
                *side = pad.max(*side);
            }
        }
        border
    }

    /// Returns what the border of the value's image holds: the numbers for its first reader. A
    /// reader that needs other numbers reads a copy.
    pub(super) fn border_fill(&self, value: ValueId) -> Option<&'g Constant> {
        self.bordered_readers(value).next().and_then(|conv| conv.border_values.as_ref())
    }

    fn bordered_readers(&self, value: ValueId) -> impl Iterator<Item = &'g Conv> {
        self.uses.readers(value).iter().filter_map(move |&at| {
            let node = &self.graph.nodes()[at];
            let reads = matches!(
                self.kinds[at],
                KernelKind::Dense | KernelKind::Winograd | KernelKind::Depthwise
            );
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

/// Returns one number per channel, if the constant varies along no other axis.
pub(super) fn along_channels(constant: &Constant, image: [usize; 3]) -> Option<Vec<f32>> {
    constant.along(0, image[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::fixtures::NetworkBuilder;
    use crate::fixtures::{int, ints, string};

    /// Returns the operation and the kernel kind of each node.
    fn kinds(graph: &Graph) -> Vec<(&'static str, KernelKind)> {
        let kinds = GraphAnalysis::new(graph, &PORTABLE_F32).kinds;
        graph.nodes().iter().map(|node| node.op.name()).zip(kinds).collect()
    }

    /// Returns the kernel kind of the last node.
    fn last(graph: &Graph) -> KernelKind {
        kinds(graph).last().expect("there are nodes").1
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

    /// Returns the kernel kind of a convolution that follows one of 1×1.
    fn convolved(channels: usize, out: usize, kernel: [usize; 2], groups: usize) -> KernelKind {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [channels, channels, 1, 1], 1);
        convolution(&mut draft, "a", "y", [out, channels, kernel[0], kernel[1]], groups);
        last(&draft.graph(&[channels, 8, 8]))
    }

    #[test]
    fn convolutions_get_the_kernel_of_their_shape() {
        assert_eq!(convolved(32, 32, [3, 3], 1), KernelKind::Winograd);
        assert_eq!(convolved(32, 31, [3, 3], 1), KernelKind::Dense);
        assert_eq!(convolved(31, 32, [3, 3], 1), KernelKind::Dense);
        assert_eq!(convolved(32, 32, [3, 5], 1), KernelKind::Dense);
        assert_eq!(convolved(32, 32, [1, 1], 1), KernelKind::Dense);
        assert_eq!(convolved(32, 32, [3, 3], 32), KernelKind::Depthwise);
        assert_eq!(convolved(32, 32, [3, 3], 2), KernelKind::Fallback);
        // Two outputs for each channel.
        assert_eq!(convolved(16, 32, [3, 3], 16), KernelKind::Fallback);
    }

    #[test]
    fn a_kernel_as_large_as_the_image_is_fully_connected() {
        let mut draft = NetworkBuilder::default();
        draft.noise("weight", &[5, 20, 3, 4], 0.1);
        draft.push("Conv", &["x", "weight"], "y", &[]);
        assert_eq!(last(&draft.graph(&[20, 3, 4])), KernelKind::FullyConnected);
        let mut draft = NetworkBuilder::default();
        draft.linear("x", "y", [5, 20]);
        assert_eq!(last(&draft.graph(&[20])), KernelKind::FullyConnected);
    }

    #[test]
    fn few_channels_of_the_input_are_read_as_they_lie() {
        let planar = |channels: usize| {
            let mut draft = NetworkBuilder::default();
            convolution(&mut draft, "x", "y", [8, channels, 3, 3], 1);
            last(&draft.graph(&[channels, 8, 8]))
        };
        assert_eq!(planar(4), KernelKind::Planar { channels_last: false });
        assert_eq!(planar(5), KernelKind::Dense);
    }

    #[test]
    fn a_transposed_input_is_fused_when_only_planar_kernels_read_it() {
        let mut draft = NetworkBuilder::default();
        draft.push("Transpose", &["x"], "a", &[ints("perm", &[0, 3, 1, 2])]);
        convolution(&mut draft, "a", "y", [8, 3, 3, 3], 1);
        let planar = ("Conv", KernelKind::Planar { channels_last: true });
        let alone = draft.clone().graph(&[8, 8, 3]);
        assert_eq!(kinds(&alone), [("Transpose", KernelKind::Fused), planar]);
        let shown = draft.clone().graph_with(&[8, 8, 3], &["y", "a"]);
        assert_eq!(kinds(&shown), [("Transpose", KernelKind::FromChannelsLast), planar]);
    }

    #[test]
    fn a_flattening_is_fused_into_its_only_matrix_product() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        draft.push("Flatten", &["a"], "b", &[]);
        draft.linear("b", "y", [3, 20 * 12]);
        let fused = [
            ("Conv", KernelKind::Dense),
            ("Reshape", KernelKind::Fused),
            ("Linear", KernelKind::FullyConnected),
        ];
        assert_eq!(kinds(&draft.clone().graph(&[8, 3, 4])), fused);
        let shown = draft.clone().graph_with(&[8, 3, 4], &["y", "b"]);
        assert_eq!(kinds(&shown)[1], ("Reshape", KernelKind::Reshape));
        draft.linear("b", "z", [3, 20 * 12]);
        let twice = draft.graph_with(&[8, 3, 4], &["y", "z"]);
        assert_eq!(kinds(&twice)[1], ("Reshape", KernelKind::Reshape));
    }

    /// Returns the kernel kind of `a × gate`, which two sums read; `outputs` are the outputs of the
    /// network.
    fn channel_scale_kind(outputs: &[&str]) -> KernelKind {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 3, 3], 1);
        draft.push("GlobalAveragePool", &["a"], "gate", &[]);
        draft.push("Mul", &["a", "gate"], "b", &[]);
        draft.push("Add", &["a", "b"], "y", &[]);
        draft.push("Add", &["b", "b"], "z", &[]);
        let graph = draft.graph_with(&[8, 6, 5], outputs);
        kinds(&graph).into_iter().find(|(op, _)| *op == "Mul").expect("there is a product").1
    }

    #[test]
    fn a_channel_scale_is_fused_into_the_only_sum_that_reads_it_once() {
        assert_eq!(channel_scale_kind(&["y"]), KernelKind::Fused);
        assert_eq!(channel_scale_kind(&["z"]), KernelKind::ChannelScale);
        assert_eq!(channel_scale_kind(&["y", "z"]), KernelKind::ChannelScale);
        assert_eq!(channel_scale_kind(&["y", "b"]), KernelKind::ChannelScale);
    }

    #[test]
    fn one_of_two_upsamplings_is_fused_into_their_sum() {
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
        let of = |kind| kinds(&graph).iter().filter(|(_, k)| *k == kind).count();
        assert_eq!(
            (of(KernelKind::Fused), of(KernelKind::Upsample), of(KernelKind::Binary)),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_slice_of_channels_that_no_kernel_reads_as_an_image_is_not_copied() {
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
            kinds(&graph).into_iter().find(|(op, _)| *op == "Slice").expect("there is one").1
        };
        assert_eq!(slice("Transpose"), KernelKind::ChannelSlice);
        assert_eq!(slice("Flatten"), KernelKind::ChannelSlice);
        assert_eq!(slice("Conv"), KernelKind::Fallback);
    }

    /// No image that a kernel reads in the network's format is stored as `f32`.
    #[test]
    fn only_images_that_the_caller_alone_reads_are_stored_as_f32() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 3, 3], 1);
        convolution(&mut draft, "a", "b", [20, 20, 3, 3], 1);
        convolution(&mut draft, "a", "c", [12, 20, 1, 1], 1);
        draft.push("Concat", &["b", "c"], "y", &[int("axis", 1)]);
        let stored_as_f32 = |outputs: &[&str]| {
            let graph = draft.clone().graph_with(&[8, 4, 4], outputs);
            let analysis = GraphAnalysis::new(&graph, &PORTABLE_F32);
            graph
                .nodes()
                .iter()
                .map(|node| analysis.is_stored_as_f32(node.output))
                .collect::<Vec<_>>()
        };
        assert_eq!(stored_as_f32(&["y"]), [false, true, true, true]);
        // The caller then reads `c` too, and all parts of a concatenation have its format.
        assert_eq!(stored_as_f32(&["y", "c"]), [false; 4]);
        assert_eq!(stored_as_f32(&["b", "c"]), [false, true, true]);
    }

    #[test]
    fn a_value_has_the_largest_border_and_the_fill_of_its_first_reader() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        convolution(&mut draft, "a", "b", [20, 20, 3, 5], 1);
        convolution(&mut draft, "a", "c", [20, 20, 7, 1], 1);
        convolution(&mut draft, "a", "d", [20, 20, 1, 1], 1);
        let graph = draft.graph_with(&[8, 9, 9], &["b", "c", "d"]);
        let analysis = GraphAnalysis::new(&graph, &PORTABLE_F32);
        assert_eq!(analysis.border(graph.nodes()[0].output), [3, 2, 3, 2]);
        assert!(analysis.border_fill(graph.nodes()[0].output).is_none());
        assert_eq!(analysis.border(graph.nodes()[3].output), [0; 4]);
    }
}
