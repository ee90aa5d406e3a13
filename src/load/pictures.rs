//! The pictures that calls send: from a folder, or those built into the program.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::LoadError;

/// Most bytes of all pictures of a folder. They are encoded once for each field that has them. A
/// call in flight refers to them and copies none.
const BYTES_MAX: usize = 256 << 20;

/// Files of pictures, at least one.
#[derive(Debug, Clone)]
pub struct Pictures(pub(super) Vec<Bytes>);

/// The built-in portraits. All are in the public domain: see `tests/fixtures/faces/CREDITS.md`.
const BUILT_IN: [&[u8]; 4] = [
    include_bytes!("../../tests/fixtures/faces/person_a_2.jpg"),
    include_bytes!("../../tests/fixtures/faces/person_b_2.jpg"),
    include_bytes!("../../tests/fixtures/faces/impostor_1.jpg"),
    GRACE_HOPPER,
];

/// The person of rendered sessions: a calm face that looks straight into the camera.
pub(super) const GRACE_HOPPER: &[u8] =
    include_bytes!("../../tests/fixtures/faces/grace_hopper.jpg");

impl Pictures {
    /// Returns the portraits that are built into the program.
    pub fn built_in() -> Self {
        Self(BUILT_IN.into_iter().map(Bytes::from_static).collect())
    }

    /// Reads all `.jpg`, `.jpeg` and `.png` files of a folder, in the order of their names.
    ///
    /// # Errors
    /// The folder or a file cannot be read, holds no picture, or holds more than 256 MiB.
    pub fn read(folder: &Path) -> Result<Self, LoadError> {
        let files = files(folder, &["jpg", "jpeg", "png"])?;
        if files.is_empty() {
            return Err(LoadError::NoPictures { path: folder.to_owned() });
        }
        let mut bytes = 0;
        let mut pictures = Vec::new();
        for path in files {
            let picture = read(&path)?;
            bytes += picture.len();
            if bytes > BYTES_MAX {
                return Err(LoadError::PictureBytes { path: folder.to_owned(), limit: BYTES_MAX });
            }
            pictures.push(picture);
        }
        Ok(Self(pictures))
    }
}

/// Returns the files of a folder that have one of these extensions, in the order of their names.
pub(super) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, LoadError> {
    let failed = |source| LoadError::Read { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_picture = extension
            .is_some_and(|has| extensions.iter().any(|want| has.eq_ignore_ascii_case(want)));
        if is_picture && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) fn read(path: &Path) -> Result<Bytes, LoadError> {
    let bytes = std::fs::read(path);
    let bytes = bytes.map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names_without_other_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("b.JPG", "2"), ("a.png", "1"), ("c.txt", "no"), ("d.jpeg", "3")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let pictures = Pictures::read(folder.path()).unwrap();
        assert_eq!(pictures.0, ["1", "2", "3"]);
    }

    #[test]
    fn a_folder_without_pictures_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = Pictures::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        let error = Pictures::read(&folder.path().join("none")).unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }), "{error}");
    }
}
