//! The item shape of the network's input.

use crate::error::InputError;
use crate::onnx::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::{ValueInfoProto, type_proto};
use crate::shape::{RANK_MAX, VALUE_ELEMENTS_MAX, checked_element_count};

use super::tensors::element;

/// Returns the item shape for the import: `given` if it fits the file, otherwise the file's shape.
pub(super) fn item_shape(
    input: &ValueInfoProto,
    given: Option<&[usize]>,
) -> Result<Vec<usize>, InputError> {
    let value = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = value else { return Err(InputError::Type) };
    if tensor.elem_type != element::FLOAT {
        return Err(InputError::Type);
    }
    let shape = match (&tensor.shape, given) {
        (Some(shape), _) => from_file(&shape.dim, given)?,
        (None, Some(given)) => given.to_vec(),
        (None, None) => return Err(InputError::NoShape),
    };
    let fits = checked_element_count(&shape).is_some_and(|n| (1..=VALUE_ELEMENTS_MAX).contains(&n));
    if !fits || shape.len() >= RANK_MAX {
        return Err(InputError::Size(shape));
    }
    Ok(shape)
}

fn from_file(dims: &[Dimension], given: Option<&[usize]>) -> Result<Vec<usize>, InputError> {
    if !(2..=RANK_MAX).contains(&dims.len()) {
        return Err(InputError::Rank(dims.len()));
    }
    let sizes: Vec<i64> = dims.iter().map(size).collect();
    if sizes[0] > 1 {
        return Err(InputError::Batch(sizes[0]));
    }
    let file: Vec<usize> = sizes[1..].iter().map(|&s| usize::try_from(s).unwrap_or(0)).collect();
    match given {
        None => match file.iter().position(|&size| size == 0) {
            Some(axis) => Err(InputError::Symbolic(axis + 1)),
            None => Ok(file),
        },
        Some(given) if is_compatible(given, &file) => Ok(given.to_vec()),
        Some(given) => Err(InputError::Incompatible { given: given.to_vec(), file }),
    }
}

/// Returns the size of an axis, or 0 if the file leaves the size open. Some exporters write -1 for
/// an open size.
fn size(dim: &Dimension) -> i64 {
    match dim.value {
        Some(dimension::Value::DimValue(size)) => size.max(0),
        Some(dimension::Value::DimParam(_)) | None => 0,
    }
}

/// Returns true if the file may be imported with `given`. An open size accepts any size, and height
/// and width of an image may change. All other sizes are fixed.
fn is_compatible(given: &[usize], file: &[usize]) -> bool {
    let channels = match file {
        // Channels are last, as in exports of TensorFlow, if the last axis is the shortest.
        [first, _, last] if last < first && *last > 0 => Some(2),
        [_, _, _] => Some(0),
        _ => None,
    };
    let may_change = |axis| channels.is_some_and(|channels| axis != channels);
    given.len() == file.len()
        && given
            .iter()
            .zip(file)
            .enumerate()
            .all(|(axis, (given, &file))| file == 0 || *given == file || may_change(axis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::input_info;

    fn shape(dims: &[i64], given: Option<&[usize]>) -> Result<Vec<usize>, String> {
        item_shape(&input_info("x", dims), given).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fixed_image_may_change_its_height_and_width_only() {
        assert_eq!(shape(&[1, 3, 640, 640], None), Ok(vec![3, 640, 640]));
        assert_eq!(shape(&[1, 3, 640, 640], Some(&[3, 320, 160])), Ok(vec![3, 320, 160]));
        assert_eq!(shape(&[1, 64, 64, 3], Some(&[32, 32, 3])), Ok(vec![32, 32, 3]));
        assert!(shape(&[1, 3, 640, 640], Some(&[1, 320, 320])).is_err());
        assert!(shape(&[1, 64, 64, 3], Some(&[32, 32, 1])).is_err());
        assert!(shape(&[1, 3, 640, 640], Some(&[3, 320])).is_err());
        assert!(shape(&[1, 512], Some(&[256])).is_err());
    }

    #[test]
    fn symbolic_sizes_need_an_item_shape() {
        let error = shape(&[-1, 3, -1, -1], None).unwrap_err();
        assert_eq!(error, "axis 2 is symbolic, the item shape must be given");
        assert_eq!(shape(&[-1, 3, -1, -1], Some(&[3, 5, 7])), Ok(vec![3, 5, 7]));
    }

    #[test]
    fn a_fixed_batch_other_than_one_is_refused() {
        assert!(shape(&[4, 3, 8, 8], None).unwrap_err().contains("batch size is 4"));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(shape(&[1, 3, i64::MAX, i64::MAX], None).is_err());
        assert!(shape(&[-1, 3, -1, -1], Some(&[3, 0, 7])).is_err());
    }
}
