//! The one place where errors become gRPC codes.

use std::time::Duration;

use http::HeaderMap;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::pipeline::{Error, Kind, NOT_READY_RETRY_AFTER};
use crate::telemetry::{Ending, Outcome, Severity, causes};

/// How long a caller should wait when too many messages are arriving at once.
const INTAKE_RETRY_AFTER: Duration = Duration::from_millis(100);

/// How long a caller should wait when the server cannot keep up with its sessions.
const BEHIND_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The status of an error, with the details the standard error model has for it.
pub fn from_error(error: &Error) -> Status {
    let kind = error.kind();
    let message = match kind {
        // The caller learns nothing more.
        Kind::Internal => "internal error".to_owned(),
        Kind::Invalid
        | Kind::Denied
        | Kind::NotFound
        | Kind::Precondition
        | Kind::Used
        | Kind::Overloaded
        | Kind::Behind
        | Kind::Expired
        | Kind::NotReady
        | Kind::StoreDown
        | Kind::Cancelled => error.to_string(),
    };
    let Some(details) = details(error, &message) else {
        return Status::new(code(kind), message);
    };
    let pushback = details.retry_info().and_then(|info| info.retry_delay).map(pushback);
    let mut status = Status::with_error_details(code(kind), message, details);
    if let Some(pushback) = pushback {
        status.metadata_mut().insert(PUSHBACK, pushback);
    }
    status
}

/// Trailer by which gRPC clients with a retry policy know when to try again (gRFC A6). Where
/// retrying cannot help it is left out rather than sent as -1: no policy retries those codes
/// unless its owner has listed them, and then it is not for the server to overrule.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Whole milliseconds, as gRFC A6 wants them.
fn pushback(delay: Duration) -> AsciiMetadataValue {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into()
}

fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Denied => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Used => Code::AlreadyExists,
        Kind::Overloaded | Kind::Behind => Code::ResourceExhausted,
        Kind::Expired => Code::DeadlineExceeded,
        Kind::NotReady | Kind::StoreDown => Code::Unavailable,
        Kind::Cancelled => Code::Cancelled,
        Kind::Internal => Code::Internal,
    }
}

/// The fields that are wrong, or when to try again.
fn details(error: &Error, message: &str) -> Option<ErrorDetails> {
    match error {
        Error::Invalid(violations) => {
            let fields: Vec<FieldViolation> = violations
                .iter()
                .map(|v| FieldViolation::new(v.field.clone(), v.description.clone()))
                .collect();
            Some(ErrorDetails::with_bad_request(fields))
        }
        Error::Token(_) if error.kind() == Kind::Invalid => {
            Some(ErrorDetails::with_bad_request_violation("token", message))
        }
        Error::Overloaded(refusal) => Some(retry_after(refusal.retry_after)),
        Error::IntakeFull => Some(retry_after(INTAKE_RETRY_AFTER)),
        Error::Behind { .. } => Some(retry_after(BEHIND_RETRY_AFTER)),
        Error::NotReady(_) | Error::Store(_) => Some(retry_after(NOT_READY_RETRY_AFTER)),
        Error::Token(_)
        | Error::Expired
        | Error::ModelNotLive { .. }
        | Error::SpaceMismatch { .. }
        | Error::SessionUsed
        | Error::WrongCall(_)
        | Error::AttemptsSpent { .. }
        | Error::NoResult
        | Error::BrokenStream(_)
        | Error::Cancelled
        | Error::Internal(_) => None,
    }
}

fn retry_after(delay: Duration) -> ErrorDetails {
    ErrorDetails::with_retry_info(Some(delay))
}

/// How the call is counted.
fn outcome(kind: Kind) -> Outcome {
    match kind {
        Kind::Invalid | Kind::Denied | Kind::NotFound | Kind::Precondition | Kind::Used => {
            Outcome::Invalid
        }
        Kind::Overloaded | Kind::Behind => Outcome::Overloaded,
        Kind::Expired => Outcome::Expired,
        Kind::Cancelled => Outcome::Cancelled,
        Kind::NotReady | Kind::StoreDown | Kind::Internal => Outcome::Failed,
    }
}

/// How loud the line of the call is.
fn severity(kind: Kind) -> Severity {
    match kind {
        Kind::Invalid
        | Kind::Denied
        | Kind::NotFound
        | Kind::Precondition
        | Kind::Used
        | Kind::Cancelled => Severity::Info,
        Kind::Overloaded | Kind::Behind | Kind::Expired | Kind::NotReady => Severity::Warn,
        Kind::StoreDown | Kind::Internal => Severity::Error,
    }
}

/// A call that was answered.
pub fn answered(outcome: Outcome) -> Ending {
    Ending { outcome, code: name(Code::Ok), severity: Severity::Info, causes: None }
}

/// A call that failed in its service.
pub fn failed(error: &Error) -> Ending {
    let ending = broken_off(error.kind());
    // What the caller has got wrong is described in words that may quote it.
    let causes = (ending.severity != Severity::Info).then(|| causes(error));
    Ending { causes, ..ending }
}

/// A call that ended without an error of its service.
pub fn broken_off(kind: Kind) -> Ending {
    Ending {
        outcome: outcome(kind),
        code: name(code(kind)),
        severity: severity(kind),
        causes: None,
    }
}

/// A call whose answer has this status in its headers or trailers, and whose service has not ended
/// it: a layer or tonic refused it, or its task broke off. `None` where there is no status.
pub fn ending_of(headers: &HeaderMap) -> Option<Ending> {
    let status = Status::from_header_map(headers)?;
    let is_unfinished = status.code() == Code::Ok;
    let kind = if is_unfinished { Kind::Internal } else { broken_stream(&status).kind() };
    let ending = broken_off(kind);
    // A caller that left does not receive the UNKNOWN that tonic makes of its broken stream.
    let code = if kind == Kind::Cancelled { ending.code } else { name(status.code()) };
    Some(Ending { code, ..ending })
}

/// The code as the gRPC specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The deadline passed before the answer was ready.
pub fn expired() -> Status {
    from_error(&Error::Expired)
}

/// A `grpc-timeout` header that breaks the gRPC specification.
pub fn malformed_timeout() -> Status {
    let rule = "must be 1 to 8 digits and a unit of H, M, S, m, u or n";
    from_error(&Error::invalid("grpc-timeout", rule))
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
        Code::DeadlineExceeded => Error::Expired,
        // A stream that was reset, a connection that ended.
        Code::Cancelled | Code::Unavailable | Code::Unknown => Error::Cancelled,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => Error::BrokenStream(status.message().to_owned()),
    }
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
            assert_eq!(outcome(error.kind()), Outcome::Failed);
        }
        let error = Error::from(RowError::Device(DeviceError::Panicked));
        assert_eq!(from_error(&error).code(), Code::Internal);
    }

    #[test]
    fn both_retry_hints_are_the_same_number_and_neither_comes_without_the_other() {
        let refusal = crate::scheduler::Overloaded {
            what: crate::scheduler::Resource::Requests,
            limit: 1,
            retry_after: Duration::from_millis(70),
        };
        for (error, delay_ms) in [
            (Error::Overloaded(refusal), Some(70)),
            (Error::IntakeFull, Some(100)),
            (Error::Behind { late: 6, all: 20 }, Some(5000)),
            (Error::NotReady("models are loading"), Some(1000)),
            (Error::Expired, None),
            (Error::SessionUsed, None),
            (Error::invalid("frame", "must follow the start"), None),
            (Error::internal(std::fmt::Error), None),
        ] {
            let status = from_error(&error);
            let info = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(info, delay_ms.map(Duration::from_millis), "{error}");
            let trailer = status.metadata().get(PUSHBACK).map(|value| value.to_str().unwrap());
            assert_eq!(trailer, delay_ms.map(|ms| ms.to_string()).as_deref(), "{error}");
        }
    }

    #[test]
    fn a_stream_refused_for_load_or_left_by_its_client_is_not_called_malformed() {
        let full = from_error(&broken_stream(&intake_full()));
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(full.get_details_retry_info().unwrap().retry_delay.is_some());
        let left = broken_stream(&Status::cancelled("reset"));
        assert_eq!(outcome(left.kind()), Outcome::Cancelled);
        let large = from_error(&broken_stream(&message_too_large(100)));
        assert_eq!(large.code(), Code::InvalidArgument);
        assert!(large.message().contains("larger than 100 bytes"), "{large}");
    }

    #[test]
    fn the_line_of_a_call_is_as_loud_as_its_error_is_ours() {
        let invalid = failed(&Error::invalid("policy_fmr", "is what the caller sent"));
        assert_eq!((invalid.severity, invalid.code), (Severity::Info, "INVALID_ARGUMENT"));
        assert_eq!(invalid.causes, None, "it may quote the caller");
        let refused = failed(&Error::NotReady("models are loading"));
        assert_eq!((refused.severity, refused.code), (Severity::Warn, "UNAVAILABLE"));
        assert!(refused.causes.unwrap().contains("models are loading"));
        let fault = failed(&Error::internal(std::fmt::Error));
        assert_eq!((fault.severity, fault.code), (Severity::Error, "INTERNAL"));
        assert!(fault.causes.unwrap().contains(&std::fmt::Error.to_string()));
    }

    #[test]
    fn what_ends_a_call_outside_of_its_service_is_read_off_the_answer() {
        let ending = |status: Status| {
            let response = status.into_http::<tonic::body::Body>();
            let Ending { outcome, code, severity, .. } = ending_of(response.headers()).unwrap();
            (outcome, code, severity)
        };
        let late = (Outcome::Expired, "DEADLINE_EXCEEDED", Severity::Warn);
        assert_eq!(ending(expired()), late);
        let full = (Outcome::Overloaded, "RESOURCE_EXHAUSTED", Severity::Warn);
        assert_eq!(ending(intake_full()), full);
        // What tonic says of bytes that are no message.
        let unread = (Outcome::Invalid, "INTERNAL", Severity::Info);
        assert_eq!(ending(Status::internal("failed to decode Protobuf message")), unread);
        let unknown = (Outcome::Invalid, "UNIMPLEMENTED", Severity::Info);
        assert_eq!(ending(Status::unimplemented("")), unknown);
        let unfinished = (Outcome::Failed, "OK", Severity::Error);
        assert_eq!(ending(Status::ok("")), unfinished);
        assert!(ending_of(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_fault_of_the_server_tells_the_caller_nothing() {
        let status = from_error(&Error::internal(std::fmt::Error));
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    }
}
