//! Convolution, pooling and resizing.

use super::{check, count_to, omitted_input, op_model};
use crate::fixtures::{float_list, floats, int, ints, longs, string};
use crate::onnx::{AttributeProto, ModelProto, TensorProto};

/// Returns a convolution of opset 13 with the weight `w`.
fn conv(input: &[i64], shape: &[i64], w: &[f32], attributes: &[AttributeProto]) -> ModelProto {
    op_model(("Conv", 13), input, vec![floats("w", shape, w)], attributes)
}

#[test]
fn a_convolution_is_the_sum_of_its_taps() {
    let square = conv(&[1, 1, 3, 3], &[1, 1, 2, 2], &[1.0; 4], &[]);
    check(&square, &count_to(9), &[1, 2, 2], &[12.0, 16.0, 24.0, 28.0]);

    let weight = floats("w", &[2, 1, 1, 1], &[1.0, 2.0]);
    let bias = floats("b", &[2], &[0.5, -0.5]);
    let biased = op_model(("Conv", 13), &[1, 1, 1, 2], vec![weight, bias], &[]);
    check(&biased, &[1.0, 2.0], &[2, 1, 2], &[1.5, 2.5, 1.5, 3.5]);
}

#[test]
fn borders_strides_and_dilations_of_a_convolution_are_per_side_and_axis() {
    let left = [ints("pads", &[0, 1, 0, 0])];
    let bordered = conv(&[1, 1, 2, 2], &[1, 1, 1, 2], &[1.0, 10.0], &left);
    check(&bordered, &count_to(4), &[1, 2, 2], &[10.0, 21.0, 30.0, 43.0]);

    let below = [ints("pads", &[0, 0, 1, 0])];
    let bordered = conv(&[1, 1, 2, 1], &[1, 1, 2, 1], &[1.0, 10.0], &below);
    check(&bordered, &[1.0, 2.0], &[1, 2, 1], &[21.0, 2.0]);

    let strided = conv(&[1, 1, 2, 5], &[1, 1, 1, 1], &[2.0], &[ints("strides", &[1, 2])]);
    check(&strided, &count_to(10), &[1, 2, 3], &[2.0, 6.0, 10.0, 12.0, 16.0, 20.0]);

    let dilated = [ints("dilations", &[1, 2]), ints("kernel_shape", &[1, 2])];
    let dilated = conv(&[1, 1, 1, 5], &[1, 1, 1, 2], &[1.0, 10.0], &dilated);
    check(&dilated, &count_to(5), &[1, 1, 3], &[31.0, 42.0, 53.0]);
}

#[test]
fn automatic_padding_puts_the_odd_element_where_the_mode_says() {
    let modes = [
        ("VALID", vec![21.0, 32.0, 43.0]),
        ("SAME_UPPER", vec![21.0, 32.0, 43.0, 4.0]),
        ("SAME_LOWER", vec![10.0, 21.0, 32.0, 43.0]),
        ("NOTSET", vec![21.0, 32.0, 43.0]),
    ];
    for (mode, y) in modes {
        let attributes = [string("auto_pad", mode)];
        let network = conv(&[1, 1, 1, 4], &[1, 1, 1, 2], &[1.0, 10.0], &attributes);
        check(&network, &count_to(4), &[1, 1, y.len()], &y);
    }
    for (mode, y) in [("SAME_UPPER", [321.0, 43.0]), ("SAME_LOWER", [210.0, 432.0])] {
        let attributes = [string("auto_pad", mode), ints("strides", &[1, 2])];
        let network = conv(&[1, 1, 1, 4], &[1, 1, 1, 3], &[1.0, 10.0, 100.0], &attributes);
        check(&network, &count_to(4), &[1, 1, 2], &y);
    }
    let dilated = [string("auto_pad", "SAME_UPPER"), ints("dilations", &[1, 2])];
    let dilated = conv(&[1, 1, 1, 3], &[1, 1, 1, 2], &[1.0, 10.0], &dilated);
    check(&dilated, &count_to(3), &[1, 1, 3], &[20.0, 31.0, 2.0]);
}

#[test]
fn groups_of_a_convolution_are_independent() {
    let depthwise = conv(&[1, 2, 1, 2], &[2, 1, 1, 1], &[10.0, 100.0], &[int("group", 2)]);
    check(&depthwise, &count_to(4), &[2, 1, 2], &[10.0, 20.0, 300.0, 400.0]);

    let pairs = conv(&[1, 4, 1, 1], &[2, 2, 1, 1], &[1.0, 10.0, 1.0, 10.0], &[int("group", 2)]);
    check(&pairs, &count_to(4), &[2, 1, 1], &[21.0, 43.0]);

    let multiplied = conv(&[1, 2, 1, 1], &[4, 1, 1, 1], &count_to(4), &[int("group", 2)]);
    check(&multiplied, &[1.0, 2.0], &[4, 1, 1], &[1.0, 2.0, 6.0, 8.0]);
}

/// Returns a pool of opset 13 on one channel.
fn pool(op: &str, [height, width]: [i64; 2], attributes: &[AttributeProto]) -> ModelProto {
    op_model((op, 13), &[1, 1, height, width], Vec::new(), attributes)
}

#[test]
fn a_max_pool_returns_the_largest_element_and_ignores_its_border() {
    let kernel = ints("kernel_shape", &[2, 2]);
    let strides = ints("strides", &[2, 2]);
    let plain = pool("MaxPool", [3, 3], std::slice::from_ref(&kernel));
    check(&plain, &count_to(9), &[1, 2, 2], &[5.0, 6.0, 8.0, 9.0]);

    let floor = pool("MaxPool", [3, 3], &[kernel.clone(), strides.clone()]);
    check(&floor, &count_to(9), &[1, 1, 1], &[5.0]);

    let ceil = pool("MaxPool", [3, 3], &[kernel, strides, int("ceil_mode", 1)]);
    check(&ceil, &count_to(9), &[1, 2, 2], &[5.0, 6.0, 8.0, 9.0]);

    let row = ints("kernel_shape", &[1, 2]);
    let padded = pool("MaxPool", [1, 2], &[row.clone(), ints("pads", &[0, 1, 0, 1])]);
    check(&padded, &[-1.0, -2.0], &[1, 1, 3], &[-1.0, -1.0, -2.0]);

    let same = pool("MaxPool", [1, 3], &[row, string("auto_pad", "SAME_UPPER")]);
    check(&same, &[-3.0, -2.0, -1.0], &[1, 1, 3], &[-2.0, -1.0, -1.0]);
}

#[test]
fn an_average_pool_counts_its_border_only_with_count_include_pad() {
    let kernel = ints("kernel_shape", &[1, 2]);
    let plain = pool("AveragePool", [1, 3], std::slice::from_ref(&kernel));
    check(&plain, &count_to(3), &[1, 1, 2], &[1.5, 2.5]);

    let pads = ints("pads", &[0, 1, 0, 1]);
    let without = pool("AveragePool", [1, 3], &[kernel.clone(), pads.clone()]);
    check(&without, &count_to(3), &[1, 1, 4], &[1.0, 1.5, 2.5, 3.0]);

    let counting = [kernel.clone(), pads, int("count_include_pad", 1)];
    let with = pool("AveragePool", [1, 3], &counting);
    check(&with, &count_to(3), &[1, 1, 4], &[0.5, 1.5, 2.5, 1.5]);

    let up = [kernel, ints("strides", &[1, 2]), int("ceil_mode", 1)];
    let ceil = pool("AveragePool", [1, 3], &up);
    check(&ceil, &count_to(3), &[1, 1, 2], &[1.5, 3.0]);
}

#[test]
fn a_global_average_pool_leaves_one_number_per_channel() {
    let network = op_model(("GlobalAveragePool", 13), &[1, 2, 1, 2], Vec::new(), &[]);
    check(&network, &count_to(4), &[2, 1, 1], &[1.5, 3.5]);
}

/// Returns a `Resize` of opset 13 by scales.
fn resize_by(input: &[i64], scales: [f32; 2], attributes: &[AttributeProto]) -> ModelProto {
    let scales = floats("scales", &[4], &[1.0, 1.0, scales[0], scales[1]]);
    op_model(("Resize", 13), input, vec![omitted_input(), scales], attributes)
}

/// Returns a `Resize` of opset 13 to sizes.
fn resize_to(input: &[i64], size: [i64; 2], attributes: &[AttributeProto]) -> ModelProto {
    let sizes = longs("sizes", &[1, input[1], size[0], size[1]]);
    op_model(("Resize", 13), input, vec![omitted_input(), omitted_input(), sizes], attributes)
}

#[test]
fn nearest_resizing_repeats_pixels_whatever_the_rule_is_called() {
    let rules = [
        vec![],
        vec![
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ],
        vec![string("coordinate_transformation_mode", "half_pixel")],
        vec![string("nearest_mode", "round_prefer_ceil")],
        vec![string("coordinate_transformation_mode", "pytorch_half_pixel")],
    ];
    let y = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 3.0, 3.0, 4.0, 4.0];
    for attributes in rules {
        let by = resize_by(&[1, 1, 2, 2], [2.0, 2.0], &attributes);
        check(&by, &count_to(4), &[1, 4, 4], &y);
        let to = resize_to(&[1, 1, 2, 2], [4, 4], &attributes);
        check(&to, &count_to(4), &[1, 4, 4], &y);
    }
    let wide = resize_by(&[1, 1, 1, 2], [1.0, 3.0], &[]);
    check(&wide, &[1.0, 2.0], &[1, 1, 6], &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
}

#[test]
fn linear_resizing_keeps_pixel_centres_or_corners() {
    let linear = string("mode", "linear");
    let mode = |name| string("coordinate_transformation_mode", name);
    let y = [1.0, 1.5, 2.5, 3.0];
    for name in ["half_pixel", "pytorch_half_pixel"] {
        let up = resize_by(&[1, 1, 2, 2], [2.0, 2.0], &[linear.clone(), mode(name)]);
        check(&up, &[1.0, 3.0, 1.0, 3.0], &[1, 4, 4], &[y; 4].concat());
    }
    let down = resize_to(&[1, 1, 1, 4], [1, 2], std::slice::from_ref(&linear));
    check(&down, &count_to(4), &[1, 1, 2], &[1.5, 3.5]);

    let uneven = resize_to(&[1, 1, 1, 2], [1, 3], std::slice::from_ref(&linear));
    check(&uneven, &[1.0, 4.0], &[1, 1, 3], &[1.0, 2.5, 4.0]);

    let corners = resize_to(&[1, 1, 1, 2], [1, 4], &[linear, mode("align_corners")]);
    check(&corners, &[1.0, 4.0], &[1, 1, 4], &[1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn the_older_forms_of_resizing_repeat_pixels() {
    let x = [1.0, 2.0];
    let y = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0];
    let scales: TensorProto = floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    for (op, opset) in [("Resize", 10), ("Upsample", 9)] {
        let network = op_model((op, opset), &[1, 1, 1, 2], vec![scales.clone()], &[]);
        check(&network, &x, &[1, 2, 4], &y);
    }
    let attributes = [float_list("scales", &scales.float_data), string("mode", "nearest")];
    let network = op_model(("Upsample", 7), &[1, 1, 1, 2], Vec::new(), &attributes);
    check(&network, &x, &[1, 2, 4], &y);
}
