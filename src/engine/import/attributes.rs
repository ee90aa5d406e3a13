//! The attributes of one node. The importer of the operator must read each of them. An attribute
//! that stays unread is refused, so that no attribute is ever ignored.

use crate::error::NodeError;
use crate::onnx::attribute_proto::AttributeType;
use crate::onnx::{AttributeProto, TensorProto};

/// Reads attributes and remembers which ones were read.
pub(super) struct Attributes<'m> {
    all: &'m [AttributeProto],
    is_read: Vec<bool>,
}

impl<'m> Attributes<'m> {
    pub(super) fn new(all: &'m [AttributeProto]) -> Self {
        Self { all, is_read: vec![false; all.len()] }
    }

    pub(super) fn int(&mut self, name: &'static str) -> Result<Option<i64>, NodeError> {
        Ok(self.read(name, AttributeType::Int)?.map(|a| a.i))
    }

    pub(super) fn float(&mut self, name: &'static str) -> Result<Option<f32>, NodeError> {
        Ok(self.read(name, AttributeType::Float)?.map(|a| a.f))
    }

    pub(super) fn ints(&mut self, name: &'static str) -> Result<Option<&'m [i64]>, NodeError> {
        Ok(self.read(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    pub(super) fn floats(&mut self, name: &'static str) -> Result<Option<&'m [f32]>, NodeError> {
        Ok(self.read(name, AttributeType::Floats)?.map(|a| a.floats.as_slice()))
    }

    pub(super) fn tensor(
        &mut self,
        name: &'static str,
    ) -> Result<Option<&'m TensorProto>, NodeError> {
        Ok(self.read(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()))
    }

    /// Reads a string, which must be UTF-8.
    pub(super) fn string(&mut self, name: &'static str) -> Result<Option<&'m str>, NodeError> {
        let Some(attribute) = self.read(name, AttributeType::String)? else { return Ok(None) };
        let text = std::str::from_utf8(&attribute.s);
        text.map(Some).map_err(|_| NodeError::AttributeType(name.to_owned()))
    }

    /// Reads an integer flag. Returns `default` if the attribute is missing.
    pub(super) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, NodeError> {
        match self.int(name)? {
            None => Ok(default),
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(value) => Err(unsupported(name, value)),
        }
    }

    /// Reads an attribute that has no effect at inference, and ignores its value.
    pub(super) fn ignore_float(&mut self, name: &'static str) -> Result<(), NodeError> {
        self.float(name).map(|_| ())
    }

    /// Reads an integer that must be missing or have its default value.
    pub(super) fn require_int(
        &mut self,
        name: &'static str,
        default: i64,
    ) -> Result<(), NodeError> {
        match self.int(name)? {
            Some(value) if value != default => Err(unsupported(name, value)),
            _ => Ok(()),
        }
    }

    /// Refuses the node if an attribute was not read.
    pub(super) fn refuse_unread(&self) -> Result<(), NodeError> {
        match self.is_read.iter().position(|is_read| !is_read) {
            Some(at) => Err(NodeError::UnknownAttribute(self.all[at].name.clone())),
            None => Ok(()),
        }
    }

    fn read(
        &mut self,
        name: &'static str,
        kind: AttributeType,
    ) -> Result<Option<&'m AttributeProto>, NodeError> {
        let Some(at) = self.all.iter().position(|a| a.name == name) else { return Ok(None) };
        let attribute = &self.all[at];
        if attribute.r#type != kind as i32 || !attribute.ref_attr_name.is_empty() {
            return Err(NodeError::AttributeType(name.to_owned()));
        }
        self.is_read[at] = true;
        Ok(Some(attribute))
    }
}

/// Returns the error for a known attribute with an unsupported value.
pub(super) fn unsupported(name: &'static str, value: impl std::fmt::Debug) -> NodeError {
    NodeError::AttributeValue { name, value: format!("{value:?}") }
}
