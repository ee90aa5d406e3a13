//! Secrets, session tokens and the replay store: they keep biometric data from leaking, and
//! sessions from being forged or used twice.
//!
//! [`Secret`] wraps every pixel buffer, embedding, key and token. [`SessionTokens`] seals the
//! claims of a liveness session, so that any replica with the [`SessionKeys`] can run the session.
//! [`ReplayStore`] records which sessions were used.
//!
//! The *claims* of a session are the content of its token, as in PASETO and JWT. To *claim* a
//! session is to record in the replay store that it is used: the first claim wins. A field named
//! `store` is a shop; in comments, the store of used sessions is the replay store.

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
