//! Converts ONNX bytes to a typed graph of one item.
//!
//! The importer tracks the batch axis of each ONNX value and strips it. Values that depend only on
//! shapes are evaluated at import. Everything unsupported is refused by name: the importer ignores
//! nothing that could change a result.

mod attributes;
mod constants;
mod context;
mod elementwise;
mod images;
mod input;
mod matrix;
mod moves;
mod quantised;
mod reduce;
mod reshape;
mod tensors;
#[cfg(test)]
mod tests;
mod window;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use prost::Message;

use self::context::{Importer, NodeContext, RuntimeValue, Value};
use self::tensors::{CONSTANT_ELEMENTS_MAX, stored_shape};
use super::error::{ImportError, NodeError};
use super::graph::{Graph, Output, ValueId, ValueInfo};
use crate::onnx::{GraphProto, ModelProto, NodeProto};

/// The oldest supported opset. The importer follows the rules of each operator from this version
/// on.
const OPSET_MIN: i64 = 7;
/// The newest supported opset. The importer was compared with the operators up to this version.
const OPSET_MAX: i64 = 23;

/// Imports an ONNX file.
///
/// `item_shape` is the item shape to import the network for. It may differ from the file's shape
/// in open sizes and in the height and width of an image. Without `item_shape`, the file's shape
/// is used.
///
/// # Errors
/// Returns an [`ImportError`] that names the input, initialiser, output or node, and the reason.
pub fn import(onnx: Bytes, item_shape: Option<&[usize]>) -> Result<Graph, ImportError> {
    let model = ModelProto::decode(onnx)?;
    let opset = opset(&model)?;
    if !model.functions.is_empty() {
        return Err(ImportError::Section("functions"));
    }
    let file = model.graph.as_ref().ok_or(ImportError::NoGraph)?;
    if !file.sparse_initializer.is_empty() {
        return Err(ImportError::Section("sparse initialisers"));
    }

    let mut importer = start_import(file, opset, item_shape)?;
    for node in &file.node {
        import_node(&mut importer, node).map_err(|reason| ImportError::Node {
            node: display_name(node),
            op: node.op_type.clone(),
            reason,
        })?;
    }
    collect_outputs(importer, file)
}

/// Returns the version of the default operators.
fn opset(model: &ModelProto) -> Result<i64, ImportError> {
    let default = model.opset_import.iter().find(|set| is_default_domain(&set.domain));
    let version = default.map_or(0, |set| set.version);
    if (OPSET_MIN..=OPSET_MAX).contains(&version) {
        Ok(version)
    } else {
        Err(ImportError::Opset { version, min: OPSET_MIN, max: OPSET_MAX })
    }
}

fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// Registers the initialisers and the input under their names.
fn start_import<'m>(
    file: &'m GraphProto,
    opset: i64,
    item_shape: Option<&[usize]>,
) -> Result<Importer<'m>, ImportError> {
    let mut values = HashMap::new();
    for tensor in &file.initializer {
        stored_shape(tensor)
            .map_err(|reason| ImportError::Initialiser { name: tensor.name.clone(), reason })?;
        if values.insert(tensor.name.as_str(), Value::Stored(tensor)).is_some() {
            return Err(ImportError::Duplicate(tensor.name.clone()));
        }
    }
    // Old IR versions list the initialisers among the inputs. Quantising tools leave inputs with
    // the names of the weights they replaced, which nothing reads.
    let read: HashSet<&str> = names_read(file).collect();
    let is_input = |name: &str| !values.contains_key(name) && read.contains(name);
    let inputs: Vec<_> = file.input.iter().filter(|input| is_input(&input.name)).collect();
    let [input] = inputs[..] else { return Err(ImportError::InputCount(inputs.len())) };
    let shape = input::item_shape(input, item_shape)
        .map_err(|reason| ImportError::Input { name: input.name.clone(), reason })?;

    let dims = std::iter::once(1).chain(shape.iter().copied()).collect();
    let value = RuntimeValue { id: ValueId(0), dims, batch_axis: Some(0) };
    values.insert(&input.name, Value::Runtime(value));
    let graph = Graph {
        values: vec![ValueInfo { name: input.name.clone(), shape }],
        nodes: Vec::new(),
        input: ValueId(0),
        outputs: Vec::new(),
    };
    Ok(Importer { opset, graph, values, constant_budget: CONSTANT_ELEMENTS_MAX })
}

/// Returns every name that a node reads or that is an output.
fn names_read(file: &GraphProto) -> impl Iterator<Item = &str> {
    let by_nodes = file.node.iter().flat_map(|node| &node.input).map(String::as_str);
    by_nodes.chain(file.output.iter().map(|output| output.name.as_str()))
}

/// Adds the outputs to the graph.
fn collect_outputs(importer: Importer<'_>, file: &GraphProto) -> Result<Graph, ImportError> {
    let Importer { mut graph, mut values, .. } = importer;
    for output in &file.output {
        match values.entry(&output.name) {
            // The entry is removed, so that a second output of this name is refused.
            Entry::Occupied(entry) => match entry.remove() {
                Value::Runtime(value) => {
                    graph.outputs.push(Output { name: output.name.clone(), value: value.id });
                }
                Value::Decoded(_) | Value::Stored(_) => {
                    return Err(ImportError::Output(output.name.clone()));
                }
            },
            Entry::Vacant(_) if graph.outputs.iter().any(|o| o.name == output.name) => {
                return Err(ImportError::Duplicate(output.name.clone()));
            }
            Entry::Vacant(_) => return Err(ImportError::Output(output.name.clone())),
        }
    }
    if graph.outputs.is_empty() { Err(ImportError::NoOutputs) } else { Ok(graph) }
}

fn display_name(node: &NodeProto) -> String {
    let first_output = node.output.first().cloned().unwrap_or_default();
    if node.name.is_empty() { first_output } else { node.name.clone() }
}

fn import_node<'m>(importer: &mut Importer<'m>, node: &'m NodeProto) -> Result<(), NodeError> {
    if !is_default_domain(&node.domain) {
        return Err(NodeError::Domain(node.domain.clone()));
    }
    let mut context = NodeContext::new(importer, node);
    if context.all_inputs_constant() && constants::can_evaluate(&node.op_type) {
        constants::evaluate(&mut context)?;
    } else {
        import_operator(&mut context)?;
    }
    context.attributes.refuse_unread()
}

/// Calls the importer of the node's operator.
fn import_operator(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    match node.proto.op_type.as_str() {
        "Add" | "Sub" | "Mul" | "Div" => elementwise::binary(node),
        "Pow" => elementwise::pow(node),
        "Neg" => elementwise::negate(node),
        "Relu" | "Sigmoid" | "HardSwish" | "Tanh" | "Exp" | "Sqrt" | "Abs" => {
            elementwise::activation(node)
        }
        "LeakyRelu" => elementwise::leaky_relu(node),
        "HardSigmoid" => elementwise::hard_sigmoid(node),
        "Clip" => elementwise::clip(node),
        "PRelu" => elementwise::prelu(node),
        "BatchNormalization" => elementwise::batch_normalization(node),
        "Identity" => elementwise::identity(node),
        "Dropout" => elementwise::dropout(node),
        "Cast" => elementwise::cast(node),

        "Conv" => images::conv(node),
        "MaxPool" => images::max_pool(node),
        "AveragePool" => images::average_pool(node),
        "GlobalAveragePool" => images::global_average_pool(node),
        "Resize" => images::resize(node),
        "Upsample" => images::upsample(node),

        "Gemm" => matrix::gemm(node),
        "MatMul" => matrix::matmul(node),

        "Softmax" => reduce::softmax(node),
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceL2" => reduce::reduce(node),

        "Reshape" => reshape::reshape(node),
        "Flatten" => reshape::flatten(node),
        "Squeeze" => reshape::squeeze(node),
        "Unsqueeze" => reshape::unsqueeze(node),
        "Transpose" => moves::transpose(node),
        "Concat" => moves::concat(node),
        "Slice" => moves::slice(node),
        "Split" => moves::split(node),
        "Gather" => moves::gather(node),
        "Expand" => reshape::expand(node),
        "Pad" => moves::pad(node),

        "Shape" => constants::shape(node),
        "Constant" => constants::constant(node),
        "DequantizeLinear" => quantised::dequantize_linear(node),
        _ => Err(NodeError::UnknownOp),
    }
}
