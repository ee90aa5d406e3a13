//! Refused convolutions, pools and resizings of images.

use super::omitted_input;
use super::refusals::{IMAGE, assert_refused};
use crate::fixtures::{float_list, floats, int, ints, longs, model, node, refusal, string};
use crate::onnx::{AttributeProto, NodeProto};

#[test]
fn convolutions_that_do_not_fit_are_refused() {
    let conv = |shape: &[i64], attributes: &[AttributeProto], reason: &str| {
        let data = vec![1.0; shape.iter().product::<i64>() as usize];
        assert_refused(("Conv", 13), IMAGE, vec![floats("w", shape, &data)], attributes, reason);
    };
    conv(&[1, 2, 1, 1], &[int("group", 0)], "attribute 'group' has the unsupported value 0");
    conv(&[1, 2, 1, 1], &[int("group", -1)], "attribute 'group' has the unsupported value -1");
    conv(&[1, 1, 1, 1], &[int("group", 2)], "attribute 'group' has the unsupported value 2");
    conv(&[1, 3, 1, 1], &[], "input 1 has the unsupported shape [1, 3, 1, 1]");
    conv(&[1, 2, 1], &[], "input 1 has the unsupported shape [1, 2, 1]");
    conv(&[0, 2, 1, 1], &[], "input 1 has the unsupported shape [0, 2, 1, 1]");
    let kernel = [ints("kernel_shape", &[3, 3])];
    conv(&[1, 2, 1, 1], &kernel, "attribute 'kernel_shape' has the unsupported value [3, 3]");
    let strides = [ints("strides", &[0, 1])];
    conv(&[1, 2, 1, 1], &strides, "attribute 'strides' has the unsupported value [0, 1]");
    let one_axis = [ints("strides", &[2])];
    conv(&[1, 2, 1, 1], &one_axis, "attribute 'strides' has the unsupported value [2]");
    let pads = [ints("pads", &[1, 1])];
    conv(&[1, 2, 1, 1], &pads, "attribute 'pads' has the unsupported value [1, 1]");
    let mode = [string("auto_pad", "SAME")];
    conv(&[1, 2, 1, 1], &mode, "attribute 'auto_pad' has the unsupported value \"SAME\"");
    let both = [string("auto_pad", "SAME_UPPER"), ints("pads", &[1, 1, 1, 1])];
    conv(&[1, 2, 1, 1], &both, "attribute 'auto_pad' has the unsupported value \"SAME_UPPER\"");
    conv(&[1, 2, 5, 5], &[], "attribute 'kernel_shape' has the unsupported value [5, 5]");
    let huge = [ints("pads", &[1 << 26, 0, 0, 0])];
    let reason = "the result of shape [2, 67108868, 4] is empty or has too many elements";
    conv(&[1, 2, 1, 1], &huge, reason);

    let weight = floats("w", &[1, 2, 1, 1], &[1.0, 1.0]);
    let bias = floats("b", &[2], &[1.0, 1.0]);
    let reason = "input 2 has the unsupported shape [2]";
    assert_refused(("Conv", 13), IMAGE, vec![weight.clone(), bias], &[], reason);
    assert_refused(
        ("Conv", 13),
        &[1, 2, 4],
        vec![weight],
        &[],
        "input 0 has the unsupported shape [1, 2, 4]",
    );
    assert_refused(("Conv", 13), IMAGE, vec![], &[], "input 1 is missing");
    assert_refused(("Conv", 13), IMAGE, vec![longs("w", &[1])], &[], "input 1 must hold floats");
    let both_values = vec![node("Conv", &["x", "x"], "y", &[])];
    let message = refusal(&model(13, IMAGE, both_values, vec![]));
    assert_eq!(message, "node 'y' (Conv): input 1 must be a constant");
}

#[test]
fn pools_without_a_defined_result_are_refused() {
    let kernel = || ints("kernel_shape", &[2, 2]);
    let pool = |op, attributes: &[AttributeProto], reason: &str| {
        assert_refused((op, 13), IMAGE, vec![], attributes, reason);
    };
    pool("MaxPool", &[], "attribute 'kernel_shape' is missing");
    let dilated = [kernel(), ints("dilations", &[2, 2])];
    pool("MaxPool", &dilated, "attribute 'dilations' has the unsupported value [2, 2]");
    let order = [kernel(), int("storage_order", 1)];
    pool("MaxPool", &order, "attribute 'storage_order' has the unsupported value 1");
    let border = [kernel(), ints("pads", &[2, 0, 0, 0])];
    pool("AveragePool", &border, "attribute 'pads' has the unsupported value [2, 0, 0, 0]");
    let flag = [kernel(), int("ceil_mode", 2)];
    pool("AveragePool", &flag, "attribute 'ceil_mode' has the unsupported value 2");
    let both = [
        ints("kernel_shape", &[3, 3]),
        ints("strides", &[2, 2]),
        int("ceil_mode", 1),
        int("count_include_pad", 1),
    ];
    pool("AveragePool", &both, "attribute 'ceil_mode' has the unsupported value 1");
    let indices = NodeProto {
        output: ["y", "indices"].map(str::to_owned).to_vec(),
        ..node("MaxPool", &["x"], "y", &[kernel()])
    };
    let message = refusal(&model(13, IMAGE, vec![indices], vec![]));
    assert_eq!(message, "node 'y' (MaxPool): 2 outputs are not supported");
}

#[test]
fn resizing_other_than_the_standard_forms_is_refused() {
    let by = |scales: [f32; 4], attributes: &[AttributeProto], reason: &str| {
        let inputs = vec![omitted_input(), floats("s", &[4], &scales)];
        assert_refused(("Resize", 13), IMAGE, inputs, attributes, reason);
    };
    let twice = [1.0, 1.0, 2.0, 2.0];
    let mode = |mode| string("mode", mode);
    by(twice, &[mode("cubic")], "attribute 'mode' has the unsupported value \"cubic\"");
    let coordinates = |name| string("coordinate_transformation_mode", name);
    let linear = [mode("linear"), coordinates("asymmetric")];
    let reason = "attribute 'coordinate_transformation_mode' has the unsupported value";
    by(twice, &linear, &format!("{reason} \"asymmetric\""));
    by(twice, &[coordinates("tf_crop_and_resize")], &format!("{reason} \"tf_crop_and_resize\""));
    by(
        twice,
        &[string("nearest_mode", "up")],
        "attribute 'nearest_mode' has the unsupported value \"up\"",
    );
    by(
        twice,
        &[string("nearest_mode", "ceil"), coordinates("asymmetric")],
        "attribute 'nearest_mode' has the unsupported value \"ceil of asymmetric\"",
    );
    by([1.0, 1.0, 1.5, 1.5], &[], "the result of shape [6, 6] is empty or has too many elements");
    by([1.0, 1.0, 1.1, 1.1], &[], "input 2 has the unsupported value [1.0, 1.0, 1.1, 1.1]");
    by([1.0, 2.0, 2.0, 2.0], &[], "input 2 has the unsupported value [1.0, 2.0, 2.0, 2.0]");
    by([1.0, 1.0, 0.0, 1.0], &[], "input 2 has the unsupported value [1.0, 1.0, 0.0, 1.0]");
    let antialias = [mode("linear"), int("antialias", 1)];
    by(twice, &antialias, "attribute 'antialias' has the unsupported value 1");
    let outside = [int("exclude_outside", 1)];
    by(twice, &outside, "attribute 'exclude_outside' has the unsupported value 1");
    let policy = [string("keep_aspect_ratio_policy", "not_larger")];
    by(
        twice,
        &policy,
        "attribute 'keep_aspect_ratio_policy' has the unsupported value \"not_larger\"",
    );
    let to = |sizes: &[i64], reason: &str| {
        let inputs = vec![omitted_input(), omitted_input(), longs("sizes", sizes)];
        assert_refused(("Resize", 13), IMAGE, inputs, &[], reason);
    };
    to(&[1, 3, 8, 8], "input 3 has the unsupported value [1, 3, 8, 8]");
    to(&[1, 2, -8, 8], "input 3 has the unsupported value [1, 2, -8, 8]");
    let both = vec![omitted_input(), floats("s", &[4], &twice), longs("sizes", &[1, 2, 8, 8])];
    assert_refused(("Resize", 13), IMAGE, both, &[], "4 inputs, at most 3 are supported");
    let scales = [float_list("scales", &twice), mode("linear")];
    assert_refused(
        ("Upsample", 7),
        IMAGE,
        vec![],
        &scales,
        "attribute 'mode' has the unsupported value \"linear\"",
    );
}
