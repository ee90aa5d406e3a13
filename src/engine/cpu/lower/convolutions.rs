//! Lowers convolutions and matrix products.

use super::kernel_kind::{Convolution, MatrixProduct};
use super::{Lowering, StepDraft, epilogue};
use crate::constant::Constant;
use crate::cpu::kernels::elementwise::ActivationKind;
use crate::cpu::lanes::LANES;
use crate::cpu::memory::MappedMemory;
use crate::cpu::pack::{self, ProductShape};
use crate::cpu::work::{
    Depthwise, Direct, Elementwise, FullyConnected, ImageRef, PackedEpilogue, Planar, Product,
    Strips, WINOGRAD_ROW_UNIT, Winograd, Work,
};
use crate::op::{BinaryOp, Conv};

impl<'g> Lowering<'g> {
    fn product_shape(&self, outputs: usize, inputs: usize, kernel: [usize; 2]) -> ProductShape {
        let kernels = self.plan.kernels;
        let (depth, tile_blocks) = (kernels.depth, kernels.tile_blocks);
        let pads_last_block = kernels.strips.is_some();
        ProductShape {
            outputs,
            inputs,
            kernel,
            block_channels: LANES,
            depth,
            tile_blocks,
            pads_last_block,
        }
    }

    pub(super) fn lower_planar(&mut self, convolution: &Convolution<'g>, channels_last: bool) {
        let conv = convolution.conv;
        let input = self.flat_buffers[&self.graph.input_id()];
        let channels = convolution.input.channels();
        let output = self.add_output_image(convolution.output);
        let shape = ProductShape {
            block_channels: 1,
            depth: 1,
            ..self.product_shape(conv.out_channels(), channels, conv.window.kernel)
        };
        let (epilogue, activation_step) =
            epilogue::split_activation(convolution.activation.as_ref());
        let border_values = conv.border_values.as_ref();
        let work = Planar {
            input,
            size: convolution.input.sides(),
            channels_last,
            output,
            shape,
            stride: conv.window.strides[0],
            pads: conv.window.pads,
            border_values: border_values
                .map_or(vec![0.0; channels], |values| values.data().to_vec()),
            weights: shape.pack_constant(&conv.weight, size_of::<f32>()),
            bias: bias(conv),
            epilogue,
        };
        let draft = StepDraft {
            groups: shape.groups(),
            macs: macs(conv, &output),
            ..StepDraft::by_block(work, vec![input], &output)
        };
        self.push_convolution(convolution, draft, output, activation_step);
    }

    pub(super) fn lower_direct(&mut self, convolution: &Convolution<'g>) {
        let (conv, kernels) = (convolution.conv, self.plan.kernels);
        let (outputs, inputs) = (conv.out_channels(), convolution.input.channels());
        let shape = self.product_shape(outputs, inputs, conv.window.kernel);
        let weights = shape.pack_constant(&conv.weight, kernels.element_bytes);
        let [top, left, ..] = conv.window.pads;
        self.lower_product(convolution, 1, shape, weights, |product| {
            let direct = Direct { product, stride: conv.window.strides[0], pads: [top, left] };
            match &kernels.strips {
                Some(strips) => Box::new(Strips { direct, kernels: strips }),
                None => Box::new(direct),
            }
        });
    }

    pub(super) fn lower_winograd(&mut self, convolution: &Convolution<'g>) {
        let conv = convolution.conv;
        let (outputs, inputs) = (conv.out_channels(), convolution.input.channels());
        let shape = ProductShape { depth: 1, ..self.product_shape(outputs, inputs, [1, 1]) };
        let weights = pack::winograd(&conv.weight, &shape);
        self.lower_product(convolution, WINOGRAD_ROW_UNIT, shape, weights, |product| {
            Box::new(Winograd { product })
        });
    }

    /// Lowers a convolution to a product with packed weights. `work` makes the step's work from the
    /// product.
    fn lower_product(
        &mut self,
        convolution: &Convolution<'g>,
        row_unit: usize,
        shape: ProductShape,
        weights: MappedMemory,
        work: impl FnOnce(Product) -> Box<dyn Work>,
    ) {
        let conv = convolution.conv;
        let input = self.convolution_input(convolution);
        let residual = convolution.residual.map(|image| self.blocked_image(image));
        let output = self.add_output_image(convolution.output);
        let (epilogue, activation_step) =
            epilogue::split_activation(convolution.activation.as_ref());
        let bias = bias(conv);
        let reads = [Some(input), residual].into_iter().flatten().map(|image| image.buffer);
        let draft = StepDraft {
            work: work(Product { input, residual, output, shape, weights, bias, epilogue }),
            reads: reads.collect(),
            writes: output.buffer,
            row_unit,
            groups: shape.groups(),
            macs: macs(conv, &output),
            is_whole: false,
        };
        self.push_convolution(convolution, draft, output, activation_step);
    }

    pub(super) fn lower_depthwise(&mut self, convolution: &Convolution<'g>) {
        let conv = convolution.conv;
        let input = self.convolution_input(convolution);
        let residual = convolution.residual.map(|image| self.blocked_image(image));
        let output = self.add_output_image(convolution.output);
        let [top, left, ..] = conv.window.pads;
        let (epilogue, activation_step) =
            epilogue::split_activation(convolution.activation.as_ref());
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
            weights: MappedMemory::from_slice(&pack::depthwise(&conv.weight, conv.out_channels())),
            bias: bias(conv),
            epilogue,
        };
        let draft = StepDraft {
            macs: macs(conv, &output),
            ..StepDraft::by_block(work, vec![input.buffer], &output)
        };
        self.push_step(convolution_label(convolution), draft);
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
            let reads = vec![output.buffer, residual.buffer];
            self.push_step("residual".to_owned(), StepDraft::by_block(work, reads, &output));
        }
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_values(convolution.output.id));
    }

    pub(super) fn lower_fully_connected(
        &mut self,
        name: &'static str,
        product: &MatrixProduct<'g>,
    ) {
        let MatrixProduct { weight, .. } = product;
        let outputs = product.output.channels();
        let input = self.blocked_image(product.input);
        let residual = product.residual.map(|image| self.blocked_image(image));
        let output = self.add_output_image(product.output);
        let shape = self.product_shape(outputs, product.input.channels(), product.input.sides());
        let (epilogue, activation_step) = epilogue::split_activation(product.activation.as_ref());
        let weights = shape.pack_constant(weight, self.plan.kernels.element_bytes);
        let bias = per_output(product.bias, outputs);
        let work = FullyConnected {
            product: Product { input, residual, output, shape, weights, bias, epilogue },
        };
        let reads = [Some(input), residual].into_iter().flatten().map(|image| image.buffer);
        let draft = StepDraft {
            groups: shape.groups(),
            macs: weight.data().len() as u64,
            ..StepDraft::by_block(work, reads.collect(), &output)
        };
        let label = format!("{name} {}→{outputs}", weight.data().len() / outputs);
        self.push_step(label, draft);
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_values(product.output.id));
    }

    /// Returns the image that a convolution reads, with the border it needs.
    fn convolution_input(&mut self, convolution: &Convolution<'g>) -> ImageRef {
        let Convolution { conv, input, output, .. } = convolution;
        let image = match conv.window.pads {
            [0, 0, 0, 0] => self.blocked_image(*input),
            _ => self.image_with_border(*input, conv.border_values.as_ref()),
        };
        assert_reads_inside(conv, &image, output.sides());
        image
    }

    fn push_convolution(
        &mut self,
        convolution: &Convolution<'g>,
        draft: StepDraft,
        output: ImageRef,
        activation_step: Option<ActivationKind>,
    ) {
        self.push_step(convolution_label(convolution), draft);
        self.push_activation(output, activation_step);
        self.push_border(output, self.analysis.border_values(convolution.output.id));
    }
}

/// Panics if a tap of an output lies outside of the image and its border. The kernels do
/// not test taps for edges.
fn assert_reads_inside(conv: &Conv, image: &ImageRef, output_sides: [usize; 2]) {
    let (layout, window) = (&image.layout, conv.window);
    let has_border = layout.border.iter().zip(&window.pads).all(|(border, pad)| border >= pad);
    assert!(has_border, "the border was planned for every reader");
    let [top, left, bottom, right] = window.pads;
    let sizes = [top + layout.height + bottom, left + layout.width + right];
    for (axis, outputs) in output_sides.into_iter().enumerate() {
        let end = (outputs - 1) * window.strides[axis] + window.kernel[axis];
        assert!(end <= sizes[axis], "the last window ends in the border");
    }
}

fn convolution_label(Convolution { conv, input, .. }: &Convolution<'_>) -> String {
    let [channels, height, width] = input.shape;
    let ([high, wide], [stride, _]) = (conv.window.kernel, conv.window.strides);
    let outputs = conv.out_channels();
    format!("Conv {high}×{wide}/{stride} {channels}→{outputs} @{height}×{width}")
}

fn bias(conv: &Conv) -> MappedMemory {
    per_output(conv.bias.as_ref(), conv.out_channels())
}

fn per_output(bias: Option<&Constant>, outputs: usize) -> MappedMemory {
    let zeros = vec![0.0; outputs];
    pack::per_channel(bias.map_or(zeros.as_slice(), Constant::data), 0.0)
}

fn macs(conv: &Conv, output: &ImageRef) -> u64 {
    let pixels = output.layout.height * output.layout.width;
    (conv.weight.data().len() * pixels) as u64
}
