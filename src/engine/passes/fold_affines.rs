//! Folds affine operations, such as batch norm, into neighbouring weights.

use super::drop_dead;
use crate::constant::Constant;
use crate::graph::{Graph, Uses, ValueId};
use crate::op::{Affine, Conv, Linear, Op};
use crate::shape::element_count;

/// Folds each affine operation
/// - into the convolution or matrix product before it, or
/// - into the matrix product after it, also across a reshape,
///
/// if the value between them has no other reader.
/// [`fold_leading_affines`](fn@super::fold_leading_affines) folds affine operations before
/// convolutions, since those also change the border values.
pub(super) fn fold_affines(graph: Graph) -> Graph {
    drop_dead(fold_into_readers(fold_into_producers(graph)))
}

fn fold_into_producers(mut graph: Graph) -> Graph {
    let mut uses = Uses::of(&graph);
    for at in 0..graph.nodes.len() {
        let Op::Affine(affine) = &graph.nodes[at].op else { continue };
        let affine_input = graph.nodes[at].inputs[0];
        let Some(producer) = uses.sole_producer(affine_input) else { continue };
        let folded = match &graph.nodes[producer].op {
            Op::Conv(conv)
                if conv.activation.is_none() && graph.nodes[producer].inputs.len() == 1 =>
            {
                append_to_conv(conv, affine).map(Op::Conv)
            }
            Op::Linear(linear) => {
                append_to_linear(linear, affine, graph.shape(affine_input).len() - 1)
                    .map(Op::Linear)
            }
            _ => None,
        };
        let Some(folded) = folded else { continue };
        // The earlier node writes the output of the later node, which is dead from now on.
        let output = std::mem::replace(&mut graph.nodes[at].output, affine_input);
        graph.nodes[at].inputs[0] = output;
        graph.nodes[producer].op = folded;
        graph.nodes[producer].output = output;
        uses.swap_producers(affine_input, output);
    }
    graph
}

/// `(W x + b) × s + t = sW x + (bs + t)`, per output channel.
fn append_to_conv(conv: &Conv, affine: &Affine) -> Option<Conv> {
    let (scale, shift) = along_axis(affine, 0, conv.out_channels())?;
    let (weight, bias) = scale_outputs(&conv.weight, conv.bias.as_ref(), &scale, &shift);
    Some(Conv { weight, bias: Some(bias), ..conv.clone() })
}

fn append_to_linear(linear: &Linear, affine: &Affine, last_axis: usize) -> Option<Linear> {
    let (scale, shift) = along_axis(affine, last_axis, linear.out_len())?;
    let (weight, bias) = scale_outputs(&linear.weight, linear.bias.as_ref(), &scale, &shift);
    Some(Linear { weight, bias: Some(bias) })
}

fn along_axis(affine: &Affine, axis: usize, size: usize) -> Option<(Vec<f32>, Vec<f32>)> {
    Some((affine.scale.along(axis, size)?, affine.shift.along(axis, size)?))
}

fn scale_outputs(
    weight: &Constant,
    bias: Option<&Constant>,
    scale: &[f32],
    shift: &[f32],
) -> (Constant, Constant) {
    let out = weight.shape()[0];
    let per_out = element_count(&weight.shape()[1..]);
    let weights = weight.data().chunks_exact(per_out).zip(scale);
    let weights =
        weights.flat_map(|(weight_row, s)| weight_row.iter().map(move |w| w * s)).collect();
    let old = |o: usize| bias.map_or(0.0, |bias| bias.data()[o]);
    let biases = (0..out).map(|o| old(o) * scale[o] + shift[o]).collect();
    (Constant::new(weight.shape().to_vec(), weights), Constant::new(vec![out], biases))
}

fn fold_into_readers(mut graph: Graph) -> Graph {
    let uses = Uses::of(&graph);
    for at in 0..graph.nodes.len() {
        let Op::Linear(linear) = &graph.nodes[at].op else { continue };
        let product_input = graph.nodes[at].inputs[0];
        let Some(producer) = uses.sole_producer(product_input) else { continue };
        let has_reshape = matches!(graph.nodes[producer].op, Op::Reshape);
        let affine_at = match has_reshape {
            true => uses.sole_producer(graph.nodes[producer].inputs[0]),
            false => Some(producer),
        };
        let Some(affine_at) = affine_at else { continue };
        let Op::Affine(affine) = &graph.nodes[affine_at].op else { continue };
        let affine_input = graph.nodes[affine_at].inputs[0];
        let Some(folded) = prepend_to_linear(&graph, linear, affine, [affine_input, product_input])
        else {
            continue;
        };
        graph.nodes[at].op = Op::Linear(folded);
        let reader = if has_reshape { producer } else { at };
        graph.nodes[reader].inputs[0] = affine_input;
    }
    graph
}

/// `W (x × s + t) + b = (W s) x + (W t + b)`.
fn prepend_to_linear(
    graph: &Graph,
    linear: &Linear,
    affine: &Affine,
    [affine_input, product_input]: [ValueId; 2],
) -> Option<Linear> {
    let (out, width) = (linear.out_len(), linear.in_len());
    let is_flattened =
        graph.shape(product_input).last() == Some(&element_count(graph.shape(affine_input)));
    let last_axis = graph.shape(affine_input).len().checked_sub(1)?;
    let (scale, shift) = match is_flattened {
        true => {
            let spread = |c: &Constant| c.expand(graph.shape(affine_input)).data().to_vec();
            (spread(&affine.scale), spread(&affine.shift))
        }
        false if graph.shape(affine_input) == graph.shape(product_input) => {
            along_axis(affine, last_axis, width)?
        }
        false => return None,
    };
    let weight_rows = linear.weight.data().chunks_exact(width);
    let bias = weight_rows.clone().enumerate().map(|(o, weight_row)| {
        let old = linear.bias.as_ref().map_or(0.0, |bias| f64::from(bias.data()[o]));
        let products = weight_row.iter().zip(&shift).map(|(&w, &t)| f64::from(w) * f64::from(t));
        (old + products.sum::<f64>()) as f32
    });
    let bias = Constant::new(vec![out], bias.collect());
    let weight = weight_rows
        .flat_map(|weight_row| weight_row.iter().zip(&scale).map(|(w, s)| w * s))
        .collect();
    Some(Linear { weight: Constant::new(vec![out, width], weight), bias: Some(bias) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{
        assert_close, floats, graph_of, ints, longs, model, node, noise, run_on_noise,
    };
    use crate::onnx::{NodeProto, TensorProto};

    fn constants() -> Vec<TensorProto> {
        vec![
            floats("w", &[2, 2, 3, 3], &noise(1, 36)),
            floats("fc", &[8, 3], &noise(2, 24)),
            floats("three", &[3], &[0.5, -2.0, 1.5]),
            floats("channels", &[2, 1, 1], &[1.5, -0.5]),
            floats("columns", &[4], &[1.0, 2.0, 3.0, 4.0]),
            longs("split", &[-1, 2, 8]),
        ]
    }

    fn check(nodes: Vec<NodeProto>, expected_counts: &[(&'static str, usize)]) {
        let graph = graph_of(&model(13, &[1, 2, 2, 4], nodes, constants()));
        let expected = run_on_noise(&graph, 2);
        let graph = fold_affines(graph);
        assert_eq!(graph.op_counts().into_iter().collect::<Vec<_>>(), expected_counts);
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-5);
    }

    #[test]
    fn an_affine_after_a_convolution_is_folded() {
        let nodes = vec![
            node("Conv", &["x", "w"], "c", &[ints("pads", &[1, 1, 1, 1])]),
            node("Mul", &["c", "channels"], "m", &[]),
            node("Add", &["m", "channels"], "y", &[]),
        ];
        check(nodes, &[("Conv", 1)]);
    }

    #[test]
    fn an_affine_that_is_not_per_channel_stays() {
        let nodes = vec![
            node("Conv", &["x", "w"], "c", &[ints("pads", &[1, 1, 1, 1])]),
            node("Mul", &["c", "columns"], "y", &[]),
        ];
        check(nodes, &[("Affine", 1), ("Conv", 1)]);
    }

    #[test]
    fn an_affine_before_a_convolution_stays() {
        let nodes = vec![
            node("Add", &["x", "channels"], "a", &[]),
            node("Conv", &["a", "w"], "y", &[ints("pads", &[1, 1, 1, 1])]),
        ];
        check(nodes, &[("Affine", 1), ("Conv", 1)]);
    }

    #[test]
    fn a_convolution_with_another_reader_stays() {
        let nodes = vec![
            node("Conv", &["x", "w"], "c", &[ints("pads", &[1, 1, 1, 1])]),
            node("Mul", &["c", "channels"], "m", &[]),
            node("Sub", &["c", "m"], "y", &[]),
        ];
        check(nodes, &[("Affine", 1), ("Conv", 1), ("Sub", 1)]);
    }

    #[test]
    fn an_affine_before_a_product_of_parts_of_an_item_stays() {
        let two_vectors_of_8 = vec![
            node("Mul", &["x", "channels"], "m", &[]),
            node("Add", &["m", "columns"], "a", &[]),
            node("Reshape", &["a", "split"], "rows", &[]),
            node("MatMul", &["rows", "fc"], "p", &[]),
            node("Mul", &["p", "three"], "y", &[]),
        ];
        // The reshape makes two vectors of eight per item. Only the affine after it can be folded.
        check(two_vectors_of_8, &[("Affine", 2), ("Linear", 1), ("Reshape", 1)]);
    }

    #[test]
    fn affines_around_a_product_of_the_flattened_item_are_folded() {
        let nodes = vec![
            node("Mul", &["x", "channels"], "m", &[]),
            node("Flatten", &["m"], "flat", &[]),
            node("MatMul", &["flat", "wide"], "p", &[]),
            node("Add", &["p", "three"], "y", &[]),
        ];
        let mut constants = constants();
        constants.push(floats("wide", &[16, 3], &noise(3, 48)));
        let graph = graph_of(&model(13, &[1, 2, 2, 4], nodes, constants));
        let expected = run_on_noise(&graph, 2);
        let graph = fold_affines(graph);
        assert_eq!(
            graph.op_counts().into_iter().collect::<Vec<_>>(),
            [("Linear", 1), ("Reshape", 1)]
        );
        assert_close(&run_on_noise(&graph, 2), &expected, 1e-5);
    }
}
