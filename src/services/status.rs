//! The one place where errors become gRPC codes.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::pipeline::{Error, NOT_READY_RETRY_AFTER};
use crate::telemetry::Outcome;
use crate::trust::TokenError;

/// How long a caller should wait when too many messages are arriving at once.
const INTAKE_RETRY_AFTER: Duration = Duration::from_millis(100);

/// How long a caller should wait when the server cannot keep up with its sessions.
const BEHIND_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The status of an error, with the details the standard error model has for it.
pub fn from_error(error: &Error) -> Status {
    let message = error.to_string();
    match error {
        Error::Invalid(violations) => {
            let fields: Vec<FieldViolation> = violations
                .iter()
                .map(|v| FieldViolation::new(v.field.clone(), v.description.clone()))
                .collect();
            let details = ErrorDetails::with_bad_request(fields);
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        Error::Overloaded(refusal) => {
            retry_later(Code::ResourceExhausted, message, refusal.retry_after)
        }
        Error::Expired => Status::deadline_exceeded(message),
        Error::NotReady(_) => retry_later(Code::Unavailable, message, NOT_READY_RETRY_AFTER),
        Error::ModelNotLive { .. } => Status::not_found(message),
        Error::SpaceMismatch { .. } => Status::failed_precondition(message),
        Error::Token(error) => of_token(*error, message),
        Error::SessionUsed => Status::already_exists(message),
        Error::WrongCall(_) | Error::AttemptsSpent { .. } => Status::failed_precondition(message),
        Error::NoResult => Status::not_found(message),
        Error::Store(_) => retry_later(Code::Unavailable, message, NOT_READY_RETRY_AFTER),
        Error::Behind { .. } => retry_later(Code::ResourceExhausted, message, BEHIND_RETRY_AFTER),
        Error::BrokenStream(_) => Status::invalid_argument(message),
        Error::IntakeFull => retry_later(Code::ResourceExhausted, message, INTAKE_RETRY_AFTER),
        Error::Gone => Status::cancelled(message),
        Error::Internal(_) => Status::internal(message),
    }
}

/// What is wrong with a session's token; where it is genuine, what it is bound to.
fn of_token(error: TokenError, message: String) -> Status {
    match error {
        TokenError::Forged
        | TokenError::UnknownKey
        | TokenError::WrongAudience
        | TokenError::TooLong => {
            let details = ErrorDetails::with_bad_request_violation("token", message.clone());
            Status::with_error_details(Code::InvalidArgument, message, details)
        }
        TokenError::Expired | TokenError::NotYetValid => Status::failed_precondition(message),
        TokenError::Foreign(_) => Status::permission_denied(message),
        TokenError::Random => Status::internal("internal error"),
    }
}

/// How the call is counted.
pub fn outcome(error: &Error) -> Outcome {
    match error {
        Error::Invalid(_)
        | Error::ModelNotLive { .. }
        | Error::SpaceMismatch { .. }
        | Error::Token(_)
        | Error::SessionUsed
        | Error::WrongCall(_)
        | Error::AttemptsSpent { .. }
        | Error::NoResult
        | Error::BrokenStream(_) => Outcome::Invalid,
        Error::Overloaded(_) | Error::Behind { .. } | Error::IntakeFull => Outcome::Overloaded,
        Error::Expired => Outcome::Expired,
        Error::Gone => Outcome::Cancelled,
        Error::NotReady(_) | Error::Store(_) | Error::Internal(_) => Outcome::Failed,
    }
}

/// A request message over the limit of its method. Retrying cannot help, so it is no
/// `RESOURCE_EXHAUSTED`.
pub fn message_too_large(limit: usize) -> Status {
    let rule = format!("the request message is larger than {limit} bytes");
    let details = ErrorDetails::with_bad_request_violation("message", rule.clone());
    Status::with_error_details(Code::InvalidArgument, rule, details)
}

/// Too many bytes of requests are arriving at once.
pub fn intake_full() -> Status {
    from_error(&Error::IntakeFull)
}

/// Why a client's stream brings no further message: the layers below refused it, the client left,
/// or it sent what cannot be read.
pub fn broken_stream(status: &Status) -> Error {
    match status.code() {
        Code::ResourceExhausted => Error::IntakeFull,
        // A stream that was reset, a connection that ended.
        Code::Cancelled | Code::Unavailable | Code::Unknown => Error::Gone,
        _ => Error::BrokenStream(status.message().to_owned()),
    }
}

fn retry_later(code: Code, message: String, after: Duration) -> Status {
    let details = ErrorDetails::with_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{DeviceError, Loss};
    use crate::pipeline::Violation;
    use crate::scheduler::RowError;

    #[test]
    fn a_wrong_field_is_named_in_the_details() {
        let error = Error::Invalid(vec![Violation::new("context.store_id", "must not be empty")]);
        let status = from_error(&error);
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_details_bad_request().unwrap();
        assert_eq!(details.field_violations[0].field, "context.store_id");
    }

    #[test]
    fn a_server_that_is_not_ready_says_when_to_try_again() {
        let status = from_error(&Error::NotReady("models are loading"));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }

    #[test]
    fn a_lost_device_is_a_reason_to_come_back_and_no_fault_of_the_request() {
        let source = std::sync::Arc::new(std::fmt::Error);
        let loss = Loss { device: "cuda:0".to_owned(), source };
        for error in [DeviceError::Lost(loss), DeviceError::OutOfService] {
            let error = Error::from(RowError::Device(error));
            let status = from_error(&error);
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
            assert_eq!(outcome(&error), Outcome::Failed);
        }
        let error = Error::from(RowError::Device(DeviceError::Panicked));
        assert_eq!(from_error(&error).code(), Code::Internal);
    }

    #[test]
    fn a_stream_refused_for_load_or_left_by_its_client_is_not_called_malformed() {
        let full = from_error(&broken_stream(&intake_full()));
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(full.get_details_retry_info().unwrap().retry_delay.is_some());
        let left = broken_stream(&Status::cancelled("reset"));
        assert_eq!(outcome(&left), Outcome::Cancelled);
        let large = from_error(&broken_stream(&message_too_large(100)));
        assert_eq!(large.code(), Code::InvalidArgument);
        assert!(large.message().contains("larger than 100 bytes"), "{large}");
    }

    #[test]
    fn a_fault_of_the_server_tells_the_caller_nothing() {
        let status = from_error(&Error::internal(std::fmt::Error));
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    }
}
