//! The errors of a request. A poor photograph is an answer, not an error.

use std::time::Duration;

use crate::device::DeviceError;
use crate::face::calibration::PolicyError;
use crate::scheduler::{Overloaded, RowError};
use crate::trust::{ReplayError, TokenError};

/// A field of the request that violates a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request message, such as `live_photos[0].data`.
    pub field: String,
    /// The rule, with its limit.
    pub description: String,
}

impl Violation {
    /// Creates a violation of the rule `description` by `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request violate rules; at least one.
    #[error("invalid request: {}", join(.0))]
    Invalid(Vec<Violation>),
    /// Admission refused the request for load.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The deadline passed.
    #[error("the deadline passed before the answer was ready")]
    Expired,
    /// The models are not live yet, a device was lost, or the server is stopping.
    #[error("the server is not ready: {0}")]
    NotReady(&'static str),
    /// The caller requires a model that is not live.
    #[error("the requested model is not live; the live embedding model is {live}")]
    ModelNotLive {
        /// Name and version of the live model.
        live: String,
    },
    /// An embedding is of another space than the live embedding model's.
    #[error("embeddings of different spaces cannot be compared; the live space is {live}")]
    SpaceMismatch {
        /// The space of the live embedding model.
        live: String,
    },
    /// The token was refused, or belongs to another tenant, shop, device or portrait.
    #[error(transparent)]
    Token(TokenError),
    /// The session was used before.
    #[error("the session was used before: create another one")]
    SessionUsed,
    /// The session was created for the other method, which is named here.
    #[error("the session was created for {0}")]
    WrongCall(&'static str),
    /// The transaction has used all of its sessions.
    #[error("the transaction has used all of its {attempts_max} sessions")]
    AttemptsSpent {
        /// The limit.
        attempts_max: u32,
    },
    /// The session has no result, or the result belongs to another shop.
    #[error("the session has no result")]
    NoResult,
    /// The replay store is unavailable. Without it nothing may be decided.
    #[error("the store of used sessions is unavailable")]
    ReplayStore(#[source] ReplayError),
    /// The server skipped too many frames of a session to judge it.
    #[error("the server is too busy: it skipped {skipped} of {all} frames")]
    Behind {
        /// Number of skipped frames.
        skipped: usize,
        /// Number of frames that had to be measured, the skipped ones included.
        all: usize,
    },
    /// The client's stream broke: a message was refused or cannot be decoded.
    #[error("the stream broke: {0}")]
    BrokenStream(String),
    /// The byte budget of arriving messages is full, so a message was refused.
    #[error("too many bytes of requests are arriving at once")]
    IntakeFull,
    /// The client left or does not read its answers.
    #[error("the client has left")]
    Cancelled,
    /// A fault of the server. The caller learns no more.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an [`Error`] means to the caller and to the operator. It determines the status of the
/// answer, the outcome in the metrics and the level in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request violates a rule of the API.
    Invalid,
    /// The token is bound to another tenant, shop, device or portrait.
    Denied,
    /// The model or the result does not exist.
    NotFound,
    /// The request is valid, but not possible in the current state.
    Precondition,
    /// The session was used before.
    AlreadyUsed,
    /// Refused for load: a request by admission, or an arriving message by the intake, which may
    /// end a running session.
    Overloaded,
    /// The server skipped too many frames of a session.
    Behind,
    /// The deadline passed.
    Expired,
    /// The server or a device is not in service.
    NotReady,
    /// The replay store is unavailable.
    ReplayStoreDown,
    /// The client left.
    Cancelled,
    /// A fault of the server.
    Internal,
}

impl Error {
    /// Returns the kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid(_) | Self::BrokenStream(_) => ErrorKind::Invalid,
            Self::Overloaded(_) | Self::IntakeFull => ErrorKind::Overloaded,
            Self::Expired => ErrorKind::Expired,
            Self::NotReady(_) => ErrorKind::NotReady,
            Self::ModelNotLive { .. } | Self::NoResult => ErrorKind::NotFound,
            Self::SpaceMismatch { .. } | Self::WrongCall(_) | Self::AttemptsSpent { .. } => {
                ErrorKind::Precondition
            }
            Self::Token(error) => kind_of_token(*error),
            Self::SessionUsed => ErrorKind::AlreadyUsed,
            Self::ReplayStore(_) => ErrorKind::ReplayStoreDown,
            Self::Behind { .. } => ErrorKind::Behind,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Creates the error of one violated field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }

    /// Creates the error of a fault of the server.
    pub fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(source))
    }
}

fn kind_of_token(error: TokenError) -> ErrorKind {
    match error {
        TokenError::Forged
        | TokenError::UnknownKey
        | TokenError::WrongAudience
        | TokenError::TooLong => ErrorKind::Invalid,
        TokenError::Expired | TokenError::NotYetValid => ErrorKind::Precondition,
        TokenError::WrongBinding(_) => ErrorKind::Denied,
        TokenError::Random => ErrorKind::Internal,
    }
}

impl From<RowError> for Error {
    fn from(error: RowError) -> Self {
        match error {
            RowError::Expired => Self::Expired,
            RowError::Stopped => Self::NotReady("it is stopping"),
            RowError::Device(DeviceError::Lost(_) | DeviceError::OutOfService) => {
                Self::NotReady("a device is out of service")
            }
            other @ (RowError::Device(_) | RowError::NoLane { .. }) => Self::internal(other),
        }
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Random => Self::internal(error),
            other => Self::Token(other),
        }
    }
}

impl From<ReplayError> for Error {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::ResultTooLong { .. } => Self::internal(error),
            other => Self::ReplayStore(other),
        }
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::invalid("policy_fmr", error.to_string())
    }
}

/// Retry delay when the server is not ready.
pub const NOT_READY_RETRY_AFTER: Duration = Duration::from_secs(1);

fn join(violations: &[Violation]) -> String {
    let parts: Vec<String> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::Loss;
    use crate::scheduler::Resource;
    use crate::trust::BoundField;

    #[test]
    fn every_error_has_the_kind_that_its_caller_must_know() {
        let refusal = Overloaded {
            what: Resource::Requests,
            limit: 1,
            retry_after: Duration::from_millis(100),
        };
        for (error, kind) in [
            (Error::invalid("a", "is required"), ErrorKind::Invalid),
            (Error::BrokenStream("no message".to_owned()), ErrorKind::Invalid),
            (Error::Overloaded(refusal), ErrorKind::Overloaded),
            (Error::IntakeFull, ErrorKind::Overloaded),
            (Error::Behind { skipped: 6, all: 20 }, ErrorKind::Behind),
            (Error::Expired, ErrorKind::Expired),
            (Error::NotReady("models are loading"), ErrorKind::NotReady),
            (Error::ModelNotLive { live: "a/1".to_owned() }, ErrorKind::NotFound),
            (Error::NoResult, ErrorKind::NotFound),
            (Error::SpaceMismatch { live: "a".to_owned() }, ErrorKind::Precondition),
            (Error::WrongCall("Run"), ErrorKind::Precondition),
            (Error::AttemptsSpent { attempts_max: 3 }, ErrorKind::Precondition),
            (Error::SessionUsed, ErrorKind::AlreadyUsed),
            (
                Error::ReplayStore(ReplayError::TimedOut { timeout_ms: 1 }),
                ErrorKind::ReplayStoreDown,
            ),
            (Error::Cancelled, ErrorKind::Cancelled),
            (Error::internal(std::fmt::Error), ErrorKind::Internal),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_token_is_malformed_late_or_somebody_elses() {
        for (error, kind) in [
            (TokenError::Forged, ErrorKind::Invalid),
            (TokenError::UnknownKey, ErrorKind::Invalid),
            (TokenError::WrongAudience, ErrorKind::Invalid),
            (TokenError::TooLong, ErrorKind::Invalid),
            (TokenError::Expired, ErrorKind::Precondition),
            (TokenError::NotYetValid, ErrorKind::Precondition),
            (TokenError::WrongBinding(BoundField::Store), ErrorKind::Denied),
            (TokenError::Random, ErrorKind::Internal),
        ] {
            assert_eq!(Error::Token(error).kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_lost_device_is_not_ready_and_a_panicked_one_is_a_fault() {
        let loss = Loss { device: "cuda:0".to_owned(), source: Arc::new(std::fmt::Error) };
        for (error, kind) in [
            (DeviceError::Lost(loss), ErrorKind::NotReady),
            (DeviceError::OutOfService, ErrorKind::NotReady),
            (DeviceError::Panicked, ErrorKind::Internal),
        ] {
            assert_eq!(Error::from(RowError::Device(error)).kind(), kind);
        }
    }
}
