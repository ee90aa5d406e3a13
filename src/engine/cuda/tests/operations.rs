//! Tests every operation of a graph, with inputs in both layouts.

use super::{gpu, gpu_with};
use crate::Precision;
use crate::cuda::Gpu;
use crate::fixtures::{self, NetworkBuilder, float, inputs, int, ints, largest_errors, string};
use crate::onnx::AttributeProto;

const ITEMS: usize = 3;

/// An operation that reads `x` and named constants and writes `y`.
struct Case {
    op: &'static str,
    /// Shape of `x` without the batch axis.
    input: &'static [usize],
    constants: Vec<(&'static str, Constant)>,
    attributes: Vec<AttributeProto>,
}

#[derive(Clone)]
enum Constant {
    Longs(&'static [i64]),
    Floats(&'static [f32]),
    Noise(&'static [usize]),
}

use Constant::{Floats, Longs, Noise};

fn case(op: &'static str, input: &'static [usize]) -> Case {
    Case { op, input, constants: Vec::new(), attributes: Vec::new() }
}

impl Case {
    fn constant(mut self, name: &'static str, constant: Constant) -> Self {
        self.constants.push((name, constant));
        self
    }

    fn with(mut self, attributes: &[AttributeProto]) -> Self {
        self.attributes.extend_from_slice(attributes);
        self
    }

    /// Adds the operation, which reads `from` instead of `x`.
    fn push(&self, draft: &mut NetworkBuilder, from: &str, to: &str) {
        let mut inputs = vec![from];
        for (name, constant) in &self.constants {
            inputs.push(name);
            match constant {
                Longs(numbers) => draft.longs(name, numbers),
                Floats(numbers) if numbers.len() == 1 => draft.numbers(name, &[], numbers),
                Floats(numbers) => draft.numbers(name, &[numbers.len()], numbers),
                Noise(shape) => draft.noise(name, shape, 0.5),
            }
        }
        draft.push(self.op, &inputs, to, &self.attributes);
    }
}

/// Images of six channels, which packed kernels cannot read, and of eight channels, which they can.
fn cases() -> Vec<Case> {
    let image: &[usize] = &[6, 5, 7];
    let packed: &[usize] = &[8, 6, 6];
    let mut cases = vec![
        case("Softmax", image).with(&[int("axis", 1)]),
        case("Softmax", image).with(&[int("axis", 3)]),
        case("Softmax", &[9]).with(&[int("axis", 1)]),
        case("Transpose", image).with(&[ints("perm", &[0, 2, 3, 1])]),
        case("Transpose", image).with(&[ints("perm", &[0, 3, 1, 2])]),
        case("Transpose", &[4, 5]).with(&[ints("perm", &[0, 2, 1])]),
        case("Reshape", image).constant("shape", Longs(&[1, 7, 30])),
        case("Flatten", image),
        case("Slice", image)
            .constant("starts", Longs(&[1]))
            .constant("ends", Longs(&[6]))
            .constant("axes", Longs(&[1]))
            .constant("steps", Longs(&[2])),
        case("Slice", image)
            .constant("starts", Longs(&[2]))
            .constant("ends", Longs(&[7]))
            .constant("axes", Longs(&[3])),
        case("Expand", &[6, 1, 7]).constant("shape", Longs(&[1, 6, 5, 7])),
        case("Pad", image).constant("amounts", Longs(&[0, 0, 1, 2, 0, 0, 3, 0])),
        case("Pad", packed)
            .constant("amounts", Longs(&[0, 0, 1, 1, 0, 0, 1, 1]))
            .constant("value", Floats(&[0.5])),
        case("Pad", image).constant("amounts", Longs(&[0, 2, 0, 0, 0, 1, 0, 0])),
        case("GlobalAveragePool", image),
        case("BatchNormalization", image)
            .constant("scale", Noise(&[6]))
            .constant("bias", Noise(&[6]))
            .constant("mean", Noise(&[6]))
            .constant("variance", Floats(&[0.5, 1.0, 2.0, 0.7, 0.9, 1.3])),
        case("Add", image).constant("b", Noise(&[1, 1, 5, 1])),
        case("Mul", image).constant("b", Noise(&[1, 6, 5, 7])),
        case("PRelu", image).constant("slopes", Noise(&[6, 1, 1])),
        case("LeakyRelu", image).with(&[float("alpha", 0.3)]),
        case("HardSigmoid", image).with(&[float("alpha", 0.3), float("beta", 0.4)]),
        case("Clip", packed).constant("min", Floats(&[-0.2])).constant("max", Floats(&[0.4])),
    ];
    for axes in [[2, 3], [1, 2]] {
        for op in ["ReduceMean", "ReduceMax", "ReduceL2"] {
            let attributes = [ints("axes", &axes), int("keepdims", 1)];
            cases.push(case(op, image).with(&attributes));
        }
    }
    for op in ["Relu", "Sigmoid", "HardSwish", "Tanh", "Exp", "Abs"] {
        cases.push(case(op, packed));
        cases.push(case(op, &[7]));
    }
    cases.extend(windows(image, packed));
    cases
}

fn windows(image: &'static [usize], packed: &'static [usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    for input in [image, packed] {
        let window = [ints("kernel_shape", &[3, 2]), ints("strides", &[2, 1])];
        cases.push(case("MaxPool", input).with(&window).with(&[ints("pads", &[1, 0, 0, 1])]));
        for counted in [0, 1] {
            let border = [ints("pads", &[1, 1, 1, 0]), int("count_include_pad", counted)];
            cases.push(case("AveragePool", input).with(&window).with(&border));
        }
        for (mode, coordinates) in
            [("nearest", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")]
        {
            let mut attributes =
                vec![string("mode", mode), string("coordinate_transformation_mode", coordinates)];
            attributes.extend((mode == "nearest").then(|| string("nearest_mode", "floor")));
            let resize = case("Resize", input)
                .constant("roi", Longs(&[]))
                .constant("scales", Floats(&[1.0, 1.0, 2.0, 2.0]));
            cases.push(resize.with(&attributes));
        }
    }
    let convolutions: [(&'static [usize], &'static [usize], &[AttributeProto]); 7] = [
        (image, &[5, 6, 1, 1], &[]),
        (image, &[5, 6, 1, 1], &[ints("strides", &[2, 2])]),
        (image, &[5, 6, 3, 2], &[ints("pads", &[1, 0, 2, 1]), ints("strides", &[1, 2])]),
        (packed, &[7, 8, 3, 3], &[ints("pads", &[2, 2, 2, 2]), ints("dilations", &[2, 2])]),
        (packed, &[12, 2, 3, 3], &[ints("pads", &[1, 1, 1, 1]), int("group", 4)]),
        (image, &[6, 1, 3, 3], &[ints("pads", &[1, 1, 1, 1]), int("group", 6)]),
        (packed, &[16, 1, 3, 3], &[ints("pads", &[0, 1, 1, 0]), int("group", 8)]),
    ];
    for (input, weight, attributes) in convolutions {
        cases.push(case("Conv", input).constant("weight", Noise(weight)).with(attributes));
    }
    cases
}

#[test]
fn gpu_every_operation_computes_what_the_reference_computes() {
    let gpu = gpu();
    for case in cases() {
        // Alone, and after a 1×1 convolution, which writes images with their channels last.
        for is_behind in [false, case.input.len() == 3] {
            let mut draft = NetworkBuilder::default();
            match (is_behind, case.input) {
                (true, &[channels, ..]) => {
                    draft.noise("before", &[channels, channels, 1, 1], 1.0);
                    draft.push("Conv", &["x", "before"], "behind", &[]);
                    case.push(&mut draft, "behind", "y");
                }
                _ => case.push(&mut draft, "x", "y"),
            }
            let graph = draft.graph(case.input);
            let input = inputs(&graph, ITEMS);
            let expected = fixtures::run(&graph, ITEMS, &input);
            for (precision, difference_max) in
                [(Precision::F32, 1e-4), (Precision::Tf32, 0.02), (Precision::F16, 0.02)]
            {
                let network = gpu.load(&graph, precision, &[1, ITEMS]);
                let (difference, _) = largest_errors(&gpu.run(&graph, &network, &input), &expected);
                let (op, attributes) = (case.op, &case.attributes);
                assert!(
                    difference <= difference_max,
                    "{op} {attributes:?}, behind {is_behind}, {precision}: {difference:.1e}"
                );
            }
        }
    }
}

#[test]
fn gpu_values_of_different_layouts_are_combined() {
    let gpu = gpu();
    let mut draft = NetworkBuilder::default();
    draft.noise("weight", &[6, 6, 3, 3], 0.2);
    draft.push("Conv", &["x", "weight"], "a", &[ints("pads", &[1, 1, 1, 1])]);
    draft.push("GlobalAveragePool", &["a"], "mean", &[]);
    draft.push("Sub", &["a", "mean"], "b", &[]);
    draft.push("Exp", &["x"], "positive", &[]);
    draft.push("Div", &["b", "positive"], "c", &[]);
    draft.push("Concat", &["c", "x"], "channels", &[int("axis", 1)]);
    draft.push("Concat", &["b", "x"], "columns", &[int("axis", 3)]);
    let outputs = ["channels", "columns", "mean", "x again"];
    draft.push("Identity", &["x"], "x again", &[]);
    let graph = draft.graph_with(&[6, 5, 7], &outputs);
    let input = inputs(&graph, ITEMS);
    let expected = fixtures::run(&graph, ITEMS, &input);
    for (precision, difference_max) in
        [(Precision::F32, 1e-4), (Precision::Tf32, 0.02), (Precision::F16, 0.02)]
    {
        let network = gpu.load(&graph, precision, &[2]);
        let (difference, _) = largest_errors(&gpu.run(&graph, &network, &input), &expected);
        assert!(difference <= difference_max, "{precision}: {difference:.1e}");
    }
}

/// The emulated libraries round wherever they may. Real libraries need not.
#[test]
fn emulated_operands_are_rounded_in_tf32_and_never_in_f32() {
    for without_cudnn in [false, true] {
        let gpu = if without_cudnn { gpu_with(Gpu::without_cudnn) } else { gpu() };
        for side in [1, 3] {
            let mut draft = NetworkBuilder::default();
            draft.noise("weight", &[6, 6, side, side], 0.5);
            draft.push("Conv", &["x", "weight"], "y", &[]);
            let graph = draft.graph(&[6, 5, 7]);
            let input = inputs(&graph, 1);
            let expected = fixtures::run(&graph, 1, &input);
            let difference = |precision| {
                let network = gpu.load(&graph, precision, &[1]);
                largest_errors(&gpu.run(&graph, &network, &input), &expected).0
            };
            let [plain, rounded] = [Precision::F32, Precision::Tf32].map(difference);
            let how = format!("{side}×{side}, without cuDNN {without_cudnn}");
            assert!(plain < 1e-5 && rounded > 1e-5, "{how}: {plain:.1e}, {rounded:.1e}");
        }
    }
}

#[test]
fn gpu_nan_is_larger_than_every_number() {
    let (gpu, mut draft) = (gpu(), NetworkBuilder::default());
    draft.push("MaxPool", &["x"], "of a window", &[ints("kernel_shape", &[3, 3])]);
    draft.push("ReduceMax", &["x"], "of an image", &[ints("axes", &[2, 3])]);
    let graph = draft.graph_with(&[1, 3, 3], &["of a window", "of an image"]);
    for precision in [Precision::F32, Precision::F16] {
        let network = gpu.load(&graph, precision, &[1]);
        for at in 0..9 {
            let mut input = [1.0; 9];
            input[at] = f32::NAN;
            let found = gpu.run(&graph, &network, &input);
            assert!(found.iter().all(|y| y[0].is_nan()), "{precision}, at {at}: {found:?}");
        }
    }
}
