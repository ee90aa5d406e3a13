//! Files that are not a supported network.

use bytes::Bytes;

use super::op_model;
use crate::fixtures::{floats, input_info, longs, node, refusal};
use crate::import;
use crate::onnx::tensor_proto::DataLocation;
use crate::onnx::{FunctionProto, GraphProto, ModelProto, SparseTensorProto, TensorProto};

/// Returns a valid model, for tests that break one property of it.
fn valid_model() -> ModelProto {
    op_model(("Add", 13), &[1, 2], vec![floats("c", &[2], &[1.0, 2.0])], &[])
}

/// Returns the error message for a valid model after `change`.
fn refusal_after(change: impl FnOnce(&mut ModelProto)) -> String {
    let mut broken = valid_model();
    change(&mut broken);
    refusal(&broken)
}

#[test]
fn files_that_are_no_network_are_refused() {
    assert_eq!(
        import(Bytes::from_static(b"not a model"), None).unwrap_err().to_string(),
        "not an ONNX file"
    );
    assert_eq!(refusal_after(|m| m.graph = None), "the file holds no graph");
    for version in [0, 6, 24] {
        let message = refusal_after(|m| m.opset_import[0].version = version);
        assert_eq!(message, format!("opset {version} is outside 7..=23"));
    }
    assert_eq!(refusal_after(|m| m.opset_import.clear()), "opset 0 is outside 7..=23");
    let functions = refusal_after(|m| m.functions.push(FunctionProto::default()));
    assert_eq!(functions, "the file holds functions, which are not supported");
    let sparse = |m: &mut ModelProto| {
        m.graph.as_mut().unwrap().sparse_initializer.push(SparseTensorProto::default());
    };
    assert_eq!(
        refusal_after(sparse),
        "the file holds sparse initialisers, which are not supported"
    );
}

#[test]
fn inputs_and_outputs_that_cannot_be_served_are_refused() {
    fn graph(model: &mut ModelProto) -> &mut GraphProto {
        model.graph.as_mut().unwrap()
    }
    let reads = |count| format!("the graph reads {count} inputs without data, it must read 1");
    assert_eq!(refusal_after(|m| graph(m).input.clear()), reads(0));
    let second = |m: &mut ModelProto| {
        graph(m).initializer.clear();
        graph(m).input.push(input_info("c", &[1, 2]));
    };
    assert_eq!(refusal_after(second), reads(2));
    let fixed = refusal_after(|m| graph(m).input[0] = input_info("x", &[4, 2]));
    assert_eq!(fixed, "input 'x': the batch size is 4, it must be 1 or symbolic");
    let open = refusal_after(|m| graph(m).input[0] = input_info("x", &[-1, -1]));
    assert_eq!(open, "input 'x': axis 1 is symbolic, the item shape must be given");
    let typeless = refusal_after(|m| graph(m).input[0].r#type = None);
    assert_eq!(typeless, "input 'x': the type is not a tensor of f32");
    assert_eq!(refusal_after(|m| graph(m).output.clear()), "the graph has no outputs");
    let unknown = refusal_after(|m| graph(m).output.push(input_info("z", &[])));
    assert_eq!(unknown, "output 'z' is not computed from the input");
    let constant = refusal_after(|m| graph(m).output.push(input_info("c", &[])));
    assert_eq!(constant, "output 'c' is not computed from the input");
    let twice = refusal_after(|m| graph(m).output.push(input_info("y", &[])));
    assert_eq!(twice, "the name 'y' is given to two values");
    let stored_twice = refusal_after(|m| graph(m).initializer.push(longs("c", &[1])));
    assert_eq!(stored_twice, "the name 'c' is given to two values");
    let computed_twice = refusal_after(|m| graph(m).node.push(node("Neg", &["x"], "y", &[])));
    assert_eq!(computed_twice, "node 'y' (Neg): the value 'y' is computed twice");
    let later = refusal_after(|m| graph(m).node.insert(0, node("Neg", &["y"], "z", &[])));
    assert_eq!(later, "node 'z' (Neg): the value 'y' is read before it is computed");
}

#[test]
fn stored_tensors_that_cannot_be_read_are_refused() {
    let stored = |change: fn(&mut TensorProto)| {
        refusal_after(|m| change(&mut m.graph.as_mut().unwrap().initializer[0]))
    };
    let outside = stored(|t| t.data_location = DataLocation::External as i32);
    assert_eq!(outside, "node 'y' (Add): external data is not supported");
    let text = stored(|t| t.data_type = 8);
    assert_eq!(text, "node 'y' (Add): element type 8 is not supported");
    let short = stored(|t| t.float_data.truncate(1));
    assert_eq!(short, "node 'y' (Add): 1 values are stored, the shape has 2");
    let negative = stored(|t| t.dims = vec![-2]);
    assert_eq!(negative, "initialiser 'c': the shape [-2] is not supported");
}
