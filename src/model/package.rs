//! The files of one model, read once and checked by their hashes.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::ModelError;
use super::ensemble::Ensemble;
use super::golden::Golden;
use super::input::InputContract;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest};
use super::values::Sha256Hex;
use crate::engine::{self, Graph, Precision};

/// Name of the manifest in the directory of a model.
pub(super) const MANIFEST_FILE: &str = "model.toml";

/// Name of the manifest in the directory of an ensemble.
pub(super) const ENSEMBLE_FILE: &str = "ensemble.toml";

/// Largest ONNX file in bytes: twice the size of an IResNet-100 in f32.
const ONNX_BYTES_MAX: u64 = 512 << 20;

/// Largest golden in bytes. The golden of a detector with two pictures of side 1,280 takes half.
const GOLDEN_BYTES_MAX: u64 = 32 << 20;

/// Which licences the operator accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LicencePolicy {
    /// Only weights whose licence allows commercial use.
    Commercial,
    /// Also weights whose licence forbids commercial use, for research.
    AcceptNonCommercial,
}

/// The files of a model: the manifest, and the bytes whose hashes the manifest states.
///
/// The hashed bytes are kept in memory, so the imported bytes are the checked bytes.
pub struct Package {
    /// The manifest of the model.
    pub manifest: Manifest,
    dir: PathBuf,
    onnx: Bytes,
    golden: Vec<u8>,
}

impl Package {
    /// Returns the model with another precision.
    ///
    /// # Errors
    /// As [`Manifest::in_precision`].
    pub fn in_precision(self, precision: Precision) -> Result<Self, ModelError> {
        Ok(Self { manifest: self.manifest.in_precision(precision)?, ..self })
    }

    /// Reads the model in `dir`. The licence must allow commercial use.
    ///
    /// # Errors
    /// [`ModelError::InDirectory`] names `dir` and holds the reason.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        Self::open_with(dir, LicencePolicy::Commercial)
    }

    /// Reads the model in `dir`. `policy` must accept the licence.
    ///
    /// # Errors
    /// [`ModelError::InDirectory`] names `dir` and holds the reason.
    pub fn open_with(dir: &Path, policy: LicencePolicy) -> Result<Self, ModelError> {
        Self::read(dir, policy).map_err(|source| ModelError::InDirectory {
            dir: dir.to_owned(),
            source: Box::new(source),
        })
    }

    fn read(dir: &Path, policy: LicencePolicy) -> Result<Self, ModelError> {
        let manifest = read_manifest(dir)?;
        let licence = &manifest.licence;
        if licence.is_noncommercial() && policy == LicencePolicy::Commercial {
            return Err(ModelError::NonCommercial { licence: licence.as_str().to_owned() });
        }
        Self::with_files(dir, manifest)
    }

    /// Reads again the files of a model that was opened from `dir` before. The bytes must have the
    /// hashes of `manifest`; the manifest that is in `dir` now is not read.
    ///
    /// # Errors
    /// [`ModelError::InDirectory`] names `dir` and holds the reason.
    pub fn reread(dir: &Path, manifest: &Manifest) -> Result<Self, ModelError> {
        Self::with_files(dir, manifest.clone()).map_err(|source| ModelError::InDirectory {
            dir: dir.to_owned(),
            source: Box::new(source),
        })
    }

    fn with_files(dir: &Path, manifest: Manifest) -> Result<Self, ModelError> {
        let onnx = read_capped(&dir.join(&manifest.file), "weight bytes", ONNX_BYTES_MAX)?;
        check_hash(&manifest.file, &manifest.sha256, &onnx)?;
        let spec = &manifest.golden;
        let golden = read_capped(&dir.join(&spec.file), "golden bytes", GOLDEN_BYTES_MAX)?;
        check_hash(&spec.file, &spec.sha256, &golden)?;
        Ok(Self { manifest, dir: dir.to_owned(), onnx: onnx.into(), golden })
    }

    /// Returns the directory of the files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns `name/version`.
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// Imports and optimises the network for the input of the manifest.
    ///
    /// # Errors
    /// [`ModelError::Import`], or an input or output that differs from the manifest.
    pub fn graph(&self) -> Result<Graph, ModelError> {
        self.graph_for(&self.manifest.input)
    }

    /// Imports and optimises the network for `input`: the input of the manifest, or one made by
    /// [`InputContract::with_side`].
    ///
    /// # Errors
    /// [`ModelError::Import`], or an input or output that differs from the manifest.
    pub fn graph_for(&self, input: &InputContract) -> Result<Graph, ModelError> {
        let graph = engine::optimise(engine::import(self.onnx.clone(), Some(&input.row_shape()))?);
        check_input(input, &graph.input().name)?;
        let actual = graph.outputs().into_iter().map(|output| (output.name, output.shape));
        check_outputs(&self.manifest, input, &actual.collect::<Vec<_>>())?;
        Ok(graph)
    }

    /// Parses the golden, whose outputs the network must reproduce before it may serve.
    ///
    /// # Errors
    /// [`ModelError::GoldenFile`] and [`ModelError::GoldenTensor`].
    pub fn golden(&self) -> Result<Golden, ModelError> {
        Golden::parse(&self.golden, &self.manifest)
    }
}

impl fmt::Debug for Package {
    /// Writes the name of the model only, because the bytes are too many to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Package").field(&self.id()).finish()
    }
}

/// Reads only the manifest in `dir`.
pub(super) fn read_manifest(dir: &Path) -> Result<Manifest, ModelError> {
    Manifest::parse(&read_text(dir.join(MANIFEST_FILE))?)
}

pub(super) fn read_ensemble(dir: &Path) -> Result<Ensemble, ModelError> {
    Ensemble::parse(&read_text(dir.join(ENSEMBLE_FILE))?)
}

fn read_text(path: PathBuf) -> Result<String, ModelError> {
    let bytes = read_capped(&path, "manifest bytes", MANIFEST_BYTES_MAX as u64)?;
    String::from_utf8(bytes).map_err(|error| ModelError::Read {
        path,
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, error.utf8_error()),
    })
}

/// Reads a file of at most `limit` bytes. The limit holds even if the file grows meanwhile.
fn read_capped(path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Capacity for the whole file and for one byte more, which the read that finds the end needs.
    // Without that byte the vector would double its capacity.
    let size = file.metadata().map_err(failed)?.len().min(limit);
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    let actual = bytes.len() as u64;
    if actual > limit {
        return Err(ModelError::TooLarge { what, actual, limit });
    }
    Ok(bytes)
}

fn check_hash(file: &str, stated: &Sha256Hex, bytes: &[u8]) -> Result<(), ModelError> {
    let actual = Sha256Hex::of(bytes);
    if actual == *stated {
        return Ok(());
    }
    Err(ModelError::Hash {
        file: file.to_owned(),
        stated: stated.to_string(),
        actual: actual.to_string(),
    })
}

fn check_input(input: &InputContract, actual: &str) -> Result<(), ModelError> {
    if input.tensor == actual {
        return Ok(());
    }
    let rule = format!("is `{}`, the network's input is `{actual}`", input.tensor);
    Err(ModelError::value("input.tensor", rule))
}

/// Checks that the network has every output of the manifest, with the stated row shape.
fn check_outputs(
    manifest: &Manifest,
    input: &InputContract,
    actual: &[(String, Vec<usize>)],
) -> Result<(), ModelError> {
    for output in &manifest.outputs {
        let Some((_, shape)) = actual.iter().find(|(name, _)| *name == output.tensor) else {
            return Err(ModelError::NoOutput(output.tensor.clone()));
        };
        let stated = output.row_shape(input);
        if *shape != stated {
            let (tensor, actual) = (output.tensor.clone(), shape.clone());
            return Err(ModelError::OutputShape { tensor, stated, actual });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::causes;

    const IRIS: &str = "iris/3.3.6";

    fn models() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
    }

    /// Copies the iris model and applies `edit` to the manifest of the copy.
    fn copy_with(edit: impl Fn(String) -> String) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for file in ["iris.onnx", "golden.safetensors"] {
            std::fs::copy(models().join(IRIS).join(file), copy.path().join(file)).unwrap();
        }
        let text = std::fs::read_to_string(models().join(IRIS).join(MANIFEST_FILE)).unwrap();
        std::fs::write(copy.path().join(MANIFEST_FILE), edit(text)).unwrap();
        copy
    }

    fn refusal(dir: &Path) -> String {
        causes(&Package::open(dir).unwrap_err())
    }

    #[test]
    fn the_five_default_models_open_with_their_goldens() {
        let ids = ["yunet/2023mar", "sface/2021dec", "fr_liveness/0.0.1", "facemesh/3.3.6", IRIS];
        for id in ids {
            let package = Package::open(&models().join(id)).unwrap();
            assert_eq!(package.id(), id);
            assert_eq!(package.golden().unwrap().pictures.len(), 2);
        }
    }

    #[test]
    fn every_default_network_has_the_outputs_its_manifest_states() {
        for listing in crate::model::scan(&models()).unwrap() {
            let package = Package::open(&listing.dir).unwrap();
            package.graph().unwrap();
            package.graph_for(&package.golden().unwrap().input).unwrap();
        }
    }

    #[test]
    fn a_changed_file_is_refused_by_name_and_both_hashes() {
        let copy = copy_with(|text| text);
        Package::open(copy.path()).unwrap();
        std::fs::write(copy.path().join("iris.onnx"), b"other weights").unwrap();
        let message = refusal(copy.path());
        assert!(message.contains("iris.onnx has sha256 "), "{message}");
        assert!(message.contains("the manifest says be5cc9a0898"), "{message}");
        let copy = copy_with(|text| text);
        std::fs::write(copy.path().join("golden.safetensors"), b"other answers").unwrap();
        assert!(refusal(copy.path()).contains("golden.safetensors has sha256 "));
    }

    #[test]
    fn a_model_read_again_is_the_one_that_was_opened_whatever_lies_there_now() {
        let copy = copy_with(|text| text);
        let opened = Package::open(copy.path()).unwrap();
        let other = "a manifest that is none";
        std::fs::write(copy.path().join(MANIFEST_FILE), other).unwrap();
        let again = Package::reread(opened.dir(), &opened.manifest).unwrap();
        assert_eq!((again.manifest, again.onnx), (opened.manifest.clone(), opened.onnx));
        std::fs::write(copy.path().join("iris.onnx"), b"other weights").unwrap();
        let error = Package::reread(copy.path(), &opened.manifest).unwrap_err();
        assert!(causes(&error).contains("iris.onnx has sha256 "), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let copy = copy_with(|text| text.replace("\"iris.onnx\"", "\"lens.onnx\""));
        assert!(refusal(copy.path()).contains("lens.onnx"));
        assert!(refusal(Path::new("/nowhere/at/all")).contains("/nowhere/at/all"));
    }

    #[test]
    fn a_manifest_that_is_not_text_is_an_error() {
        let copy = copy_with(|text| text);
        std::fs::write(copy.path().join(MANIFEST_FILE), [0xff, 0xfe]).unwrap();
        assert!(refusal(copy.path()).contains("invalid utf-8"));
    }

    #[test]
    fn a_noncommercial_licence_needs_the_operators_word() {
        let copy = copy_with(|text| text.replace("\"Apache-2.0\"", "\"CC-BY-NC-4.0\""));
        let message = refusal(copy.path());
        assert!(message.contains("licence `CC-BY-NC-4.0` forbids commercial use"), "{message}");
        Package::open_with(copy.path(), LicencePolicy::AcceptNonCommercial).unwrap();
    }

    #[test]
    fn a_file_beyond_its_limit_is_not_read_to_the_end() {
        let copy = copy_with(|text| text);
        let path = copy.path().join("iris.onnx");
        let message = read_capped(&path, "weight bytes", 1000).unwrap_err().to_string();
        assert_eq!(message, "weight bytes of 1001 exceeds the limit of 1000");
        assert!(read_capped(&path, "weight bytes", 2_632_943).is_ok());
    }

    #[test]
    fn an_input_of_another_name_is_refused_with_both_names() {
        let manifest = read_manifest(&models().join(IRIS)).unwrap();
        check_input(&manifest.input, "input_1").unwrap();
        let message = check_input(&manifest.input, "x").unwrap_err().to_string();
        assert_eq!(message, "manifest: `input.tensor` is `input_1`, the network's input is `x`");
    }

    #[test]
    fn an_output_that_the_network_lacks_or_shapes_otherwise_is_refused() {
        let manifest = read_manifest(&models().join(IRIS)).unwrap();
        let check = |name: &str, shape: &[usize]| {
            check_outputs(&manifest, &manifest.input, &[(name.to_owned(), shape.to_vec())])
        };
        check("out_Identity", &[1, 1, 228]).unwrap();
        let absent = check("other", &[1, 1, 228]).unwrap_err().to_string();
        assert!(absent.contains("`out_Identity`, which the network does not have"), "{absent}");
        let flat = check("out_Identity", &[228]).unwrap_err().to_string();
        assert!(flat.contains("[1, 1, 228], the network [228]"), "{flat}");
    }
}
