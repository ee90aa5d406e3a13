//! Finds the models on disk: `<root>/<name>/<version>/model.toml` or `…/ensemble.toml`.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::ModelError;
use super::ensemble::Ensemble;
use super::manifest::Manifest;
use super::package::{ENSEMBLE_FILE, MANIFEST_FILE, read_ensemble, read_manifest};

/// Most entries of a directory of models.
const ENTRIES_MAX: usize = 1024;

/// A model found on disk. Its manifest was read, its weights were not.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The directory of the model.
    pub dir: PathBuf,
    /// The manifest of the model.
    pub manifest: Manifest,
}

/// The content of a folder of models.
#[derive(Debug, Default)]
pub struct ModelFolder {
    /// The models, in the order of [`scan`].
    pub models: Vec<Listing>,
    /// The ensembles, in the order of [`scan_ensembles`].
    pub ensembles: Vec<Ensemble>,
    /// One [`ModelError::InDirectory`] for each refused directory.
    pub refused: Vec<ModelError>,
}

/// Returns all models and ensembles under `root`, and an error for each refused directory.
///
/// # Errors
/// A directory cannot be listed.
pub fn scan_folder(root: &Path) -> Result<ModelFolder, ModelError> {
    let (models, refused_models) = scan_models(root)?;
    let (ensembles, refused_ensembles) = scan_each(root, holds_ensemble, list_ensemble)?;
    let refused = refused_models.into_iter().chain(refused_ensembles).collect();
    Ok(ModelFolder { models, ensembles: sorted_ensembles(ensembles), refused })
}

/// Returns all models under `root`, sorted by name and then by version, the oldest first. Runs of
/// digits in a version are compared as numbers. Files and hidden entries are ignored.
///
/// # Errors
/// [`ModelError::InDirectory`] names a version directory that has no valid manifest, or whose
/// manifest has another name or version.
pub fn scan(root: &Path) -> Result<Vec<Listing>, ModelError> {
    let (models, refused) = scan_models(root)?;
    refused.into_iter().next().map_or(Ok(models), Err)
}

/// Returns all ensembles under `root`, in the order of [`scan`]. Does not check that the members
/// exist.
///
/// # Errors
/// As [`scan`].
pub fn scan_ensembles(root: &Path) -> Result<Vec<Ensemble>, ModelError> {
    let (ensembles, refused) = scan_each(root, holds_ensemble, list_ensemble)?;
    refused.into_iter().next().map_or_else(|| Ok(sorted_ensembles(ensembles)), Err)
}

fn scan_models(root: &Path) -> Result<(Vec<Listing>, Vec<ModelError>), ModelError> {
    let holds_model = |dir: &Path| !is_ensemble_alone(dir);
    let (mut models, refused) = scan_each(root, holds_model, |dir| {
        Ok(Listing { dir: dir.to_owned(), manifest: list_model(dir)? })
    })?;
    models.sort_by(|a, b| {
        let (a, b) = (&a.manifest, &b.manifest);
        a.name.cmp(&b.name).then_with(|| natural_order(&a.version, &b.version))
    });
    Ok((models, refused))
}

fn sorted_ensembles(mut ensembles: Vec<Ensemble>) -> Vec<Ensemble> {
    ensembles
        .sort_by(|a, b| a.name.cmp(&b.name).then_with(|| natural_order(&a.version, &b.version)));
    ensembles
}

/// Applies `read` to every version directory that is `wanted`. Returns the values and the errors.
fn scan_each<T>(
    root: &Path,
    wanted: impl Fn(&Path) -> bool,
    read: impl Fn(&Path) -> Result<T, ModelError>,
) -> Result<(Vec<T>, Vec<ModelError>), ModelError> {
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for dir in version_directories(root)?.into_iter().filter(|dir| wanted(dir)) {
        match read(&dir) {
            Ok(read) => found.push(read),
            Err(source) => refused.push(ModelError::InDirectory { dir, source: Box::new(source) }),
        }
    }
    Ok((found, refused))
}

/// Returns the model called `wanted`: `name/version`, or `name` for the newest version.
pub fn find<'a>(listings: &'a [Listing], wanted: &str) -> Option<&'a Listing> {
    listings.iter().rfind(|listing| {
        let manifest = &listing.manifest;
        match wanted.split_once('/') {
            Some((name, version)) => manifest.name == name && manifest.version == version,
            None => manifest.name == wanted,
        }
    })
}

fn list_model(dir: &Path) -> Result<Manifest, ModelError> {
    let manifest = read_manifest(dir)?;
    check_directory_name(dir, manifest.id())?;
    Ok(manifest)
}

fn list_ensemble(dir: &Path) -> Result<Ensemble, ModelError> {
    let ensemble = read_ensemble(dir)?;
    check_directory_name(dir, ensemble.id())?;
    Ok(ensemble)
}

fn check_directory_name(dir: &Path, id: String) -> Result<(), ModelError> {
    if dir.ends_with(&id) { Ok(()) } else { Err(ModelError::Misplaced { id }) }
}

fn holds_ensemble(dir: &Path) -> bool {
    dir.join(ENSEMBLE_FILE).exists()
}

/// Returns true if `dir` holds an ensemble and no model. A directory with both files is listed as
/// both, so that its name is ambiguous and choosing it is refused.
fn is_ensemble_alone(dir: &Path) -> bool {
    holds_ensemble(dir) && !dir.join(MANIFEST_FILE).exists()
}

/// Returns the directories of all versions of all models.
fn version_directories(root: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let mut found = Vec::new();
    for model in subdirectories(root)? {
        found.extend(subdirectories(&model)?);
    }
    Ok(found)
}

/// Returns the directories in `dir` sorted by name, including links to directories.
fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let failed = |source| ModelError::Read { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for (k, entry) in std::fs::read_dir(dir).map_err(failed)?.enumerate() {
        if k == ENTRIES_MAX {
            let (actual, limit) = (k as u64 + 1, ENTRIES_MAX as u64);
            return Err(ModelError::TooLarge { what: "directory entries", actual, limit });
        }
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !is_hidden && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Compares texts piece by piece, with runs of digits as numbers: `1.9` comes before `1.10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let by_piece = pieces(a).cmp(pieces(b));
    by_piece.then_with(|| a.cmp(b))
}

/// Splits `text` into runs of digits and runs of other characters. A run of digits becomes a pair:
/// the count of its digits plus 1, and the digits, both without leading zeros. Such pairs compare
/// as the numbers do.
fn pieces(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_number = rest.chars().next()?.is_ascii_digit();
        let ends = |c: char| c.is_ascii_digit() != is_number;
        let (piece, tail) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        rest = tail;
        let digits = piece.trim_start_matches('0');
        Some(if is_number { (digits.len() + 1, digits) } else { (0, piece) })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::causes;

    const IRIS: &str = include_str!("../../models/iris/3.3.6/model.toml");

    fn put(root: &Path, dir: &str, version: &str) {
        let dir = root.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        let text = IRIS.replacen("\"3.3.6\"", &format!("\"{version}\""), 1);
        std::fs::write(dir.join(MANIFEST_FILE), text).unwrap();
    }

    #[test]
    fn the_default_models_are_found_by_name_and_by_version() {
        let listings = scan(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).unwrap();
        let ids: Vec<String> = listings.iter().map(|l| l.manifest.id()).collect();
        let expected =
            ["facemesh/3.3.6", "fr_liveness/0.0.1", "iris/3.3.6", "sface/2021dec", "yunet/2023mar"];
        assert_eq!(ids, expected);
        assert!(find(&listings, "sface").unwrap().dir.ends_with("sface/2021dec"));
        assert!(find(&listings, "sface/2021dec").is_some());
        for wanted in ["sface/2", "sface/", "/2021dec", "", "sfac", "sface/2021dec/x"] {
            assert!(find(&listings, wanted).is_none(), "{wanted}");
        }
    }

    #[test]
    fn the_newest_version_is_the_last() {
        let root = tempfile::tempdir().unwrap();
        for version in ["1.10", "1.9", "1.9-rc1"] {
            put(root.path(), &format!("iris/{version}"), version);
        }
        std::fs::create_dir(root.path().join(".git")).unwrap();
        std::fs::write(root.path().join("README.md"), "models").unwrap();
        let listings = scan(root.path()).unwrap();
        let versions: Vec<&str> = listings.iter().map(|l| l.manifest.version.as_str()).collect();
        assert_eq!(versions, ["1.9", "1.9-rc1", "1.10"]);
        assert_eq!(find(&listings, "iris").unwrap().manifest.version, "1.10");
    }

    #[test]
    fn a_broken_model_is_an_error_that_names_its_directory() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "iris/1", "1");
        put(root.path(), "iris/2", "3");
        let message = causes(&scan(root.path()).unwrap_err());
        assert!(message.contains("iris/2: the manifest says `iris/3`"), "{message}");
        std::fs::remove_file(root.path().join("iris/2").join(MANIFEST_FILE)).unwrap();
        let message = causes(&scan(root.path()).unwrap_err());
        assert!(message.contains("iris/2: cannot read"), "{message}");
    }

    #[test]
    fn every_broken_directory_is_named_and_the_others_are_listed() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "iris/1", "1");
        put(root.path(), "iris/2", "3");
        std::fs::create_dir_all(root.path().join("pair/1")).unwrap();
        std::fs::write(root.path().join("pair/1").join(ENSEMBLE_FILE), "name = 1").unwrap();
        let folder = scan_folder(root.path()).unwrap();
        assert_eq!(folder.models.len(), 1);
        let refused: Vec<String> = folder.refused.iter().map(|error| causes(error)).collect();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert!(refused[0].contains("iris/2: the manifest says"), "{refused:?}");
        assert!(refused[1].contains("pair/1: manifest line 1"), "{refused:?}");
    }

    #[test]
    fn ensembles_are_listed_apart_from_models() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "iris/1", "1");
        let pair = root.path().join("pair/2");
        std::fs::create_dir_all(&pair).unwrap();
        let text = |version: &str| {
            format!(
                "name = \"pair\"\nversion = \"{version}\"\nmembers = [\"one/1\"]\n\
                 fusion = \"min\"\nscore_min = 0.5\nscore_source = \"none\"\n"
            )
        };
        std::fs::write(pair.join(ENSEMBLE_FILE), text("2")).unwrap();
        let ids = |root: &Path| -> Vec<String> {
            scan(root).unwrap().iter().map(|listing| listing.manifest.id()).collect()
        };
        assert_eq!(ids(root.path()), ["iris/1"]);
        let ensembles = scan_ensembles(root.path()).unwrap();
        assert_eq!(ensembles.iter().map(Ensemble::id).collect::<Vec<_>>(), ["pair/2"]);
        std::fs::write(pair.join(ENSEMBLE_FILE), text("3")).unwrap();
        let message = causes(&scan_ensembles(root.path()).unwrap_err());
        assert!(message.contains("pair/2: the manifest says `pair/3`"), "{message}");
    }

    proptest! {
        #[test]
        fn versions_are_in_one_order(
            a in "[0-2.a]{0,5}", b in "[0-2.a]{0,5}", c in "[0-2.a]{0,5}",
        ) {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b) == Ordering::Equal, a == b);
            let mut sorted = [&a, &b, &c];
            sorted.sort_by(|x, y| natural_order(x, y));
            prop_assert!(natural_order(sorted[0], sorted[2]) != Ordering::Greater);
        }

        #[test]
        fn numbers_in_versions_count_as_numbers(a in any::<u32>(), b in any::<u32>()) {
            prop_assert_eq!(natural_order(&format!("v{a}"), &format!("v{b}")), a.cmp(&b));
        }
    }
}
