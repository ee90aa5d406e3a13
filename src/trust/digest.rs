//! Digests of values that must not be stored themselves: transactions, portraits, frames.

use std::fmt;

use orion::errors::UnknownCryptoError;
use orion::hazardous::mac::blake2b::{Blake2b, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hex;

/// Length of a digest in bytes.
const LEN: usize = 32;

/// A digest of 32 bytes. `Debug` does not print it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; LEN]);

impl Digest {
    /// Returns the SHA-256 of `bytes`. The digest is not keyed: anyone who can guess `bytes` can
    /// verify the guess.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the digest as bytes.
    pub fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    pub(super) fn hex(&self) -> String {
        hex::encode(&self.0)
    }
}

impl From<[u8; LEN]> for Digest {
    fn from(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.hex()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = hex::decode(text.as_bytes()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("a digest is 64 hexadecimal digits")
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(redacted)")
    }
}

/// Returns a digest of `parts` that only a holder of `key` can compute. The length of each part is
/// hashed before the part, so that two different lists of parts never hash the same bytes.
pub(super) fn keyed_digest(key: &SecretKey, parts: &[&[u8]]) -> Digest {
    let mac = || -> Result<Digest, UnknownCryptoError> {
        let mut state = Blake2b::new(key, LEN)?;
        for part in parts {
            state.update(&(part.len() as u64).to_le_bytes())?;
            state.update(part)?;
        }
        let tag = state.finalize()?;
        tag.unprotected_as_ref().try_into().map(Digest).map_err(|_| UnknownCryptoError)
    };
    mac().expect("BLAKE2b gives 32 bytes, and is finished once")
}

/// Derives a key for one purpose. A key that leaks says nothing about the keys of other purposes.
pub(super) fn derive_key(key: &[u8; LEN], purpose: &str) -> SecretKey {
    let key = SecretKey::try_from(key.as_slice()).expect("BLAKE2b takes keys of 32 bytes");
    let derived = keyed_digest(&key, &[purpose.as_bytes()]);
    SecretKey::try_from(derived.0.as_slice()).expect("BLAKE2b takes keys of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_sha_256() {
        // printf abc | sha256sum
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of(b"abc").hex(), expected);
        assert_eq!(Digest::try_from(expected.to_owned()), Ok(Digest::of(b"abc")));
    }

    #[test]
    fn a_keyed_digest_is_blake2b_of_each_part_behind_its_length() {
        // python3: hashlib.blake2b((3).to_bytes(8, "little") + b"abc" + bytes(8), digest_size=32,
        //                          key=bytes(range(32))).hexdigest()
        let key: Vec<u8> = (0..32).collect();
        let key = SecretKey::try_from(key.as_slice()).unwrap();
        let expected = "cf9c08d15b36283bbecc5396204ad0f2934a3022327303cf9524999f287f909c";
        assert_eq!(keyed_digest(&key, &[b"abc", b""]).hex(), expected);
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_digest() {
        let key = SecretKey::try_from([7; 32].as_slice()).unwrap();
        assert_ne!(keyed_digest(&key, &[b"ab", b"c"]), keyed_digest(&key, &[b"a", b"bc"]));
    }

    #[test]
    fn a_digest_is_not_printed() {
        assert_eq!(format!("{:?}", Digest::of(b"abc")), "Digest(redacted)");
    }
}
