//! The outputs of a network, as listed in its manifest.

use serde::Deserialize;

use super::ModelError;
use super::input::InputContract;
use super::values::parse_tensor_name;

/// Most outputs of a network; a detector has 12.
const OUTPUTS_MAX: usize = 32;

/// Most axes of an output, without the batch axis.
const AXES_MAX: usize = 6;

/// Most values of one output; detectors at side 1,280 have 256,000.
const OUTPUT_VALUES_MAX: usize = 1 << 22;

/// One output of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputSpec {
    /// Name of the output in the ONNX file.
    pub tensor: String,
    /// Shape of one row, without the batch axis.
    pub shape: Vec<usize>,
    /// Meaning of the values.
    pub meaning: Meaning,
    /// For detectors: pixels per cell of the output grid.
    pub stride: Option<usize>,
}

impl OutputSpec {
    /// Returns the number of values in one row.
    #[expect(clippy::len_without_is_empty, reason = "an output has at least one value")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the shape of one row for `input`: the grids of a detector follow the input's sides.
    pub fn row_shape(&self, input: &InputContract) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if let Some(cells) = self.stride.and_then(|stride| cell_count(input, stride)) {
            shape[0] = cells;
        }
        shape
    }
}

/// The meaning of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    /// Detector, per cell: the score of the class "face".
    Class,
    /// Detector, per cell: how well the box fits a face.
    Objectness,
    /// Detector, per cell: the box.
    Boxes,
    /// Detector, per cell: five points.
    Points,
    /// The embedding, before normalisation.
    Embedding,
    /// One score for each class.
    ClassScores,
    /// Points in pixels of the crop.
    Landmarks,
    /// The probability that the crop shows a face.
    FaceFlag,
    /// Refined contours of eyes and lips. Not used.
    Contours,
}

/// One entry of `[[outputs]]` as written in a manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutput {
    tensor: String,
    shape: Vec<usize>,
    meaning: Meaning,
    stride: Option<usize>,
}

pub(super) fn parse_outputs(raw: Vec<RawOutput>) -> Result<Vec<OutputSpec>, ModelError> {
    if !(1..=OUTPUTS_MAX).contains(&raw.len()) {
        return Err(ModelError::value("outputs", format!("must have 1 to {OUTPUTS_MAX} entries")));
    }
    let mut outputs: Vec<OutputSpec> = Vec::with_capacity(raw.len());
    for (k, raw) in raw.into_iter().enumerate() {
        let tensor = parse_tensor_name(&format!("outputs[{k}].tensor"), raw.tensor)?;
        if outputs.iter().any(|other| other.tensor == tensor) {
            return Err(ModelError::value(format!("outputs[{k}].tensor"), "is named twice"));
        }
        check_shape(&raw.shape)
            .map_err(|rule| ModelError::value(format!("outputs[{k}].shape"), rule))?;
        outputs.push(OutputSpec {
            tensor,
            shape: raw.shape,
            meaning: raw.meaning,
            stride: raw.stride,
        });
    }
    Ok(outputs)
}

fn check_shape(shape: &[usize]) -> Result<(), String> {
    if !(1..=AXES_MAX).contains(&shape.len()) {
        return Err(format!("must have 1 to {AXES_MAX} axes"));
    }
    let values = shape.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    match values {
        Some(1..=OUTPUT_VALUES_MAX) => Ok(()),
        _ => Err(format!("must hold 1 to {OUTPUT_VALUES_MAX} values")),
    }
}

/// Returns the number of grid cells over `input`, or `None` if `stride` does not divide its sides.
pub(super) fn cell_count(input: &InputContract, stride: usize) -> Option<usize> {
    let tiles = input.width.checked_rem(stride)? == 0 && input.height.checked_rem(stride)? == 0;
    tiles.then(|| (input.width / stride) * (input.height / stride))
}
