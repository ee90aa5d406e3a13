//! The context in which an operator is imported: one node, its inputs and the graph so far.

use std::collections::HashMap;
use std::sync::Arc;

use super::attributes::Attributes;
use super::tensors::{CONSTANT_ELEMENTS_MAX, DecodedTensor, decode, stored_shape};
use crate::constant::Constant;
use crate::error::NodeError;
use crate::graph::{Graph, Node, ValueId};
use crate::onnx::{NodeProto, TensorProto};
use crate::op::Op;
use crate::shape::{RANK_MAX, VALUE_ELEMENTS_MAX, checked_element_count, pad_rank};

/// The meaning of a name in the file.
#[derive(Clone)]
pub(super) enum Value<'m> {
    /// Depends on the input of the network.
    Runtime(RuntimeValue),
    /// Known at import.
    Decoded(Arc<DecodedTensor>),
    /// Known at import. Decoded when an operator reads it.
    Stored(&'m TensorProto),
}

/// A value that depends on the input of the network.
#[derive(Debug, Clone)]
pub(super) struct RuntimeValue {
    pub(super) id: ValueId,
    /// The ONNX shape at a batch of one, batch axis included.
    pub(super) dims: Vec<usize>,
    /// Index of the batch axis in `dims`. `None` if the value has no batch axis any more, for
    /// example after a reshape; `dims` is then the item shape.
    pub(super) batch_axis: Option<usize>,
}

impl RuntimeValue {
    /// Converts an ONNX axis to an axis of the item. Refuses the batch axis.
    pub(super) fn item_axis(&self, axis: usize) -> Result<usize, NodeError> {
        match self.batch_axis {
            Some(batch_axis) if axis == batch_axis => Err(NodeError::MixesItems(axis)),
            Some(batch_axis) if axis > batch_axis => Ok(axis - 1),
            _ => Ok(axis),
        }
    }

    /// Returns per-axis sizes or amounts without the entry of the batch axis.
    pub(super) fn strip_batch<T: Clone>(&self, per_axis: &[T]) -> Vec<T> {
        strip_axis(per_axis, self.batch_axis)
    }
}

/// Returns `per_axis` without the entry of `stripped_axis`. `None` strips nothing.
pub(super) fn strip_axis<T: Clone>(per_axis: &[T], stripped_axis: Option<usize>) -> Vec<T> {
    let kept = per_axis.iter().enumerate().filter(|&(axis, _)| Some(axis) != stripped_axis);
    kept.map(|(_, entry)| entry.clone()).collect()
}

/// The graph so far, and the values of all names.
pub(super) struct Importer<'m> {
    pub(super) opset: i64,
    pub(super) graph: Graph,
    pub(super) values: HashMap<&'m str, Value<'m>>,
    /// Number of elements that further constants may have in total.
    pub(super) constant_budget: usize,
}

/// One node, its inputs and the graph so far.
pub(super) struct NodeContext<'i, 'm> {
    pub(super) proto: &'m NodeProto,
    pub(super) attributes: Attributes<'m>,
    importer: &'i mut Importer<'m>,
}

impl<'i, 'm> NodeContext<'i, 'm> {
    pub(super) fn new(importer: &'i mut Importer<'m>, proto: &'m NodeProto) -> Self {
        Self { proto, attributes: Attributes::new(&proto.attribute), importer }
    }

    pub(super) fn opset(&self) -> i64 {
        self.importer.opset
    }

    /// Refuses a node with more than `max` inputs.
    pub(super) fn check_inputs_max(&self, max: usize) -> Result<(), NodeError> {
        let count = self.proto.input.len();
        if count > max { Err(NodeError::InputCount { count, max }) } else { Ok(()) }
    }

    pub(super) fn has_input(&self, index: usize) -> bool {
        self.proto.input.get(index).is_some_and(|name| !name.is_empty())
    }

    /// Returns true if the node has inputs and all of them are known at import.
    pub(super) fn all_inputs_constant(&self) -> bool {
        let mut names = self.proto.input.iter().filter(|name| !name.is_empty()).peekable();
        names.peek().is_some()
            && names.all(|name| {
                let value = self.importer.values.get(name.as_str());
                matches!(value, Some(Value::Decoded(_) | Value::Stored(_)))
            })
    }

    pub(super) fn value(&self, index: usize) -> Result<Value<'m>, NodeError> {
        let name = self.proto.input.get(index).filter(|name| !name.is_empty());
        let name = name.ok_or(NodeError::InputMissing(index))?;
        let value = self.importer.values.get(name.as_str());
        value.cloned().ok_or_else(|| NodeError::Undefined(name.clone()))
    }

    /// Returns an input that depends on the input of the network.
    pub(super) fn runtime_value(&self, index: usize) -> Result<RuntimeValue, NodeError> {
        match self.value(index)? {
            Value::Runtime(value) => Ok(value),
            Value::Decoded(_) | Value::Stored(_) => Err(NodeError::UnexpectedConstant(index)),
        }
    }

    /// Returns an image `[1, channels, height, width]` that depends on the input of the network.
    pub(super) fn image(&mut self, index: usize) -> Result<RuntimeValue, NodeError> {
        let value = self.runtime_value(index)?;
        if value.dims.len() != 4 {
            return Err(NodeError::Shape { input: index, shape: value.dims });
        }
        self.batch_first(index, value)
    }

    /// Returns the value with its first axis as the batch axis. If the first axis is not the batch
    /// axis yet, it must have size 1.
    pub(super) fn batch_first(
        &mut self,
        index: usize,
        value: RuntimeValue,
    ) -> Result<RuntimeValue, NodeError> {
        match (value.batch_axis, value.dims.first()) {
            (Some(0), _) => Ok(value),
            (_, Some(1)) => self.reshape(&value, value.dims.clone(), Some(0)),
            _ => Err(NodeError::Shape { input: index, shape: value.dims }),
        }
    }

    /// Returns an input that is known at import.
    pub(super) fn decoded_tensor(&mut self, index: usize) -> Result<Arc<DecodedTensor>, NodeError> {
        match self.value(index)? {
            Value::Runtime(_) => Err(NodeError::NotConstant(index)),
            Value::Decoded(decoded) => Ok(decoded),
            Value::Stored(tensor) => Ok(Arc::new(self.decode(tensor)?)),
        }
    }

    /// Returns the elements of a known input of integers. Its shape does not matter.
    pub(super) fn ints(&mut self, index: usize) -> Result<Vec<i64>, NodeError> {
        let decoded = self.decoded_tensor(index)?;
        let ints = decoded.as_ints().map(<[i64]>::to_vec);
        ints.ok_or(NodeError::ElementType { input: index, expected: "integers" })
    }

    /// Returns a known input of floats.
    pub(super) fn constant(&mut self, index: usize) -> Result<Constant, NodeError> {
        let decoded = self.decoded_tensor(index)?;
        self.charge(decoded.len())?;
        decoded.to_constant().ok_or(NodeError::ElementType { input: index, expected: "floats" })
    }

    /// Returns a known input of one float.
    pub(super) fn scalar(&mut self, index: usize) -> Result<f32, NodeError> {
        let constant = self.constant(index)?;
        match constant.data() {
            [value] => Ok(*value),
            _ => Err(NodeError::Shape { input: index, shape: constant.shape().to_vec() }),
        }
    }

    /// Returns a known input that broadcasts to `value` and does not enlarge it. The result has the
    /// axes of an item.
    pub(super) fn broadcast_constant(
        &mut self,
        index: usize,
        value: &RuntimeValue,
    ) -> Result<Constant, NodeError> {
        let constant = self.constant(index)?;
        let refused = || NodeError::Shape { input: index, shape: constant.shape().to_vec() };
        let shape = pad_rank(constant.shape(), value.dims.len());
        let fits = shape.len() == value.dims.len()
            && shape.iter().zip(&value.dims).all(|(&c, &size)| c == 1 || c == size);
        if !fits {
            return Err(refused());
        }
        Ok(constant.reshape(value.strip_batch(&shape)))
    }

    /// Resolves an axis. A negative axis counts from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, NodeError> {
        let resolved = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        let resolved = resolved.and_then(|axis| usize::try_from(axis).ok());
        resolved.filter(|&axis| axis < rank).ok_or(NodeError::Axis { axis, rank })
    }

    /// Adds an operation to the graph. `dims` is the ONNX shape of its result at a batch of one.
    pub(super) fn emit(
        &mut self,
        op: Op,
        inputs: &[&RuntimeValue],
        dims: Vec<usize>,
        batch_axis: Option<usize>,
    ) -> Result<RuntimeValue, NodeError> {
        let fits =
            checked_element_count(&dims).is_some_and(|n| (1..=VALUE_ELEMENTS_MAX).contains(&n));
        if !fits || dims.len() > RANK_MAX {
            return Err(NodeError::ResultSize(dims));
        }
        debug_assert!(batch_axis.is_none_or(|axis| dims[axis] == 1), "the batch is one at import");
        let name = self.proto.output.first().cloned().unwrap_or_default();
        let output = self.importer.graph.add_value(name, strip_axis(&dims, batch_axis));
        let inputs = inputs.iter().map(|value| value.id).collect();
        self.importer.graph.nodes.push(Node { op, inputs, output });
        Ok(RuntimeValue { id: output, dims, batch_axis })
    }

    /// Returns the same elements with another shape or another batch axis.
    pub(super) fn reshape(
        &mut self,
        value: &RuntimeValue,
        dims: Vec<usize>,
        batch_axis: Option<usize>,
    ) -> Result<RuntimeValue, NodeError> {
        if value.strip_batch(&value.dims) == strip_axis(&dims, batch_axis) {
            return Ok(RuntimeValue { id: value.id, dims, batch_axis });
        }
        self.emit(Op::Reshape, &[value], dims, batch_axis)
    }

    /// Turns the batch axis into an ordinary axis of size 1.
    pub(super) fn batch_as_ordinary_axis(
        &mut self,
        value: RuntimeValue,
    ) -> Result<RuntimeValue, NodeError> {
        match value.batch_axis {
            None => Ok(value),
            Some(_) => self.reshape(&value, value.dims.clone(), None),
        }
    }

    /// Sets the value of the node's only output.
    pub(super) fn define(&mut self, value: RuntimeValue) -> Result<(), NodeError> {
        self.define_all(vec![Value::Runtime(value)])
    }

    /// Sets the node's only output to a tensor that is known at import.
    pub(super) fn define_decoded_tensor(
        &mut self,
        decoded: DecodedTensor,
    ) -> Result<(), NodeError> {
        self.define_all(vec![Value::Decoded(Arc::new(decoded))])
    }

    /// Sets the value of each output of the node.
    pub(super) fn define_all(&mut self, values: Vec<Value<'m>>) -> Result<(), NodeError> {
        if self.proto.output.len() != values.len() {
            return Err(NodeError::OutputCount(self.proto.output.len()));
        }
        for (name, value) in self.proto.output.iter().zip(values) {
            if name.is_empty() {
                return Err(NodeError::OutputCount(0));
            }
            if self.importer.values.insert(name, value).is_some() {
                return Err(NodeError::Redefined(name.clone()));
            }
        }
        Ok(())
    }

    /// Charges `count` elements to the budget for constants, before a constant is made.
    pub(super) fn charge(&mut self, count: usize) -> Result<(), NodeError> {
        let remaining = self.importer.constant_budget.checked_sub(count);
        self.importer.constant_budget =
            remaining.ok_or(NodeError::ConstantLimit(CONSTANT_ELEMENTS_MAX))?;
        Ok(())
    }

    /// Charges the elements of `shape` to the budget for constants, before a constant is made.
    pub(super) fn charge_shape(&mut self, shape: &[usize]) -> Result<(), NodeError> {
        if shape.len() > RANK_MAX {
            return Err(NodeError::ResultSize(shape.to_vec()));
        }
        self.charge(checked_element_count(shape).unwrap_or(usize::MAX))
    }

    pub(super) fn decode(&mut self, tensor: &TensorProto) -> Result<DecodedTensor, NodeError> {
        self.charge_shape(&stored_shape(tensor)?)?;
        Ok(decode(tensor)?)
    }
}
