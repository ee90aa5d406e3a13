//! Chooses the kernel of each operation of a graph, and finds out what layout its values need.

mod kinds;

use super::kernel_kind::{FusedTerm, ImageValue, KernelKind};
use crate::constant::Constant;
use crate::cpu::kernels::KernelSet;
use crate::graph::{Graph, Node, Uses, ValueId};
use crate::op::{BinaryOp, Conv, Op};

/// Facts about a graph that lowering needs.
pub(super) struct GraphAnalysis<'g> {
    graph: &'g Graph,
    uses: Uses,
    /// Kernel of each node.
    pub(super) kinds: Vec<KernelKind<'g>>,
    /// See [`KernelSet::winograd_pixels_min`].
    winograd_pixels_min: usize,
}

impl<'g> GraphAnalysis<'g> {
    pub(super) fn new(graph: &'g Graph, kernels: &KernelSet) -> Self {
        let mut analysis = Self {
            graph,
            uses: Uses::of(graph),
            kinds: Vec::new(),
            winograd_pixels_min: kernels.winograd_pixels_min,
        };
        analysis.kinds = graph.nodes().iter().map(|node| analysis.kind_of(node)).collect();
        for at in 0..graph.nodes().len() {
            if analysis.fuse(at) {
                analysis.kinds[at] = KernelKind::Fused;
            }
        }
        for (at, node) in graph.nodes().iter().enumerate() {
            if let Some(slice) = analysis.channel_slice(node) {
                analysis.kinds[at] = slice;
            }
        }
        analysis
    }

    fn producer(&self, value: ValueId) -> Option<&'g Node> {
        self.uses.producer(value).map(|at| &self.graph.nodes()[at])
    }

    /// Fuses a node into the nodes that read its result, and returns whether they all compute it.
    fn fuse(&mut self, at: usize) -> bool {
        match self.kinds[at] {
            KernelKind::FromChannelsLast { input, output } => {
                input == self.graph.input_id() && self.is_read_as_input(output.id)
            }
            KernelKind::Reshape { input, output } => self.is_read_unflattened(input, output),
            KernelKind::ChannelScale { image, scale, output } => {
                self.fuse_into_sum(output.id, FusedTerm::Scaled { image, scale })
            }
            KernelKind::Upsample { input, output } => {
                self.fuse_into_sum(output.id, FusedTerm::Upsampled(input))
            }
            _ => false,
        }
    }

    /// Returns whether all readers of the transposed input read the network's input instead.
    fn is_read_as_input(&self, transposed: ValueId) -> bool {
        let is_planar = |&at: &usize| matches!(self.kinds[at], KernelKind::Planar { .. });
        !self.uses.is_output(transposed) && self.uses.readers(transposed).iter().all(is_planar)
    }

    /// Returns whether the only reader of a reshaped value is a matrix product that reads the value
    /// before the reshape instead.
    fn is_read_unflattened(&self, from: ValueId, to: ValueId) -> bool {
        let Some(reader) = self.uses.sole_reader(to) else { return false };
        match &self.kinds[reader] {
            KernelKind::FullyConnected(product) => {
                self.graph.nodes()[reader].inputs[0] == to && product.input.id == from
            }
            _ => false,
        }
    }

    /// Lets a sum compute `term`, if the sum is the only reader of the term's `value` and computes
    /// no other term. Returns whether it does.
    fn fuse_into_sum(&mut self, value: ValueId, term: FusedTerm) -> bool {
        let Some(reader) = self.uses.sole_reader(value) else { return false };
        let KernelKind::Binary { op: BinaryOp::Add, operands: [a, b], output } = self.kinds[reader]
        else {
            return false;
        };
        let addend = if a.id == value { b } else { a };
        self.kinds[reader] = KernelKind::Sum { addend, fused: term, output };
        true
    }

    /// Returns the kind of a slice of an image's channels that no kernel reads as an image.
    fn channel_slice(&self, node: &Node) -> Option<KernelKind<'g>> {
        let Op::Slice { axis: 0, start, step: 1 } = node.op else { return None };
        let [channels, _, _] = *self.graph.shape(node.output) else { return None };
        let image = ImageValue::of(self.graph, node.inputs[0])?;
        let producer = self.uses.producer(image.id)?;
        let is_of_image = self.kinds[producer].writes_image();
        (is_of_image && !self.is_read_as_image(node.output)).then_some(KernelKind::ChannelSlice {
            image,
            channels: start..start + channels,
            output: node.output,
        })
    }

    /// Returns whether a kernel reads the value as a blocked image.
    pub(super) fn is_read_as_image(&self, value: ValueId) -> bool {
        self.uses.readers(value).iter().any(|&at| match &self.kinds[at] {
            KernelKind::Reshape { output, .. } => self.is_read_as_image(*output),
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
        match &self.kinds[at] {
            KernelKind::Concat { inputs, .. } => {
                let can_be_f32 = |part: &ImageValue| {
                    self.uses.sole_producer(part.id).is_some_and(|at| self.kinds[at].is_product())
                };
                !self.is_read_as_image(value) && inputs.iter().all(can_be_f32)
            }
            KernelKind::Depthwise(convolution) => {
                convolution.residual.is_none() && self.is_read_by_caller_only(value)
            }
            kind => kind.is_product() && self.is_read_by_caller_only(value),
        }
    }

    /// Returns whether only the caller reads the value, alone or in a concatenation.
    fn is_read_by_caller_only(&self, value: ValueId) -> bool {
        match self.uses.sole_reader(value).map(|reader| &self.kinds[reader]) {
            Some(KernelKind::Concat { output, .. }) => self.is_stored_as_f32(output.id),
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

    /// Returns the values of the border of the value's image: those that its first reader needs. A
    /// reader that needs other border values reads a copy.
    pub(super) fn border_values(&self, value: ValueId) -> Option<&'g Constant> {
        self.bordered_readers(value).next().and_then(|conv| conv.border_values.as_ref())
    }

    fn bordered_readers(&self, value: ValueId) -> impl Iterator<Item = &'g Conv> {
        self.uses.readers(value).iter().filter_map(move |&at| match &self.kinds[at] {
            KernelKind::Direct(convolution)
            | KernelKind::Winograd(convolution)
            | KernelKind::Depthwise(convolution)
                if convolution.input.id == value && convolution.conv.window.pads != [0; 4] =>
            {
                Some(convolution.conv)
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::PORTABLE_F32;
    use crate::fixtures::NetworkBuilder;
    use crate::fixtures::{int, ints, string};

    /// The kernel kinds that the tests tell apart, without what they hold.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Planar { channels_last: bool },
        Direct,
        Winograd,
        Depthwise,
        FullyConnected,
        Binary,
        ChannelScale,
        Sum,
        Upsample,
        FromChannelsLast,
        Reshape,
        ChannelSlice,
        Fused,
        Fallback,
        Other,
    }

    impl Kind {
        fn of(kind: &KernelKind<'_>) -> Self {
            match kind {
                KernelKind::Planar { channels_last, .. } => {
                    Self::Planar { channels_last: *channels_last }
                }
                KernelKind::Direct(_) => Self::Direct,
                KernelKind::Winograd(_) => Self::Winograd,
                KernelKind::Depthwise(_) => Self::Depthwise,
                KernelKind::FullyConnected(_) => Self::FullyConnected,
                KernelKind::Binary { .. } => Self::Binary,
                KernelKind::ChannelScale { .. } => Self::ChannelScale,
                KernelKind::Sum { .. } => Self::Sum,
                KernelKind::Upsample { .. } => Self::Upsample,
                KernelKind::FromChannelsLast { .. } => Self::FromChannelsLast,
                KernelKind::Reshape { .. } => Self::Reshape,
                KernelKind::ChannelSlice { .. } => Self::ChannelSlice,
                KernelKind::Fused => Self::Fused,
                KernelKind::Fallback(_) => Self::Fallback,
                _ => Self::Other,
            }
        }
    }

    /// Returns the operation and the kernel kind of each node.
    fn kinds(graph: &Graph) -> Vec<(&'static str, Kind)> {
        let kinds = GraphAnalysis::new(graph, &PORTABLE_F32).kinds;
        let kinds = kinds.iter().map(Kind::of);
        graph.nodes().iter().map(|node| node.op.name()).zip(kinds).collect()
    }

    /// Returns the kernel kind of the last node.
    fn last(graph: &Graph) -> Kind {
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
    fn convolved(channels: usize, out: usize, kernel: [usize; 2], groups: usize) -> Kind {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [channels, channels, 1, 1], 1);
        convolution(&mut draft, "a", "y", [out, channels, kernel[0], kernel[1]], groups);
        last(&draft.graph(&[channels, 8, 8]))
    }

    #[test]
    fn convolutions_get_the_kernel_of_their_shape() {
        assert_eq!(convolved(32, 32, [3, 3], 1), Kind::Winograd);
        assert_eq!(convolved(32, 31, [3, 3], 1), Kind::Direct);
        assert_eq!(convolved(31, 32, [3, 3], 1), Kind::Direct);
        assert_eq!(convolved(32, 32, [3, 5], 1), Kind::Direct);
        assert_eq!(convolved(32, 32, [1, 1], 1), Kind::Direct);
        assert_eq!(convolved(32, 32, [3, 3], 32), Kind::Depthwise);
        assert_eq!(convolved(32, 32, [3, 3], 2), Kind::Fallback);
        // Two outputs for each channel.
        assert_eq!(convolved(16, 32, [3, 3], 16), Kind::Fallback);
    }

    #[test]
    fn a_kernel_as_large_as_the_image_is_fully_connected() {
        let mut draft = NetworkBuilder::default();
        draft.noise("weight", &[5, 20, 3, 4], 0.1);
        draft.push("Conv", &["x", "weight"], "y", &[]);
        assert_eq!(last(&draft.graph(&[20, 3, 4])), Kind::FullyConnected);
        let mut draft = NetworkBuilder::default();
        draft.linear("x", "y", [5, 20]);
        assert_eq!(last(&draft.graph(&[20])), Kind::FullyConnected);
    }

    #[test]
    fn few_channels_of_the_input_are_read_as_they_lie() {
        let planar = |channels: usize| {
            let mut draft = NetworkBuilder::default();
            convolution(&mut draft, "x", "y", [8, channels, 3, 3], 1);
            last(&draft.graph(&[channels, 8, 8]))
        };
        assert_eq!(planar(4), Kind::Planar { channels_last: false });
        assert_eq!(planar(5), Kind::Direct);
    }

    #[test]
    fn a_transposed_input_is_fused_when_only_planar_kernels_read_it() {
        let mut draft = NetworkBuilder::default();
        draft.push("Transpose", &["x"], "a", &[ints("perm", &[0, 3, 1, 2])]);
        convolution(&mut draft, "a", "y", [8, 3, 3, 3], 1);
        let planar = ("Conv", Kind::Planar { channels_last: true });
        let alone = draft.clone().graph(&[8, 8, 3]);
        assert_eq!(kinds(&alone), [("Transpose", Kind::Fused), planar]);
        let shown = draft.clone().graph_with(&[8, 8, 3], &["y", "a"]);
        assert_eq!(kinds(&shown), [("Transpose", Kind::FromChannelsLast), planar]);
    }

    #[test]
    fn a_flattening_is_fused_into_its_only_matrix_product() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        draft.push("Flatten", &["a"], "b", &[]);
        draft.linear("b", "y", [3, 20 * 12]);
        let fused =
            [("Conv", Kind::Direct), ("Reshape", Kind::Fused), ("Linear", Kind::FullyConnected)];
        assert_eq!(kinds(&draft.clone().graph(&[8, 3, 4])), fused);
        let shown = draft.clone().graph_with(&[8, 3, 4], &["y", "b"]);
        assert_eq!(kinds(&shown)[1], ("Reshape", Kind::Reshape));
        draft.linear("b", "z", [3, 20 * 12]);
        let twice = draft.graph_with(&[8, 3, 4], &["y", "z"]);
        assert_eq!(kinds(&twice)[1], ("Reshape", Kind::Reshape));
    }

    /// Returns the kernel kind of `a × gate`, which two sums read; `outputs` are the outputs of the
    /// network.
    fn channel_scale_kind(outputs: &[&str]) -> Kind {
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
        assert_eq!(channel_scale_kind(&["y"]), Kind::Fused);
        assert_eq!(channel_scale_kind(&["z"]), Kind::ChannelScale);
        assert_eq!(channel_scale_kind(&["y", "z"]), Kind::ChannelScale);
        assert_eq!(channel_scale_kind(&["y", "b"]), Kind::ChannelScale);
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
        assert_eq!([of(Kind::Fused), of(Kind::Upsample), of(Kind::Sum)], [1; 3]);
        assert_eq!(of(Kind::Binary), 0);
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
        assert_eq!(slice("Transpose"), Kind::ChannelSlice);
        assert_eq!(slice("Flatten"), Kind::ChannelSlice);
        assert_eq!(slice("Conv"), Kind::Fallback);
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
    fn a_value_has_the_largest_border_and_the_border_values_of_its_first_reader() {
        let mut draft = NetworkBuilder::default();
        convolution(&mut draft, "x", "a", [20, 8, 1, 1], 1);
        convolution(&mut draft, "a", "b", [20, 20, 3, 5], 1);
        convolution(&mut draft, "a", "c", [20, 20, 7, 1], 1);
        convolution(&mut draft, "a", "d", [20, 20, 1, 1], 1);
        let graph = draft.graph_with(&[8, 9, 9], &["b", "c", "d"]);
        let analysis = GraphAnalysis::new(&graph, &PORTABLE_F32);
        assert_eq!(analysis.border(graph.nodes()[0].output), [3, 2, 3, 2]);
        assert!(analysis.border_values(graph.nodes()[0].output).is_none());
        assert_eq!(analysis.border(graph.nodes()[3].output), [0; 4]);
    }
}
