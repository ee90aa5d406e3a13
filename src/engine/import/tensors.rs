//! Tensors that are known at import: trained numbers, and integers computed from shapes.

use std::sync::Arc;

use crate::constant::Constant;
use crate::error::TensorError;
use crate::onnx::TensorProto;
use crate::onnx::tensor_proto::DataLocation;
use crate::shape::{RANK_MAX, broadcast_strides, checked_element_count, offsets, permute, strides};

/// Maximum number of elements of all constants of a file together: 1 GiB of `f32`. A 100-layer
/// residual network has a quarter of that.
pub(super) const CONSTANT_ELEMENTS_MAX: usize = 1 << 28;

/// Element types of the ONNX standard (`TensorProto.DataType`).
pub(super) mod element {
    pub(crate) const FLOAT: i32 = 1;
    pub(crate) const UINT8: i32 = 2;
    pub(crate) const INT8: i32 = 3;
    pub(crate) const UINT16: i32 = 4;
    pub(crate) const INT16: i32 = 5;
    pub(crate) const INT32: i32 = 6;
    pub(crate) const INT64: i32 = 7;
    pub(crate) const BOOL: i32 = 9;
    pub(crate) const FLOAT16: i32 = 10;
    pub(crate) const DOUBLE: i32 = 11;
    pub(crate) const UINT32: i32 = 12;
}

/// A dense tensor that is known at import.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DecodedTensor {
    pub(super) shape: Vec<usize>,
    pub(super) data: DecodedData,
}

/// Elements of a tensor. All float types are converted to `f32`, all integer types to `i64`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum DecodedData {
    /// Shared with the constants of the graph.
    Float(Arc<Vec<f32>>),
    Int(Vec<i64>),
}

impl DecodedTensor {
    pub(super) fn floats(shape: Vec<usize>, data: Vec<f32>) -> Self {
        Self { shape, data: DecodedData::Float(Arc::new(data)) }
    }

    /// Returns a tensor of one axis.
    pub(super) fn ints(data: Vec<i64>) -> Self {
        Self { shape: vec![data.len()], data: DecodedData::Int(data) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            DecodedData::Float(data) => data.len(),
            DecodedData::Int(data) => data.len(),
        }
    }

    pub(super) fn as_floats(&self) -> Option<&[f32]> {
        match &self.data {
            DecodedData::Float(data) => Some(data),
            DecodedData::Int(_) => None,
        }
    }

    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.data {
            DecodedData::Int(data) => Some(data),
            DecodedData::Float(_) => None,
        }
    }

    /// Returns the tensor as a constant of the graph, or `None` if it holds integers.
    pub(super) fn to_constant(&self) -> Option<Constant> {
        match &self.data {
            DecodedData::Float(data) => {
                Some(Constant::from_shared(self.shape.clone(), Arc::clone(data)))
            }
            DecodedData::Int(_) => None,
        }
    }

    /// Returns the elements at the offsets `at` with a new shape. All offsets must be inside the
    /// tensor.
    pub(super) fn gather(&self, shape: Vec<usize>, at: impl Iterator<Item = usize>) -> Self {
        let data = match &self.data {
            DecodedData::Float(data) => DecodedData::Float(Arc::new(at.map(|i| data[i]).collect())),
            DecodedData::Int(data) => DecodedData::Int(at.map(|i| data[i]).collect()),
        };
        Self { shape, data }
    }

    pub(super) fn transpose(&self, perm: &[usize]) -> Self {
        let shape = permute(&self.shape, perm);
        let read_strides = permute(&strides(&self.shape), perm);
        self.gather(shape.clone(), offsets(&shape, &read_strides))
    }

    /// Repeats elements along axes of size 1. The tensor must broadcast to `shape`.
    pub(super) fn expand(&self, shape: &[usize]) -> Self {
        let read_strides = broadcast_strides(&self.shape, shape);
        self.gather(shape.to_vec(), offsets(shape, &read_strides))
    }

    /// Returns the elements with another shape. The number of elements must be equal.
    pub(super) fn reshape(mut self, shape: Vec<usize>) -> Self {
        debug_assert_eq!(
            checked_element_count(&shape),
            Some(self.len()),
            "a reshape keeps the number of elements"
        );
        self.shape = shape;
        self
    }
}

/// Returns the shape of a stored tensor, if it is within the limits.
pub(super) fn stored_shape(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    let refused = || TensorError::Shape(tensor.dims.iter().take(RANK_MAX + 1).copied().collect());
    let sizes = tensor.dims.iter().map(|&size| usize::try_from(size));
    let shape = sizes.collect::<Result<Vec<_>, _>>().map_err(|_| refused())?;
    let fits = checked_element_count(&shape).is_some_and(|count| count <= CONSTANT_ELEMENTS_MAX);
    if !fits || shape.len() > RANK_MAX { Err(refused()) } else { Ok(shape) }
}

pub(super) fn decode(tensor: &TensorProto) -> Result<DecodedTensor, TensorError> {
    if holds_floats(tensor) {
        let shape = local_shape(tensor)?;
        let data = float_elements(tensor)?;
        check_length(&shape, data.len())?;
        return Ok(DecodedTensor::floats(shape, data));
    }
    let (shape, data) = decode_ints(tensor)?;
    Ok(DecodedTensor { shape, data: DecodedData::Int(data.collect()) })
}

/// Returns true if a stored tensor holds floats of any size.
pub(super) fn holds_floats(tensor: &TensorProto) -> bool {
    matches!(tensor.data_type, element::FLOAT | element::FLOAT16 | element::DOUBLE)
}

/// Returns shape and integers of a stored tensor.
pub(super) fn decode_ints(tensor: &TensorProto) -> Result<(Vec<usize>, IntIter<'_>), TensorError> {
    let shape = local_shape(tensor)?;
    let data = int_elements(tensor)?;
    check_length(&shape, data.len())?;
    Ok((shape, data))
}

/// Returns the shape of a tensor whose data is in the file itself.
fn local_shape(tensor: &TensorProto) -> Result<Vec<usize>, TensorError> {
    if tensor.data_location == DataLocation::Default as i32 {
        stored_shape(tensor)
    } else {
        Err(TensorError::External)
    }
}

/// Refuses data whose length does not match the shape.
fn check_length(shape: &[usize], found: usize) -> Result<(), TensorError> {
    let expected = checked_element_count(shape).expect("a stored shape was checked");
    if found == expected { Ok(()) } else { Err(TensorError::Length { found, expected }) }
}

fn float_elements(tensor: &TensorProto) -> Result<Vec<f32>, TensorError> {
    let raw = &tensor.raw_data;
    match (tensor.data_type, raw.is_empty()) {
        (element::FLOAT, true) => Ok(tensor.float_data.clone()),
        (element::FLOAT, false) => read_raw(raw, f32::from_le_bytes),
        (element::DOUBLE, true) => Ok(tensor.double_data.iter().map(|&x| x as f32).collect()),
        (element::DOUBLE, false) => read_raw(raw, |bytes| f64::from_le_bytes(bytes) as f32),
        (_, true) => Ok(tensor.int32_data.iter().map(|&bits| half_to_f32(bits as u16)).collect()),
        (_, false) => read_raw(raw, |bytes| half_to_f32(u16::from_le_bytes(bytes))),
    }
}

/// Returns an iterator over the integers of a stored tensor. A list of `i64` would take up to eight
/// times the bytes of the file.
fn int_elements(tensor: &TensorProto) -> Result<IntIter<'_>, TensorError> {
    let raw = &tensor.raw_data;
    match (tensor.data_type, raw.is_empty()) {
        (element::INT64, true) => Ok(Box::new(tensor.int64_data.iter().copied())),
        (element::INT64, false) => raw_ints(raw, i64::from_le_bytes),
        (element::UINT32, true) => {
            Ok(Box::new(tensor.uint64_data.iter().map(|&x| x as u32 as i64)))
        }
        (element::UINT32, false) => raw_ints(raw, |b| i64::from(u32::from_le_bytes(b))),
        (element::UINT8 | element::BOOL, true) => Ok(small_ints(tensor, |x| i64::from(x as u8))),
        (element::UINT8 | element::BOOL, false) => raw_ints(raw, |b: [u8; 1]| i64::from(b[0])),
        (element::INT8, true) => Ok(small_ints(tensor, |x| i64::from(x as i8))),
        (element::INT8, false) => raw_ints(raw, |b| i64::from(i8::from_le_bytes(b))),
        (element::UINT16, true) => Ok(small_ints(tensor, |x| i64::from(x as u16))),
        (element::UINT16, false) => raw_ints(raw, |b| i64::from(u16::from_le_bytes(b))),
        (element::INT16, true) => Ok(small_ints(tensor, |x| i64::from(x as i16))),
        (element::INT16, false) => raw_ints(raw, |b| i64::from(i16::from_le_bytes(b))),
        (element::INT32, true) => Ok(small_ints(tensor, i64::from)),
        (element::INT32, false) => raw_ints(raw, |b| i64::from(i32::from_le_bytes(b))),
        (other, _) => Err(TensorError::Type(other)),
    }
}

/// An iterator over the integers of a stored tensor.
pub(super) type IntIter<'m> = Box<dyn ExactSizeIterator<Item = i64> + 'm>;

/// Reads small integers that are not raw. The format stores each of them as an `i32`.
fn small_ints<'m>(tensor: &'m TensorProto, f: impl Fn(i32) -> i64 + 'm) -> IntIter<'m> {
    Box::new(tensor.int32_data.iter().map(move |&x| f(x)))
}

fn raw_ints<'m, const N: usize>(
    raw: &'m [u8],
    f: impl Fn([u8; N]) -> i64 + 'm,
) -> Result<IntIter<'m>, TensorError> {
    Ok(Box::new(chunks(raw)?.iter().map(move |&chunk| f(chunk))))
}

fn read_raw<const N: usize, T>(
    raw: &[u8],
    f: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, TensorError> {
    Ok(chunks(raw)?.iter().map(|&chunk| f(chunk)).collect())
}

fn chunks<const N: usize>(raw: &[u8]) -> Result<&[[u8; N]], TensorError> {
    let (chunks, rest) = raw.as_chunks::<N>();
    if rest.is_empty() {
        Ok(chunks)
    } else {
        Err(TensorError::Length { found: raw.len(), expected: chunks.len() * N })
    }
}

/// Converts an IEEE 754 half (binary16) to `f32`.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2_f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2_f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(data_type: i32, dims: &[i64], raw_data: &[u8]) -> TensorProto {
        let (dims, raw_data) = (dims.to_vec(), raw_data.to_vec().into());
        TensorProto { dims, data_type, raw_data, ..Default::default() }
    }

    #[test]
    fn every_float_type_becomes_f32() {
        let single = raw(element::FLOAT, &[1], &1.5_f32.to_le_bytes());
        let double = raw(element::DOUBLE, &[1], &1.5_f64.to_le_bytes());
        let half = raw(element::FLOAT16, &[1], &0x3e00_u16.to_le_bytes());
        for tensor in [single, double, half] {
            assert_eq!(decode(&tensor).unwrap().as_floats(), Some([1.5].as_slice()));
        }
    }

    #[test]
    fn halves_cover_zero_subnormals_and_infinity() {
        assert_eq!(half_to_f32(0x0000), 0.0);
        assert_eq!(half_to_f32(0x0001), 2_f32.powi(-24));
        assert_eq!(half_to_f32(0xc000), -2.0);
        assert_eq!(half_to_f32(0x7bff), 65504.0);
        assert_eq!(half_to_f32(0xfc00), f32::NEG_INFINITY);
        assert!(half_to_f32(0x7e00).is_nan());
    }

    #[test]
    fn every_integer_type_keeps_its_sign() {
        let cases: [(i32, &[u8], i64); 6] = [
            (element::INT8, &[0xff], -1),
            (element::UINT8, &[0xff], 255),
            (element::INT16, &[0xff, 0xff], -1),
            (element::INT32, &[0xfe, 0xff, 0xff, 0xff], -2),
            (element::UINT32, &[0xff, 0xff, 0xff, 0xff], 4_294_967_295),
            (element::INT64, &[3, 0, 0, 0, 0, 0, 0, 0], 3),
        ];
        for (data_type, bytes, expected) in cases {
            let decoded = decode(&raw(data_type, &[1], bytes)).unwrap();
            assert_eq!(decoded.as_ints(), Some([expected].as_slice()));
        }
    }

    #[test]
    fn data_that_does_not_fill_the_shape_is_refused() {
        let tensor = raw(element::INT8, &[2, 2], &[1, 2, 3]);
        let error = decode(&tensor).unwrap_err().to_string();
        assert_eq!(error, "3 values are stored, the shape has 4");
    }

    #[test]
    fn shapes_over_the_limit_are_refused_before_anything_is_allocated() {
        for dims in [vec![-1], vec![i64::MAX, 2], vec![1 << 29], vec![1; 9]] {
            assert!(matches!(decode(&raw(element::INT8, &dims, &[])), Err(TensorError::Shape(_))));
        }
    }
}
