//! Secrets, session tokens and the replay store: they keep biometric data from leaking, and
//! sessions from being forged or used twice.
//!
//! [`Secret`] wraps every pixel buffer, embedding, key and token. [`SessionTokens`] seals the
//! claims of a liveness session, so that any replica with the [`SessionKeys`] can run the session.
//! [`ReplayStore`] records which sessions were used.

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
