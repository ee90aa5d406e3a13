//! Matrix products, softmax and reductions.

use super::{check, count_to, op_model};
use crate::fixtures::{float, floats, int, ints, longs};

#[test]
fn a_gemm_is_a_product_with_its_factors_and_a_bias() {
    let b = floats("b", &[2, 3], &count_to(6));
    let plain = op_model(("Gemm", 13), &[1, 2], vec![b.clone()], &[]);
    check(&plain, &[1.0, 2.0], &[3], &[9.0, 12.0, 15.0]);

    let b_transposed = floats("b", &[3, 2], &count_to(6));
    let transposed = op_model(("Gemm", 13), &[1, 2], vec![b_transposed], &[int("transB", 1)]);
    check(&transposed, &[1.0, 2.0], &[3], &[5.0, 11.0, 17.0]);

    let factors = [float("alpha", 0.5), float("beta", 2.0)];
    for shape in [[3].as_slice(), &[1, 3]] {
        let c = floats("c", shape, &count_to(3));
        let scaled = op_model(("Gemm", 13), &[1, 2], vec![b.clone(), c], &factors);
        check(&scaled, &[1.0, 2.0], &[3], &[6.5, 10.0, 13.5]);
    }
    for shape in [[].as_slice(), &[1], &[1, 1]] {
        let shifted = vec![b.clone(), floats("c", shape, &[1.0])];
        let shifted = op_model(("Gemm", 13), &[1, 2], shifted, &[int("transA", 0)]);
        check(&shifted, &[1.0, 2.0], &[3], &[10.0, 13.0, 16.0]);
    }
}

#[test]
fn a_product_runs_along_the_last_axis_of_any_value() {
    let b = floats("b", &[2, 1], &[1.0, 10.0]);
    let flat = op_model(("MatMul", 13), &[1, 2], vec![b.clone()], &[]);
    check(&flat, &[1.0, 2.0], &[1], &[21.0]);
    let deep = op_model(("MatMul", 13), &[1, 3, 2], vec![b], &[]);
    check(&deep, &count_to(6), &[3, 1], &[21.0, 43.0, 65.0]);
}

#[test]
fn a_softmax_runs_over_one_axis_or_before_opset_13_over_all_axes_from_one_on() {
    let x = [1_f32, 3.0, 2.0, 2.0].map(f32::ln);
    let last = op_model(("Softmax", 13), &[1, 2, 2], Vec::new(), &[]);
    check(&last, &x, &[2, 2], &[0.25, 0.75, 0.5, 0.5]);
    let first = op_model(("Softmax", 13), &[1, 2, 2], Vec::new(), &[int("axis", 1)]);
    check(&first, &x, &[2, 2], &[1.0 / 3.0, 0.6, 2.0 / 3.0, 0.4]);
    let joined = op_model(("Softmax", 11), &[1, 2, 2], Vec::new(), &[]);
    check(&joined, &x, &[2, 2], &[0.125, 0.375, 0.25, 0.25]);
    let named = op_model(("Softmax", 11), &[1, 2, 2], Vec::new(), &[int("axis", -1)]);
    check(&named, &x, &[2, 2], &[0.25, 0.75, 0.5, 0.5]);
}

#[test]
fn large_numbers_do_not_overflow_a_softmax() {
    let network = op_model(("Softmax", 13), &[1, 2], Vec::new(), &[]);
    check(&network, &[1000.0, 1000.0], &[2], &[0.5, 0.5]);
}

#[test]
fn reductions_keep_their_axes_or_drop_them() {
    let reductions = [
        ("ReduceMean", [2.0, 3.0]),
        ("ReduceSum", [4.0, 6.0]),
        ("ReduceMax", [3.0, 4.0]),
        ("ReduceL2", [10_f32.sqrt(), 20_f32.sqrt()]),
    ];
    for (op, y) in reductions {
        let axes = ints("axes", &[1]);
        let kept = op_model((op, 11), &[1, 2, 2], Vec::new(), std::slice::from_ref(&axes));
        check(&kept, &count_to(4), &[1, 2], &y);
        let dropped = op_model((op, 11), &[1, 2, 2], Vec::new(), &[axes, int("keepdims", 0)]);
        check(&dropped, &count_to(4), &[2], &y);
        let input = op_model((op, 18), &[1, 2, 2], vec![longs("axes", &[-2])], &[]);
        check(&input, &count_to(4), &[1, 2], &y);
    }
    let both = [ints("axes", &[2, -3]), int("keepdims", 0)];
    let image = op_model(("ReduceMean", 13), &[1, 2, 2, 2], Vec::new(), &both);
    check(&image, &count_to(8), &[2], &[4.0, 5.0]);
}
