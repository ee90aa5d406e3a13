//! `model.toml`: the identity, the inputs, the outputs and the measured accuracy of a model.

use serde::Deserialize;

use super::ModelError;
use super::input::{InputContract, RawInput};
use super::output::{OutputSpec, RawOutput, parse_outputs};
use super::task::{RawDetection, RawLiveness, Task, TaskKind};
use super::values::{Licence, Sha256Hex, parse_file_name, parse_free_text, parse_label};
use crate::engine::Precision;
use crate::face::calibration::{self, CalibrationEntry, RawCalibrationEntry};

/// Largest manifest in bytes. A long calibration table takes 10 kB.
pub(super) const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// Most batch sizes. Each one takes warm-up time and device memory.
const BUCKETS_MAX: usize = 12;

/// Largest batch size. A larger batch only adds delay.
const BUCKET_MAX: usize = 256;

/// The manifest of a model, checked when it is parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Name of the model, and of its directory.
    pub name: String,
    /// Version of the model, and name of its directory.
    pub version: String,
    /// The task of the network.
    pub task: Task,
    /// Name of the ONNX file beside the manifest.
    pub file: String,
    /// Hash of the ONNX file.
    pub sha256: Sha256Hex,
    /// Licence of the weights.
    pub licence: Licence,
    /// The source of the weights.
    pub origin: Origin,
    /// The input of the network.
    pub input: InputContract,
    /// The outputs of the network, in the order in which a batch returns them.
    pub outputs: Vec<OutputSpec>,
    /// Batch sizes to warm, strictly rising.
    pub buckets: Vec<usize>,
    /// Precision of weights and activations.
    pub precision: Precision,
    /// The golden that pins the outputs of the network.
    pub golden: GoldenSpec,
    /// False-match rates of similarities. Empty unless the task is embedding.
    pub calibration: Vec<CalibrationEntry>,
}

/// The source of weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Registry and package.
    pub package: String,
    pub version: String,
    /// Path of the file in the package.
    pub path: String,
    /// Who made the model.
    pub upstream: String,
    /// What the model was trained on, and what is not known about the training.
    pub training_data: String,
}

/// The golden file, and the tolerances of its comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenSpec {
    /// Name of the safetensors file beside the manifest.
    pub file: String,
    pub sha256: Sha256Hex,
    /// Side of the square pictures in pixels, if it is not that of the input.
    pub side: Option<usize>,
    /// Tolerance in `f32`.
    pub tolerance: Tolerance,
    /// Tolerance in `bf16`. Setting it states that the calibration also holds in `bf16`.
    pub tolerance_bf16: Option<Tolerance>,
    /// As above for `f16`, in which GPUs compute.
    pub tolerance_f16: Option<Tolerance>,
    /// As above for `tf32`, in which GPUs multiply.
    pub tolerance_tf32: Option<Tolerance>,
}

impl GoldenSpec {
    /// Returns the tolerance in `precision`, or `None` if the model was not checked in it.
    pub fn tolerance_in(&self, precision: Precision) -> Option<Tolerance> {
        match precision {
            Precision::F32 => Some(self.tolerance),
            Precision::Bf16 => self.tolerance_bf16,
            Precision::F16 => self.tolerance_f16,
            Precision::Tf32 => self.tolerance_tf32,
        }
    }
}

/// The largest error of an output, for each output and row.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(tag = "kind", content = "limit", rename_all = "lowercase", deny_unknown_fields)]
pub enum Tolerance {
    /// Largest difference of any value, in the unit of the output.
    Absolute(f64),
    /// Largest difference of any value, relative to the largest expected magnitude of the output.
    Relative(f64),
    /// Least cosine between the output and the expected output.
    Cosine(f64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    name: String,
    version: String,
    task: TaskKind,
    file: String,
    sha256: String,
    licence: String,
    precision: Precision,
    buckets: Vec<usize>,
    origin: RawOrigin,
    input: RawInput,
    outputs: Vec<RawOutput>,
    detection: Option<RawDetection>,
    liveness: Option<RawLiveness>,
    golden: RawGolden,
    #[serde(default)]
    calibration: Vec<RawCalibrationEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOrigin {
    package: String,
    version: String,
    path: String,
    upstream: String,
    training_data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGolden {
    file: String,
    sha256: String,
    side: Option<usize>,
    tolerance: Tolerance,
    tolerance_bf16: Option<Tolerance>,
    tolerance_f16: Option<Tolerance>,
    tolerance_tf32: Option<Tolerance>,
}

impl Manifest {
    /// Parses the text of a `model.toml`.
    ///
    /// # Errors
    /// [`ModelError`] names the key and the rule that it breaks. Unknown keys are refused.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        if text.len() > MANIFEST_BYTES_MAX {
            let (actual, limit) = (text.len() as u64, MANIFEST_BYTES_MAX as u64);
            return Err(ModelError::TooLarge { what: "manifest bytes", actual, limit });
        }
        let raw: RawManifest = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
        Self::from_raw(raw)
    }

    /// Returns `name/version`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.version)
    }

    fn from_raw(raw: RawManifest) -> Result<Self, ModelError> {
        let input = InputContract::parse(raw.input)?;
        let outputs = parse_outputs(raw.outputs)?;
        let task = Task::parse(raw.task, raw.detection, raw.liveness, &input, &outputs)?;
        if raw.task != TaskKind::FaceEmbedding && !raw.calibration.is_empty() {
            return Err(ModelError::value("calibration", "does not belong to this task"));
        }
        let manifest = Self {
            name: parse_label("name", raw.name)?,
            version: parse_label("version", raw.version)?,
            task,
            file: parse_file_name("file", raw.file)?,
            sha256: Sha256Hex::parse("sha256", raw.sha256)?,
            licence: Licence::parse(raw.licence)?,
            origin: parse_origin(raw.origin)?,
            golden: parse_golden(raw.golden, &input)?,
            input,
            outputs,
            buckets: parse_buckets(raw.buckets)?,
            precision: raw.precision,
            calibration: calibration::parse_entries(raw.calibration)?,
        };
        let precision = manifest.precision;
        manifest.in_precision(precision)
    }

    /// Returns the manifest with another precision.
    ///
    /// # Errors
    /// The golden has no tolerance for `precision`, so the model was never checked in it.
    pub fn in_precision(self, precision: Precision) -> Result<Self, ModelError> {
        if self.golden.tolerance_in(precision).is_none() {
            let rule = format!("is needed to run in {precision}");
            let key = format!("golden.tolerance_{precision}");
            return Err(ModelError::value(key, rule));
        }
        Ok(Self { precision, ..self })
    }
}

/// Converts an error of the TOML parser. Adds the line of the error, because it holds the key.
pub(super) fn syntax_error(text: &str, error: &toml::de::Error) -> ModelError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or("");
    let line = before.matches('\n').count();
    let near = text.lines().nth(line).unwrap_or("").trim().chars().take(80).collect();
    ModelError::Syntax { line: line + 1, near, reason: error.message().to_owned() }
}

fn parse_origin(raw: RawOrigin) -> Result<Origin, ModelError> {
    Ok(Origin {
        package: parse_free_text("origin.package", raw.package)?,
        version: parse_free_text("origin.version", raw.version)?,
        path: parse_free_text("origin.path", raw.path)?,
        upstream: parse_free_text("origin.upstream", raw.upstream)?,
        training_data: parse_free_text("origin.training_data", raw.training_data)?,
    })
}

fn parse_buckets(buckets: Vec<usize>) -> Result<Vec<usize>, ModelError> {
    let rises = buckets.windows(2).all(|pair| pair[0] < pair[1]);
    let in_range = buckets.iter().all(|bucket| (1..=BUCKET_MAX).contains(bucket));
    if !(1..=BUCKETS_MAX).contains(&buckets.len()) || !rises || !in_range {
        let rule = format!("must be 1 to {BUCKETS_MAX} rising sizes in 1..={BUCKET_MAX}");
        return Err(ModelError::value("buckets", rule));
    }
    Ok(buckets)
}

fn parse_golden(raw: RawGolden, input: &InputContract) -> Result<GoldenSpec, ModelError> {
    check_tolerance("golden.tolerance", raw.tolerance)?;
    let others = [
        ("golden.tolerance_bf16", raw.tolerance_bf16),
        ("golden.tolerance_f16", raw.tolerance_f16),
        ("golden.tolerance_tf32", raw.tolerance_tf32),
    ];
    for (key, tolerance) in others {
        tolerance.map_or(Ok(()), |tolerance| check_tolerance(key, tolerance))?;
    }
    if let Some(side) = raw.side {
        input.with_side(side).map_err(|_| {
            ModelError::value("golden.side", "must be a side that the input allows")
        })?;
    }
    Ok(GoldenSpec {
        file: parse_file_name("golden.file", raw.file)?,
        sha256: Sha256Hex::parse("golden.sha256", raw.sha256)?,
        side: raw.side,
        tolerance: raw.tolerance,
        tolerance_bf16: raw.tolerance_bf16,
        tolerance_f16: raw.tolerance_f16,
        tolerance_tf32: raw.tolerance_tf32,
    })
}

fn check_tolerance(key: &str, tolerance: Tolerance) -> Result<(), ModelError> {
    let (limit, is_sane) = match tolerance {
        Tolerance::Absolute(limit) => (limit, limit > 0.0 && limit.is_finite()),
        Tolerance::Relative(limit) => (limit, limit > 0.0 && limit <= 0.1),
        Tolerance::Cosine(limit) => (limit, (0.99..=1.0).contains(&limit)),
    };
    if is_sane {
        return Ok(());
    }
    let rule = format!("is {limit}: relative 0..=0.1, cosine 0.99..=1, absolute more than 0");
    Err(ModelError::value(key, rule))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::causes;

    const YUNET: &str = include_str!("../../models/yunet/2023mar/model.toml");
    const SFACE: &str = include_str!("../../models/sface/2021dec/model.toml");
    const LIVENESS: &str = include_str!("../../models/fr_liveness/0.0.1/model.toml");
    const MESH: &str = include_str!("../../models/facemesh/3.3.6/model.toml");
    const IRIS: &str = include_str!("../../models/iris/3.3.6/model.toml");

    /// Broken manifests: the original, the text to replace, the replacement, a part of the error.
    const REFUSED: &[(&str, &str, &str, &str)] = &[
        (SFACE, "licence = \"Apache-2.0\"\n", "", "missing field `licence`"),
        (SFACE, "\"Apache-2.0\"", "\"\"", "`licence`"),
        (SFACE, "\"Apache-2.0\"", "\"free for all\"", "`licence`"),
        (SFACE, "precision", "colour_order = 1\nprecision", "unknown field `colour_order`"),
        (SFACE, "width = 112", "width = \"wide\"", "width"),
        (SFACE, "width = 112", "width = -1", "width"),
        (SFACE, "width = 112", "width = 0", "`input.width`"),
        (SFACE, "height = 112", "height = 4096", "`input.height`"),
        (SFACE, "width = 112", "width = 96", "`input.crop.template`"),
        (SFACE, "layout = \"nchw\"", "layout = \"chwn\"", "layout"),
        (SFACE, "colour = \"rgb\"\n", "", "missing field `colour`"),
        (SFACE, "colour = \"rgb\"", "colour = \"grey\"", "colour"),
        (SFACE, "mean = [0.0,", "mean = [nan,", "`input.mean`"),
        (SFACE, "mean = [0.0,", "mean = [", "mean"),
        (SFACE, "scale = [1.0,", "scale = [0.0,", "`input.scale`"),
        (SFACE, "template = \"arcface112\"", "template = \"other\"", "template"),
        (SFACE, "\"align\", template = \"arcface112\"", "\"letterbox\"", "`input.crop`"),
        (SFACE, "layout =", "side_multiple = 5\nlayout =", "`input.side_multiple`"),
        (SFACE, "layout =", "side_multiple = 0\nlayout =", "`input.side_multiple`"),
        (SFACE, "name = \"sface\"", "name = \"../sface\"", "`name`"),
        (SFACE, "version = \"2021dec\"", "version = \"..\"", "`version`"),
        (SFACE, "file = \"face_", "file = \"../face_", "`file`"),
        (SFACE, "file = \"golden", "file = \"/etc/golden", "`golden.file`"),
        (SFACE, "sha256 = \"fb14", "sha256 = \"FB14", "`sha256`"),
        (SFACE, "kind = \"cosine\", limit = 0.9999", "kind = \"cosine\", limit = 0.5", "tolerance"),
        (SFACE, "kind = \"cosine\"", "kind = \"cosine\", most = 1", "most"),
        (
            SFACE,
            "tolerance_tf32 = { kind = \"cosine\"",
            "tolerance_tf32 = { kind = \"relative\"",
            "_tf32`",
        ),
        (SFACE, "[1, 2, 4, 8, 16, 32]", "[]", "`buckets`"),
        (SFACE, "[1, 2, 4, 8, 16, 32]", "[1, 4, 2]", "`buckets`"),
        (SFACE, "[1, 2, 4, 8, 16, 32]", "[0, 1]", "`buckets`"),
        (SFACE, "[1, 2, 4, 8, 16, 32]", "[1, 257]", "`buckets`"),
        (SFACE, "precision = \"f32\"", "precision = \"int4\"", "precision"),
        (SFACE, "upstream = \"opencv", "upstream = \"\\nopencv", "`origin.upstream`"),
        (SFACE, "shape = [128]", "shape = []", "`outputs[0].shape`"),
        (SFACE, "shape = [128]", "shape = [0]", "`outputs[0].shape`"),
        (SFACE, "shape = [128]", "shape = [4294967296, 4294967296]", "`outputs[0].shape`"),
        (SFACE, "shape = [128]", "shape = [1, 128]", "`outputs[0].shape`"),
        (SFACE, "meaning = \"embedding\"", "meaning = \"landmarks\"", "`outputs[0].meaning`"),
        (
            SFACE,
            "[golden]",
            "[detection]\ndecoder = \"yunet\"\nscore_min = 0.5\nnms_iou = 0.3\n[golden]",
            "`detection`",
        ),
        (SFACE, "fmr = 3e-4", "fmr = 3e-3", "points[2].fmr"),
        (SFACE, "genuine_pairs = 1_973", "genuine_pairs = 0", "genuine_pairs"),
        (LIVENESS, "live_class = 0", "live_class = 3", "`liveness.live_class`"),
        (LIVENESS, "score_min = 0.5", "score_min = 1.0", "`liveness.score_min`"),
        (LIVENESS, "scores = \"logits\"", "scores = \"marks\"", "scores"),
        (LIVENESS, "scale = 2.7", "scale = 0.5", "`input.crop.scale`"),
        (LIVENESS, "task = \"passive-liveness\"", "task = \"face-embedding\"", "`liveness`"),
        (YUNET, "stride = 8", "stride = 7", "outputs.stride"),
        (YUNET, "stride = 8", "stride = 0", "outputs.stride"),
        (YUNET, "\nstride = 8", "", "`outputs[0].stride`"),
        (YUNET, "shape = [6400, 4]", "shape = [6400, 5]", "`outputs[2].shape`"),
        (
            YUNET,
            "meaning = \"boxes\"\nstride = 16",
            "meaning = \"boxes\"\nstride = 8",
            "two of Boxes",
        ),
        (YUNET, "tensor = \"obj_8\"", "tensor = \"cls_8\"", "`outputs[1].tensor`"),
        (YUNET, "[detection]", "[liveness]", "scores"),
        (
            YUNET,
            "[detection]\ndecoder = \"yunet\"\nscore_min = 0.6\nnms_iou = 0.3\n",
            "",
            "`detection`",
        ),
        (YUNET, "nms_iou = 0.3", "nms_iou = 0.0", "`detection.nms_iou`"),
        (YUNET, "decoder = \"yunet\"", "decoder = \"ssd\"", "decoder"),
        (YUNET, "rule = \"letterbox\"", "rule = \"letterbox\", scale = 2.0", "scale"),
        (YUNET, "side = 160", "side = 161", "`golden.side`"),
        (MESH, "width = 192", "width = 96", "`input.crop.rule`"),
        (MESH, "shape = [1404]", "shape = [1403]", "`outputs[0].shape`"),
        (MESH, "meaning = \"face-flag\"", "meaning = \"contours\"", "FaceFlag"),
        (IRIS, "shape = [1, 1, 228]", "shape = [1, 1, 213]", "`outputs[0].shape`"),
    ];

    #[test]
    fn every_broken_manifest_is_refused_by_the_key_that_breaks_it() {
        for (text, from, to, expected) in REFUSED {
            assert!(text.contains(from), "{from} is not in the manifest");
            let message = match Manifest::parse(&text.replacen(from, to, 1)) {
                Ok(_) => panic!("{from} → {to} is accepted"),
                Err(error) => causes(&error),
            };
            assert!(message.contains(expected), "{message} does not name {expected}");
        }
    }

    #[test]
    fn calibration_belongs_to_embedders_only() {
        let entry = &SFACE[SFACE.find("[[calibration]]").unwrap()..];
        let message = Manifest::parse(&format!("{IRIS}{entry}")).unwrap_err().to_string();
        assert_eq!(message, "manifest: `calibration` does not belong to this task");
    }

    #[test]
    fn a_wrong_type_is_reported_with_its_line() {
        let text = SFACE.replace("width = 112", "width = \"wide\"");
        let line = text.lines().position(|line| line.starts_with("width")).unwrap() + 1;
        let message = Manifest::parse(&text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("manifest line {line} (`width = \"wide\"`): ")));
    }

    #[test]
    fn a_manifest_that_is_too_long_is_not_parsed() {
        let text = "#".repeat(MANIFEST_BYTES_MAX + 1);
        let message = Manifest::parse(&text).unwrap_err().to_string();
        assert_eq!(message, "manifest bytes of 65537 exceeds the limit of 65536");
    }

    #[test]
    fn a_detectors_heads_are_found_by_meaning_and_stride() {
        let manifest = Manifest::parse(YUNET).unwrap();
        let Task::FaceDetection(detection) = &manifest.task else { panic!("a detector") };
        let strides: Vec<usize> = detection.heads.iter().map(|head| head.stride).collect();
        assert_eq!(strides, [8, 16, 32]);
        for head in &detection.heads {
            let name = |index: usize| manifest.outputs[index].tensor.as_str();
            assert_eq!(name(head.class), format!("cls_{}", head.stride));
            assert_eq!(name(head.objectness), format!("obj_{}", head.stride));
            assert_eq!(name(head.boxes), format!("bbox_{}", head.stride));
            assert_eq!(name(head.points), format!("kps_{}", head.stride));
        }
        let small = manifest.input.with_side(320).unwrap();
        assert_eq!(manifest.outputs[0].row_shape(&small), [1600, 1]);
    }

    #[test]
    fn a_model_runs_only_in_precisions_its_golden_has_a_tolerance_for() {
        let lines = SFACE.lines().filter(|line| !line.starts_with("tolerance_tf32"));
        let unchecked: Vec<&str> = lines.collect();
        let manifest = Manifest::parse(&unchecked.join("\n")).unwrap();
        let message = manifest.in_precision(Precision::Tf32).unwrap_err().to_string();
        assert_eq!(message, "manifest: `golden.tolerance_tf32` is needed to run in tf32");
        let manifest = Manifest::parse(SFACE).unwrap().in_precision(Precision::Tf32).unwrap();
        assert_eq!(manifest.precision, Precision::Tf32);
    }

    #[test]
    fn the_default_embedder_supports_one_false_match_in_ten_thousand() {
        let manifest = Manifest::parse(SFACE).unwrap();
        let entry = &manifest.calibration[0];
        assert!(entry.is_generic());
        assert_eq!(entry.threshold(1e-4).unwrap(), 0.425);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_manifest_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..4000_usize,
        ) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = Manifest::parse(&text);
            let mut spliced: String = YUNET.chars().take(at).collect();
            spliced.push_str(&text);
            let _ = Manifest::parse(&spliced);
        }

        #[test]
        fn any_number_in_place_of_another_gives_a_manifest_or_an_error(
            which in 0..200_usize, number in any::<i64>(),
        ) {
            let mut seen = 0;
            let edited: Vec<String> = YUNET.split_inclusive(' ').map(|word| {
                let is_number = word.starts_with(|c: char| c.is_ascii_digit());
                seen += usize::from(is_number);
                if is_number && seen == which { number.to_string() + " " } else { word.to_owned() }
            }).collect();
            let _ = Manifest::parse(&edited.concat());
        }
    }
}
