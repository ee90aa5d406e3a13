//! What keeps biometrics from leaking and sessions from being forged or used twice.
//!
//! [`Secret`] wraps every pixel buffer, embedding, key and token. [`SessionTokens`] seal what a
//! liveness session was promised, so that any replica with the [`SessionKeys`] can run it.
//! [`ReplayStore`] remembers which sessions were used.

mod digest;
mod hex;
mod keys;
mod replay;
mod secret;
mod token;

pub use digest::Digest;
pub use keys::{KeyError, KeyedDigests, SessionKeys};
pub use replay::{
    ClaimOutcome, RedisUrl, ReplayError, ReplayStore, ReplayTarget, ReplayTargetError, SessionState,
};
pub use secret::{Secret, Wipe};
pub use token::{
    BoundField, PresentedBinding, SessionClaims, SessionId, SessionTokens, TOKEN_BYTES_MAX,
    TokenError, random_u128,
};
