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
    Gone,
    /// A fault of the server; the caller learns nothing more.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// One violated field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation::new(field, description)])
    }

    /// A fault of the server.
    pub fn internal(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(source))
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
