//! Goldens: input pictures of a network, and the outputs of a reference implementation.
//!
//! The pictures are stored as 8-bit RGB and pass through [`InputContract::fill`]. A golden
//! therefore pins the layout, colour order and range of the manifest, and not only the weights.

use safetensors::{Dtype, SafeTensors};

use super::ModelError;
use super::input::InputContract;
use super::manifest::{Manifest, Tolerance};
use crate::image::RgbImage;

/// Most rows of a golden. Two distinct rows show that rows do not mix; more rows only take time.
const ROWS_MAX: usize = 16;

/// The outputs that a network must reproduce before it may serve.
#[derive(Debug)]
pub struct Golden {
    /// The input contract of the manifest, with the side of the pictures.
    pub input: InputContract,
    /// The pictures, each `input.width × input.height` pixels.
    pub pictures: Vec<RgbImage>,
    /// The expected outputs, in the order of the manifest.
    pub outputs: Vec<GoldenOutput>,
    tolerance: Tolerance,
}

/// The expected values of one output.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenOutput {
    /// Name of the output.
    pub tensor: String,
    /// Shape of one row, without the batch axis.
    pub shape: Vec<usize>,
    /// One row for each picture.
    pub rows: Vec<Vec<f32>>,
    /// Largest absolute value of all rows.
    largest: f64,
}

/// An output that does not match the golden.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GoldenMismatch {
    /// The error of a row exceeds the tolerance, or a value is NaN.
    #[error("golden: row {row} of `{output}` is off by {error:e}, the limit is {limit:e}")]
    Far {
        /// Name of the output.
        output: String,
        /// Index of the picture.
        row: usize,
        /// Largest absolute difference, or 1 minus the cosine.
        error: f64,
        /// The largest allowed error.
        limit: f64,
    },
    /// The number of values, outputs or rows is not that of the golden.
    #[error("golden: {what} number {actual}, expected {expected}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// The number found.
        actual: usize,
        /// The number in the golden.
        expected: usize,
    },
}

impl Golden {
    /// Parses a golden file. It holds the tensor `input` (u8 `[rows, height, width, 3]`, RGB) and,
    /// for each output of the manifest, the tensor `output.<name>` (f32 `[rows, …row shape]`).
    ///
    /// # Errors
    /// [`ModelError::GoldenFile`] and [`ModelError::GoldenTensor`].
    pub fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Self, ModelError> {
        let file = SafeTensors::deserialize(bytes)?;
        let spec = &manifest.golden;
        let input = match spec.side {
            Some(side) => manifest.input.with_side(side)?,
            None => manifest.input.clone(),
        };
        let pictures = read_pictures(&file, &input)?;
        let outputs = manifest.outputs.iter().map(|output| {
            read_output(&file, &output.tensor, output.row_shape(&input), pictures.len())
        });
        let outputs = outputs.collect::<Result<_, _>>()?;
        let tolerance = spec.tolerance_in(manifest.precision);
        let tolerance = tolerance.expect("a manifest runs in precisions it has a tolerance for");
        Ok(Self { input, pictures, outputs, tolerance })
    }

    /// Compares the outputs for all pictures. `answers` has one entry for each picture. Each entry
    /// has one slice for each output, in the order of the manifest.
    ///
    /// # Errors
    /// The first [`GoldenMismatch`].
    pub fn check(&self, answers: &[Vec<&[f32]>]) -> Result<(), GoldenMismatch> {
        check_count("rows", answers.len(), self.pictures.len())?;
        answers.iter().enumerate().try_for_each(|(row, outputs)| self.check_row(row, outputs))
    }

    /// Compares the outputs for picture `row`: one slice for each output, in the order of the
    /// manifest.
    ///
    /// # Errors
    /// The first [`GoldenMismatch`].
    pub fn check_row(&self, row: usize, outputs: &[&[f32]]) -> Result<(), GoldenMismatch> {
        check_count("outputs", outputs.len(), self.outputs.len())?;
        for (golden, actual) in self.outputs.iter().zip(outputs) {
            golden.check(row, actual, self.tolerance)?;
        }
        Ok(())
    }
}

impl GoldenOutput {
    fn check(
        &self,
        row: usize,
        actual: &[f32],
        tolerance: Tolerance,
    ) -> Result<(), GoldenMismatch> {
        let Some(expected) = self.rows.get(row) else {
            return check_count("rows", row + 1, self.rows.len());
        };
        check_count("values", actual.len(), expected.len())?;
        let (error, limit) = match tolerance {
            Tolerance::Absolute(limit) => (largest_difference(actual, expected), limit),
            Tolerance::Relative(limit) => {
                (largest_difference(actual, expected), limit * self.largest)
            }
            Tolerance::Cosine(least) => (1.0 - cosine(actual, expected), 1.0 - least),
        };
        // Not `error > limit`, because a NaN must fail.
        if error <= limit {
            return Ok(());
        }
        Err(GoldenMismatch::Far { output: self.tensor.clone(), row, error, limit })
    }
}

fn check_count(what: &'static str, actual: usize, expected: usize) -> Result<(), GoldenMismatch> {
    if actual == expected {
        return Ok(());
    }
    Err(GoldenMismatch::Count { what, actual, expected })
}

/// Returns the largest absolute difference, or infinity if any difference is NaN.
fn largest_difference(a: &[f32], b: &[f32]) -> f64 {
    let differences = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    differences.fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) })
}

/// Returns the cosine of two vectors, or NaN if a vector is zero or contains NaN.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| -> f64 {
        x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn read_pictures(
    file: &SafeTensors<'_>,
    input: &InputContract,
) -> Result<Vec<RgbImage>, ModelError> {
    let refuse = |reason: String| ModelError::GoldenTensor { tensor: "input".to_owned(), reason };
    let tensor = file.tensor("input").map_err(|_| refuse("is missing".to_owned()))?;
    let (width, height) = (input.width, input.height);
    let fits = matches!(*tensor.shape(), [1..=ROWS_MAX, h, w, 3] if (w, h) == (width, height));
    if tensor.dtype() != Dtype::U8 || !fits {
        return Err(refuse(format!("must be u8 [1 to {ROWS_MAX}, {height}, {width}, 3]")));
    }
    let rows = tensor.data().chunks_exact(width * height * 3);
    let pictures = rows.map(|pixels| RgbImage::new(width, height, pixels.to_vec()));
    Ok(pictures.map(|picture| picture.expect("a chunk has one picture's length")).collect())
}

fn read_output(
    file: &SafeTensors<'_>,
    name: &str,
    shape: Vec<usize>,
    rows: usize,
) -> Result<GoldenOutput, ModelError> {
    let tensor = format!("output.{name}");
    let refuse = |reason: String| ModelError::GoldenTensor { tensor: tensor.clone(), reason };
    let view = file.tensor(&tensor).map_err(|_| refuse("is missing".to_owned()))?;
    let (count, row_shape) = view.shape().split_first().unwrap_or((&0, &[]));
    if view.dtype() != Dtype::F32 || *count != rows || row_shape != shape {
        return Err(refuse(format!("must be f32, {rows} rows of {shape:?}")));
    }
    let bytes = view.data().chunks_exact(4);
    let values: Vec<f32> =
        bytes.map(|b| f32::from_le_bytes(b.try_into().expect("a chunk has 4 bytes"))).collect();
    if !values.iter().all(|value| value.is_finite()) {
        return Err(refuse("must be finite".to_owned()));
    }
    let largest = values.iter().fold(0.0, |largest: f64, v| largest.max(f64::from(v.abs())));
    let rows = values.chunks_exact(shape.iter().product()).map(<[f32]>::to_vec).collect();
    Ok(GoldenOutput { tensor: name.to_owned(), shape, rows, largest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ColourOrder;

    const MANIFEST: &str = include_str!("../../models/fr_liveness/0.0.1/model.toml");
    const GOLDEN: &[u8] = include_bytes!("../../models/fr_liveness/0.0.1/golden.safetensors");
    const YUNET: &str = include_str!("../../models/yunet/2023mar/model.toml");
    const YUNET_GOLDEN: &[u8] = include_bytes!("../../models/yunet/2023mar/golden.safetensors");

    /// The outputs of onnxruntime for the same pictures with red and blue exchanged, as printed by
    /// `tests/fixtures/make_goldens.py`.
    const SWAPPED: [[f32; 3]; 2] =
        [[4.064_878, -0.634_581_45, -3.430_244_2], [2.963_026, 0.595_095_75, -3.558_072_8]];

    fn liveness() -> (Manifest, Golden) {
        let manifest = Manifest::parse(MANIFEST).unwrap();
        let golden = Golden::parse(GOLDEN, &manifest).unwrap();
        (manifest, golden)
    }

    /// The outputs of a device without any error.
    fn expected(golden: &Golden) -> Vec<Vec<&[f32]>> {
        let row = |k: usize| golden.outputs.iter().map(|o| o.rows[k].as_slice()).collect();
        (0..golden.pictures.len()).map(row).collect()
    }

    /// Returns the means of the three planes of a picture's row.
    fn plane_means(input: &InputContract, picture: &RgbImage) -> [f64; 3] {
        let mut row = vec![0.0; input.row_len()];
        input.fill(picture, &mut row).unwrap();
        let pixels = input.width * input.height;
        let mean = |k: usize| {
            let plane = &row[k * pixels..(k + 1) * pixels];
            plane.iter().map(|v| f64::from(*v)).sum::<f64>() / pixels as f64
        };
        [mean(0), mean(1), mean(2)]
    }

    #[test]
    fn a_network_fed_with_red_and_blue_exchanged_fails_its_golden() {
        let (_, golden) = liveness();
        let swapped: Vec<Vec<&[f32]>> = SWAPPED.iter().map(|row| vec![row.as_slice()]).collect();
        let mismatch = golden.check(&swapped).unwrap_err();
        assert!(matches!(mismatch, GoldenMismatch::Far { row: 0, .. }), "{mismatch}");
        golden.check_row(1, &swapped[1]).unwrap_err();
    }

    #[test]
    fn the_golden_pictures_reach_the_network_in_its_colour_order() {
        // Plane means of the float tensor that was the input of onnxruntime for this golden.
        let reference = [117.7038, 130.7354, 154.2838];
        let (manifest, golden) = liveness();
        let means = plane_means(&golden.input, &golden.pictures[0]);
        for (mean, reference) in means.iter().zip(reference) {
            assert!((mean - reference).abs() < 1e-3, "{means:?}");
        }
        let swapped = InputContract { colour: ColourOrder::Rgb, ..manifest.input };
        let means = plane_means(&swapped, &golden.pictures[0]);
        assert!((means[0] - reference[0]).abs() > 10.0, "the order must matter: {means:?}");
    }

    #[test]
    fn the_expected_answers_pass_and_each_kind_of_wrong_one_fails() {
        let (_, golden) = liveness();
        let answers = expected(&golden);
        golden.check(&answers).unwrap();
        let exchanged = vec![answers[1].clone(), answers[0].clone()];
        assert!(golden.check(&exchanged).is_err(), "rows in the wrong order");
        assert!(golden.check(&answers[..1]).is_err(), "a row missing");
        assert!(golden.check_row(2, &answers[0]).is_err(), "a row too many");
        assert!(golden.check_row(0, &[]).is_err(), "an output missing");
        assert!(golden.check_row(0, &[&answers[0][0][..2]]).is_err(), "a value missing");
        let nan = [f32::NAN, answers[0][0][1], answers[0][0][2]];
        assert!(golden.check_row(0, &[&nan]).is_err(), "not a number");
    }

    #[test]
    fn every_kind_of_tolerance_has_its_edge() {
        let output = GoldenOutput {
            tensor: "y".to_owned(),
            shape: vec![2],
            rows: vec![vec![4.0, 0.0]],
            largest: 4.0,
        };
        let cases: [(Tolerance, [f32; 2], [f32; 2]); 3] = [
            (Tolerance::Absolute(0.5), [4.5, 0.0], [4.5, 0.625]),
            (Tolerance::Relative(0.125), [4.0, 0.5], [4.0, 0.625]),
            (Tolerance::Cosine(0.99), [40.0, 5.0], [4.0, 0.75]),
        ];
        for (tolerance, good, bad) in cases {
            assert!(output.check(0, &good, tolerance).is_ok(), "{tolerance:?}");
            assert!(output.check(0, &bad, tolerance).is_err(), "{tolerance:?}");
            assert!(output.check(0, &[f32::NAN, 0.0], tolerance).is_err(), "{tolerance:?}");
        }
        assert!(output.check(0, &[0.0, 0.0], Tolerance::Cosine(0.99)).is_err());
    }

    #[test]
    fn a_golden_at_another_side_counts_the_cells_of_that_side() {
        let manifest = Manifest::parse(YUNET).unwrap();
        let golden = Golden::parse(YUNET_GOLDEN, &manifest).unwrap();
        assert_eq!((golden.input.width, golden.pictures[0].width()), (160, 160));
        assert_eq!(golden.outputs[0].shape, [400, 1]);
        golden.check(&expected(&golden)).unwrap();
    }

    #[test]
    fn a_golden_of_another_model_is_refused_by_tensor() {
        let other = Manifest::parse(YUNET).unwrap();
        let message = Golden::parse(GOLDEN, &other).unwrap_err().to_string();
        assert!(message.contains("`input` must be u8"), "{message}");
        let renamed = MANIFEST.replace("tensor = \"output\"", "tensor = \"scores\"");
        let message = Golden::parse(GOLDEN, &Manifest::parse(&renamed).unwrap());
        assert!(message.unwrap_err().to_string().contains("`output.scores` is missing"));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_golden_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..64), at in 0..400_usize,
        ) {
            let manifest = Manifest::parse(MANIFEST).unwrap();
            let _ = Golden::parse(&bytes, &manifest);
            let mut spliced = GOLDEN.to_vec();
            spliced[at..at + bytes.len()].copy_from_slice(&bytes);
            let _ = Golden::parse(&spliced, &manifest);
            let _ = Golden::parse(&GOLDEN[..at], &manifest);
        }
    }
}
