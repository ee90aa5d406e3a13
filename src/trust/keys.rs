//! The keys that seal session tokens, and the digest keys derived from them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use orion::hazardous::mac::blake2b::SecretKey;
use pasetors::keys::SymmetricKey;
use pasetors::paserk::{FormatAsPaserk, Id};
use pasetors::version4::V4;

use super::digest::{self, Digest};
use super::{Secret, hex};

/// Length of a key in bytes, as PASETO v4.local requires.
const KEY_LEN: usize = 32;

/// Size limit of the key file in bytes. Two keys of 65 bytes a line leave room for comments.
const FILE_BYTES_MAX: u64 = 4_096;

/// The live keys. The primary key seals tokens; both keys open tokens.
///
/// To rotate, give every replica `[old, new]`, then give every replica `[new, old]`. A day later,
/// when all frame digests under the old key have expired, give every replica `[new]`.
pub struct SessionKeys {
    primary: SessionKey,
    secondary: Option<SessionKey>,
}

/// One live key.
pub(super) struct SessionKey {
    /// Footer of the tokens that this key seals: `{"kid":"k4.lid.…"}`. The footer is not encrypted.
    pub(super) footer: String,
    pub(super) sealing_key: SymmetricKey<V4>,
    transaction_digest_key: SecretKey,
    frame_digest_key: SecretKey,
}

/// Digests of one value under each live key, so that records stay valid through a key rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedDigests {
    /// Digest under the primary key.
    pub primary: Digest,
    /// Digest under the secondary key. `None` without one, or if only the primary was sealed.
    pub secondary: Option<Digest>,
}

impl KeyedDigests {
    /// Iterates over the digests, the primary first.
    pub fn iter(&self) -> impl Iterator<Item = Digest> {
        std::iter::once(self.primary).chain(self.secondary)
    }
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the key file {path}")]
    Read {
        /// Path of the file, as given.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Every user of this machine may read or replace the keys.
    #[error("the key file {path} is open to others (mode {mode:03o}): chmod o= {path}")]
    OpenToOthers {
        /// Path of the file, as given.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file is larger than any valid key file.
    #[error("the key file {path} is over {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Path of the file, as given.
        path: PathBuf,
    },
    /// A line is not a key.
    #[error("line {line} of the key file {path} is not a key of 64 hexadecimal digits")]
    Line {
        /// Path of the file, as given.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
    /// The file holds no key, or more than two.
    #[error("the key file {path} holds {found} keys, but must hold 1 or 2")]
    Count {
        /// Path of the file, as given.
        path: PathBuf,
        /// Number of keys in the file.
        found: usize,
    },
    /// The file holds one key twice, so that a rotation would change nothing.
    #[error("the key file {path} holds the same key twice")]
    Repeated {
        /// Path of the file, as given.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random(#[from] getrandom::Error),
}

impl SessionKeys {
    /// Reads the keys of the file `path`, one key a line, the primary key first. Skips empty lines
    /// and lines that start with `#`.
    ///
    /// # Errors
    /// The file cannot be read, is open to other users, or does not hold one or two different keys.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::parse(path, read_private_file(path)?.expose())
    }

    /// Generates a key that only this process knows. Sessions sealed with it cannot move to another
    /// replica and end with the process.
    ///
    /// # Errors
    /// The operating system gave no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut key = Secret::new(vec![0; KEY_LEN]);
        getrandom::fill(key.expose_mut())?;
        let key = SessionKey::new(&key).expect("it has the length of a key");
        Ok(Self { primary: key, secondary: None })
    }

    /// Returns the digests of a transaction of `tenant`. The digests are keyed, because transaction
    /// numbers can be guessed.
    pub fn transaction_digests(&self, tenant: &str, transaction: &str) -> KeyedDigests {
        let parts = [tenant.as_bytes(), transaction.as_bytes()];
        self.digests(|key| digest::keyed_digest(&key.transaction_digest_key, &parts))
    }

    /// Returns the digests that identify a frame in another session and on another replica. `frame`
    /// is the SHA-256 of the frame's bytes.
    pub fn frame_digests(&self, frame: Digest) -> KeyedDigests {
        self.digests(|key| digest::keyed_digest(&key.frame_digest_key, &[frame.as_bytes()]))
    }

    pub(super) fn primary(&self) -> &SessionKey {
        &self.primary
    }

    pub(super) fn find_by_footer(&self, footer: &[u8]) -> Option<&SessionKey> {
        self.iter().find(|key| key.footer.as_bytes() == footer)
    }

    fn iter(&self) -> impl Iterator<Item = &SessionKey> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }

    fn digests(&self, digest: impl Fn(&SessionKey) -> Digest) -> KeyedDigests {
        KeyedDigests {
            primary: digest(&self.primary),
            secondary: self.secondary.as_ref().map(digest),
        }
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let key = hex::decode(line).map(Secret::new).and_then(|key| SessionKey::new(&key));
            let bad = || KeyError::Line { path: path.to_owned(), line: index + 1 };
            keys.push(key.ok_or_else(bad)?);
        }
        let found = keys.len();
        let mut keys = keys.into_iter();
        match (keys.next(), keys.next(), keys.next()) {
            (Some(primary), Some(secondary), None) if primary.footer == secondary.footer => {
                Err(KeyError::Repeated { path: path.to_owned() })
            }
            (Some(primary), secondary, None) => Ok(Self { primary, secondary }),
            _ => Err(KeyError::Count { path: path.to_owned(), found }),
        }
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|key| &key.footer)).finish()
    }
}

impl SessionKey {
    /// Returns `None` unless `key` has [`KEY_LEN`] bytes.
    fn new(key: &Secret<Vec<u8>>) -> Option<Self> {
        let bytes: &[u8; KEY_LEN] = key.expose().as_slice().try_into().ok()?;
        let sealing_key = SymmetricKey::<V4>::from(bytes).ok()?;
        let mut id = String::new();
        Id::from(&sealing_key).fmt(&mut id).ok()?;
        Some(Self {
            footer: format!("{{\"kid\":\"{id}\"}}"),
            transaction_digest_key: digest::derive_key(bytes, "menshen transaction digest"),
            frame_digest_key: digest::derive_key(bytes, "menshen frame digest"),
            sealing_key,
        })
    }
}

/// Reads a whole file. Refuses a file that other users may read or write.
fn read_private_file(path: &Path) -> Result<Secret<Vec<u8>>, KeyError> {
    let failed = |source| KeyError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // The metadata of the open file, not of the path: the path could name another file by the time
    // of the read.
    refuse_open_to_others(path, &file.metadata().map_err(failed)?)?;
    let capacity = FILE_BYTES_MAX as usize + 1;
    let mut text = Secret::new(Vec::with_capacity(capacity));
    file.take(FILE_BYTES_MAX + 1).read_to_end(text.expose_mut()).map_err(failed)?;
    if text.expose().len() == capacity {
        return Err(KeyError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(unix)]
fn refuse_open_to_others(path: &Path, about: &std::fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;

    let mode = about.permissions().mode() & 0o777;
    if mode & 0o007 == 0 {
        Ok(())
    } else {
        Err(KeyError::OpenToOthers { path: path.to_owned(), mode })
    }
}

#[cfg(not(unix))]
fn refuse_open_to_others(_: &Path, _: &std::fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
pub(super) fn keys(lines: &[&str]) -> SessionKeys {
    SessionKeys::parse(Path::new("keys"), lines.join("\n").as_bytes()).unwrap()
}

#[cfg(test)]
pub(super) const KEY_A: &str = "707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f";
#[cfg(test)]
pub(super) const KEY_B: &str = "0101010101010101010101010101010101010101010101010101010101010101";

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn parse(text: &str) -> Result<SessionKeys, KeyError> {
        SessionKeys::parse(Path::new("keys"), text.as_bytes())
    }

    #[test]
    fn the_key_id_is_the_paserk_of_the_key() {
        // Second vector of github.com/paseto-standard/test-vectors/blob/master/PASERK/k4.lid.json
        let footer = keys(&[KEY_A]).primary().footer.clone();
        let id = "k4.lid.iVtYQDjr5gEijCSjJC3fQaJm7nCeQSeaty0Jixy8dbsk";
        assert_eq!(footer, format!("{{\"kid\":\"{id}\"}}"));
    }

    #[test]
    fn a_file_holds_one_or_two_different_keys_and_comments() {
        let text = format!("# new\n{KEY_B}\n\n  {KEY_A}\r\n");
        assert_eq!(parse(&text).unwrap().iter().count(), 2);
        assert!(matches!(parse("# none\n"), Err(KeyError::Count { found: 0, .. })));
        let same = format!("{KEY_A}\n{}\n", KEY_A.to_uppercase());
        assert!(matches!(parse(&same), Err(KeyError::Repeated { .. })));
        let third = format!("{KEY_A}\n{KEY_B}\n{}\n", "ab".repeat(32));
        assert!(matches!(parse(&third), Err(KeyError::Count { found: 3, .. })));
    }

    #[test]
    fn a_line_that_is_no_key_is_named_and_not_repeated() {
        for line in ["ab", "zz", &KEY_A[1..], &format!("{KEY_A}00")] {
            let error = parse(&format!("\n{line}")).unwrap_err();
            assert!(matches!(error, KeyError::Line { line: 2, .. }), "{line}: {error}");
            assert!(!format!("{error} {error:?}").contains("7071"));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        assert!(!format!("{:?}", keys(&[KEY_B])).contains("0101"));
    }

    #[test]
    fn generated_keys_differ() {
        let footer = || SessionKeys::generate().unwrap().primary().footer.clone();
        assert_ne!(footer(), footer());
    }

    #[test]
    fn digests_outlive_a_rotation_and_differ_by_purpose_tenant_and_key() {
        let (old, both) = (keys(&[KEY_A]), keys(&[KEY_B, KEY_A]));
        let frame = Digest::of(b"frame");
        assert_eq!(old.frame_digests(frame).primary, both.frame_digests(frame).secondary.unwrap());
        let before = old.transaction_digests("north", "42").primary;
        assert_eq!(both.transaction_digests("north", "42").secondary, Some(before));
        assert_ne!(both.transaction_digests("north", "42").primary, before);
        assert_ne!(old.transaction_digests("south", "42").primary, before);
        assert_ne!(derived(b"42", "menshen frame digest"), derived(b"42", "menshen other"));
    }

    fn derived(part: &[u8], purpose: &str) -> Digest {
        digest::keyed_digest(&digest::derive_key(&[1; KEY_LEN], purpose), &[part])
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_refused_and_a_private_one_read() {
        use std::os::unix::fs::PermissionsExt;

        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{KEY_A}").unwrap();
        for (mode, refused) in [(0o600, false), (0o440, false), (0o644, true), (0o602, true)] {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            let result = SessionKeys::load(file.path());
            let open = matches!(result, Err(KeyError::OpenToOthers { mode: m, .. }) if m == mode);
            assert_eq!((open, result.is_ok()), (refused, !refused), "{mode:o}");
        }
    }

    #[test]
    fn a_missing_and_an_endless_file_are_refused() {
        let missing = SessionKeys::load(Path::new("/nowhere/keys")).unwrap_err();
        assert!(matches!(missing, KeyError::Read { .. }));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(SessionKeys::load(file.path()), Err(KeyError::TooLarge { .. })));
    }
}
