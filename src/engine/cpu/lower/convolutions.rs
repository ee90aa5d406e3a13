//! Lowers convolutions and matrix products.

use super::analysis::image_shape;
use super::kernel_kind::KernelKind;
use super::{Lowering, StepDraft, epilogue};
use crate::constant::Constant;
use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::lanes::LANES;
use crate::cpu::memory::Buffer;
use crate::cpu::pack::{self, DenseShape};
use crate::cpu::work::{
    Dense, Depthwise, Elementwise, FullyConnected, ImageRef, PackedEpilogue, Planar, Product,
    Strips, WINOGRAD_ROW_UNIT, Winograd, Work,
};
use crate::graph::{Node, ValueId};
use crate::op::{BinaryOp, Conv, Op};

impl<'g> Lowering<'g> {
    fn convolution(node: &'g Node) -> &'g Conv {
        match &node.op {
            Op::Conv(conv) => conv,
            _ => unreachable!("its kernel kind is for convolutions only"),
        }
    }

    fn dense_shape(&self, outputs: usize, inputs: usize, kernel: [usize; 2]) -> DenseShape {
        let kernels = self.plan.kernels;
        let (depth, tile_blocks) = (kernels.depth, kernels.tile_blocks);
        let pads_last_block = kernels.strips.is_some();
        DenseShape {
            outputs,
            inputs,
            kernel,
            block_channels: LANES,
            depth,
            tile_blocks,
            pads_last_block,
        }
    }

    pub(super) fn lower_planar(&mut self, node: &'g Node, channels_last: bool) {
        let conv = Self::convolution(node);
        let source = self.analysis.transposed_input(node.inputs[0]).unwrap_or(node.inputs[0]);
        let input = self.flat_values[&source];
        let [channels, height, width] = image_shape(self.graph.shape(node.inputs[0]))
            .expect("its kernel kind is for images only");
        let output = self.new_output_image(node.output);
        let shape = DenseShape {
            block_channels: 1,
            depth: 1,
            ..self.dense_shape(conv.out_channels(), channels, conv.window.kernel)
        };
        let (epilogue, activation_step) =
            epilogue::lower_activation(conv.activation.as_ref(), conv.out_channels());
        let border = conv.border_values.as_ref();
        let work = Planar {
            input,
            size: [height, width],
            channels_last,
            output,
            shape,
            stride: conv.window.strides[0],
            pads: conv.window.pads,
            border: border.map_or(vec![0.0; channels], |border| border.data().to_vec()),
            weights: shape.pack_constant(&conv.weight, size_of::<f32>()),
            bias: bias(conv),
            epilogue,
        };
        let draft = StepDraft {
            groups: shape.groups(),
            macs: macs(conv, &output),
            ..StepDraft::by_block(work, vec![input], &output)
        };
        self.push_convolution(node, draft, output, activation_step, [channels, height, width]);
    }

    pub(super) fn lower_dense(&mut self, node: &'g Node, kind: KernelKind) {
        let conv = Self::convolution(node);
        let input = self.convolution_input(node, conv);
        let residual = node.inputs.get(1).map(|&id| self.blocked_image(id));
        let output = self.new_output_image(node.output);
        let (inputs, kernel) = (input.layout.channels, conv.window.kernel);
        let (epilogue, activation_step) =
            epilogue::lower_activation(conv.activation.as_ref(), conv.out_channels());
        let [top, left, ..] = conv.window.pads;
        let bias = bias(conv);
        let work: Box<dyn Work>;
        let (row_unit, groups);
        if kind == KernelKind::Winograd {
            let shape =
                DenseShape { depth: 1, ..self.dense_shape(conv.out_channels(), inputs, [1, 1]) };
            let weights = pack::winograd(&conv.weight, &shape);
            (row_unit, groups) = (WINOGRAD_ROW_UNIT, shape.groups());
            let product = Product { input, residual, output, shape, weights, bias, epilogue };
            work = Box::new(Winograd { product });
        } else {
            let shape = self.dense_shape(conv.out_channels(), inputs, kernel);
            let weights = shape.pack_constant(&conv.weight, self.plan.kernels.element_bytes);
            (row_unit, groups) = (1, shape.groups());
            let (stride, pads) = (conv.window.strides[0], [top, left]);
            let product = Product { input, residual, output, shape, weights, bias, epilogue };
            let dense = Dense { product, stride, pads };
            work = match &self.plan.kernels.strips {
                Some(kernels) => Box::new(Strips { dense, kernels }),
                None => Box::new(dense),
            };
        }
        let reads = [Some(input), residual].into_iter().flatten().map(|image| image.value);
        let draft = StepDraft {
            work,
            reads: reads.collect(),
            writes: output.value,
            row_unit,
            groups,
            macs: macs(conv, &output),
            is_whole: false,
        };
        let size = [input.layout.channels, input.layout.height, input.layout.width];
        self.push_convolution(node, draft, output, activation_step, size);
    }

    pub(super) fn lower_depthwise(&mut self, node: &'g Node) {
        let conv = Self::convolution(node);
        let input = self.convolution_input(node, conv);
        let residual = node.inputs.get(1).map(|&id| self.blocked_image(id));
        let output = self.new_output_image(node.output);
        let [top, left, ..] = conv.window.pads;
        let (epilogue, activation_step) =
            epilogue::lower_activation(conv.activation.as_ref(), conv.out_channels());
        // With a residual, the activation follows the sum with the residual.
        let (epilogue, later) = match residual {
            Some(residual) => (PackedEpilogue::Identity, Some((residual, epilogue))),
            None => (epilogue, None),
        };
        let work = Depthwise {
            input,
            output,
            kernel: conv.window.kernel,
            strides: conv.window.strides,
            pads: [top, left],
            weights: Buffer::from_slice(&pack::depthwise(&conv.weight, conv.out_channels())),
            bias: bias(conv),
            epilogue,
        };
        let draft = StepDraft {
            macs: macs(conv, &output),
            ..StepDraft::by_block(work, vec![input.value], &output)
        };
        let size = [input.layout.channels, input.layout.height, input.layout.width];
        self.push_step(convolution_label(conv, size), draft);
        if let Some((residual, epilogue)) = later {
            let work = Elementwise {
                a: output,
                affine: None,
                channel_scale: None,
                b: Some((BinaryOp::Add, residual)),
                b_upsample: [1, 1],
                epilogue,
                output,
            };
            let reads = vec![output.value, residual.value];
            self.push_step("residual".to_owned(), StepDraft::by_block(work, reads, &output));
        }
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    pub(super) fn lower_fully_connected(&mut self, node: &'g Node) {
        let (weight, bias) = match &node.op {
            Op::Conv(conv) => (&conv.weight, conv.bias.as_ref()),
            Op::Linear(linear) => (&linear.weight, linear.bias.as_ref()),
            _ => unreachable!("its kernel kind is for convolutions and matrix products only"),
        };
        let activation = match &node.op {
            Op::Conv(conv) => conv.activation.as_ref(),
            _ => None,
        };
        let outputs = weight.shape()[0];
        let source = self.analysis.flattened_image(node.inputs[0]).unwrap_or(node.inputs[0]);
        let input = self.blocked_image(source);
        let residual = node.inputs.get(1).map(|&id| self.blocked_image(id));
        let output = self.new_output_image(node.output);
        let layout = input.layout;
        let shape = self.dense_shape(outputs, layout.channels, [layout.height, layout.width]);
        let (epilogue, activation_step) = epilogue::lower_activation(activation, outputs);
        let weights = shape.pack_constant(weight, self.plan.kernels.element_bytes);
        let bias = per_output(bias, outputs);
        let work = FullyConnected {
            product: Product { input, residual, output, shape, weights, bias, epilogue },
        };
        let reads = [Some(input), residual].into_iter().flatten().map(|image| image.value);
        let draft = StepDraft {
            groups: shape.groups(),
            macs: weight.data().len() as u64,
            ..StepDraft::by_block(work, reads.collect(), &output)
        };
        let label = format!("{} {}→{outputs}", node.op.name(), weight.data().len() / outputs);
        self.push_step(label, draft);
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_fill(node.output));
    }

    /// Returns the image that a convolution reads, with the border it needs.
    fn convolution_input(&mut self, node: &'g Node, conv: &'g Conv) -> ImageRef {
        let id: ValueId = node.inputs[0];
        let image = match conv.window.pads {
            [0, 0, 0, 0] => self.blocked_image(id),
            _ => self.image_with_border(id, conv.border_values.as_ref()),
        };
        let output =
            image_shape(self.graph.shape(node.output)).expect("a convolution writes an image");
        assert_reads_inside(conv, &image, output);
        image
    }

    fn push_convolution(
        &mut self,
        node: &'g Node,
        draft: StepDraft,
        output: ImageRef,
        activation_step: Option<ActivationKind>,
        input: [usize; 3],
    ) {
        self.push_step(convolution_label(Self::convolution(node), input), draft);
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_fill(node.output));
    }
}

/// Panics if a tap of an output lies outside of the image and its border. The kernels test no
/// edges.
fn assert_reads_inside(conv: &Conv, image: &ImageRef, [_, height, width]: [usize; 3]) {
    let (layout, window) = (&image.layout, conv.window);
    let has_border = layout.border.iter().zip(&window.pads).all(|(border, pad)| border >= pad);
    assert!(has_border, "the border was planned for every reader");
    let [top, left, bottom, right] = window.pads;
    let sizes = [top + layout.height + bottom, left + layout.width + right];
    for (axis, outputs) in [height, width].into_iter().enumerate() {
        let end = (outputs - 1) * window.strides[axis] + window.kernel[axis];
        assert!(end <= sizes[axis], "the last window ends in the border");
    }
}

fn convolution_label(conv: &Conv, [channels, height, width]: [usize; 3]) -> String {
    let ([high, wide], [stride, _]) = (conv.window.kernel, conv.window.strides);
    let outputs = conv.out_channels();
    format!("Conv {high}×{wide}/{stride} {channels}→{outputs} @{height}×{width}")
}

fn bias(conv: &Conv) -> Buffer {
    per_output(conv.bias.as_ref(), conv.out_channels())
}

fn per_output(bias: Option<&Constant>, outputs: usize) -> Buffer {
    let zeros = vec![0.0; outputs];
    pack::per_channel(bias.map_or(zeros.as_slice(), Constant::data), 0.0)
}

fn macs(conv: &Conv, output: &ImageRef) -> u64 {
    let pixels = output.layout.height * output.layout.width;
    (conv.weight.data().len() * pixels) as u64
}
