//! Why a request got no answer. A poor photograph is an answer, not an error.

use std::time::Duration;

use crate::device::DeviceError;
use crate::face::calibration::PolicyError;
use crate::scheduler::{Overloaded, RowError};
use crate::trust::{ReplayError, TokenError};

/// A field of the request that breaks its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request message, such as `live_photos[0].data`.
    pub field: String,
    /// The rule and the limit.
    pub description: String,
}

impl Violation {
    /// Says that `field` breaks the rule in `description`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request break their rules; at least one.
    #[error("invalid request: {}", join(.0))]
    Invalid(Vec<Violation>),
    /// No room for one more request.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The deadline passed.
    #[error("the deadline passed before the answer was ready")]
    Expired,
    /// The models are not live yet, a device was lost, or the server is stopping.
    #[error("the server is not ready: {0}")]
    NotReady(&'static str),
    /// The caller insists on a model that is not live.
    #[error("the model asked for is not live; the live embedding model is {live}")]
    ModelNotLive {
        /// Name and version of the live model.
        live: String,
    },
    /// Two embeddings of different spaces.
    #[error("embeddings of different spaces cannot be compared; the live space is {live}")]
    SpaceMismatch {
        /// The space of the live embedding model.
        live: String,
    },
    /// The token does not stand for a session here and now.
    #[error(transparent)]
    Token(TokenError),
    /// The session was run before.
    #[error("the session was used before: create another one")]
    SessionUsed,
    /// The session was created for the other call.
    #[error("the session was created for {0}")]
    WrongCall(&'static str),
    /// The transaction has had its sessions.
    #[error("the transaction has had its {attempts_max} sessions")]
    AttemptsSpent {
        /// The limit.
        attempts_max: u32,
    },
    /// There is no result under this name for this shop.
    #[error("there is no result of this session")]
    NoResult,
    /// The store of used sessions cannot be relied on; nothing may be decided without it.
    #[error("the store of used sessions is unavailable")]
    Store(#[source] ReplayError),
    /// The server leaves out too many frames of a session to judge it.
    #[error("the server is too busy: it left out {late} of {all} frames")]
    Behind {
        /// Frames left out.
        late: usize,
        /// Frames that had to be looked at.
        all: usize,
    },
    /// The client's stream ended before its time.
    #[error("the stream broke: {0}")]
    BrokenStream(String),
    /// The messages of all callers together leave no room for this stream's next one.
    #[error("too many bytes of requests are arriving at once")]
    IntakeFull,
    /// The client takes no more answers.
    #[error("the client has left")]
    Cancelled,
    /// A fault of the server; the caller learns nothing more.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What an [`Error`] means to the caller and to the operator. The status of the answer, the outcome
/// in the metrics and the level in the log all follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request breaks a rule of the API.
    Invalid,
    /// The session belongs to somebody else.
    Denied,
    /// The model or the result does not exist.
    NotFound,
    /// The request is well formed, but not possible now.
    Precondition,
    /// The session was run before.
    Used,
    /// Refused for load before the work began.
    Overloaded,
    /// Ended for load after the work began.
    Behind,
    /// The deadline passed.
    Expired,
    /// The server or a device is not in service.
    NotReady,
    /// The store of used sessions is unavailable.
    StoreDown,
    /// The caller left.
    Cancelled,
    /// A fault of the server.
    Internal,
}

impl Error {
    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid(_) | Self::BrokenStream(_) => Kind::Invalid,
            Self::Overloaded(_) | Self::IntakeFull => Kind::Overloaded,
            Self::Expired => Kind::Expired,
            Self::NotReady(_) => Kind::NotReady,
            Self::ModelNotLive { .. } | Self::NoResult => Kind::NotFound,
            Self::SpaceMismatch { .. } | Self::WrongCall(_) | Self::AttemptsSpent { .. } => {
                Kind::Precondition
            }
            Self::Token(error) => kind_of_token(*error),
            Self::SessionUsed => Kind::Used,
            Self::Store(_) => Kind::StoreDown,
            Self::Behind { .. } => Kind::Behind,
            Self::Cancelled => Kind::Cancelled,
            Self::Internal(_) => Kind::Internal,
        }
    }

    /// One violated field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }

    /// A fault of the server.
    pub fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(source))
    }
}

fn kind_of_token(error: TokenError) -> Kind {
    match error {
        TokenError::Forged
        | TokenError::UnknownKey
        | TokenError::WrongAudience
        | TokenError::TooLong => Kind::Invalid,
        TokenError::Expired | TokenError::NotYetValid => Kind::Precondition,
        TokenError::Foreign(_) => Kind::Denied,
        TokenError::Random => Kind::Internal,
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
            other => Self::Store(other),
        }
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::invalid("policy_fmr", error.to_string())
    }
}

/// How long a caller should wait before it tries again when the server is not ready.
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
            (Error::invalid("a", "is required"), Kind::Invalid),
            (Error::BrokenStream("no message".to_owned()), Kind::Invalid),
            (Error::Overloaded(refusal), Kind::Overloaded),
            (Error::IntakeFull, Kind::Overloaded),
            (Error::Behind { late: 6, all: 20 }, Kind::Behind),
            (Error::Expired, Kind::Expired),
            (Error::NotReady("models are loading"), Kind::NotReady),
            (Error::ModelNotLive { live: "a/1".to_owned() }, Kind::NotFound),
            (Error::NoResult, Kind::NotFound),
            (Error::SpaceMismatch { live: "a".to_owned() }, Kind::Precondition),
            (Error::WrongCall("Run"), Kind::Precondition),
            (Error::AttemptsSpent { attempts_max: 3 }, Kind::Precondition),
            (Error::SessionUsed, Kind::Used),
            (Error::Store(ReplayError::TimedOut { timeout_ms: 1 }), Kind::StoreDown),
            (Error::Cancelled, Kind::Cancelled),
            (Error::internal(std::fmt::Error), Kind::Internal),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_token_is_malformed_late_or_somebody_elses() {
        for (error, kind) in [
            (TokenError::Forged, Kind::Invalid),
            (TokenError::UnknownKey, Kind::Invalid),
            (TokenError::WrongAudience, Kind::Invalid),
            (TokenError::TooLong, Kind::Invalid),
            (TokenError::Expired, Kind::Precondition),
            (TokenError::NotYetValid, Kind::Precondition),
            (TokenError::Foreign(BoundField::Store), Kind::Denied),
            (TokenError::Random, Kind::Internal),
        ] {
            assert_eq!(Error::Token(error).kind(), kind, "{error}");
        }
    }

    #[test]
    fn a_lost_device_is_not_ready_and_a_panicked_one_is_a_fault() {
        let loss = Loss { device: "cuda:0".to_owned(), source: Arc::new(std::fmt::Error) };
        for (error, kind) in [
            (DeviceError::Lost(loss), Kind::NotReady),
            (DeviceError::OutOfService, Kind::NotReady),
            (DeviceError::Panicked, Kind::Internal),
        ] {
            assert_eq!(Error::from(RowError::Device(error)).kind(), kind);
        }
    }
}
