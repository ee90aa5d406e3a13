//! Maps errors to gRPC statuses. No other file of the services names gRPC codes.

use std::time::Duration;

use http::HeaderMap;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::pipeline::{Error, ErrorKind, NOT_READY_RETRY_AFTER};
use crate::proto::code_name;
use crate::telemetry::{Ending, Outcome, Severity, causes};

/// Retry delay when too many bytes of requests are arriving.
const INTAKE_RETRY_AFTER: Duration = Duration::from_millis(100);

/// Retry delay when the server cannot keep up with its sessions.
const BEHIND_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Returns the status of an error, with the details that the gRPC error model defines for it.
pub fn from_error(error: &Error) -> Status {
    let kind = error.kind();
    let message = match kind {
        // The caller learns no more about a fault of the server.
        ErrorKind::Internal => "internal error".to_owned(),
        ErrorKind::Invalid
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Precondition
        | ErrorKind::AlreadyUsed
        | ErrorKind::Overloaded
        | ErrorKind::Behind
        | ErrorKind::Expired
        | ErrorKind::NotReady
        | ErrorKind::ReplayStoreDown
        | ErrorKind::Cancelled => error.to_string(),
    };
    let Some(details) = details(error, &message) else {
        return Status::new(code(kind), message);
    };
    let pushback = details.retry_info().and_then(|info| info.retry_delay).map(pushback);
    let mut status = Status::with_error_details(code(kind), message, details);
    if let Some(pushback) = pushback {
        status.metadata_mut().insert(PUSHBACK_TRAILER, pushback);
    }
    status
}

/// Trailer that tells gRPC clients with a retry policy when to retry (gRFC A6). The trailer is left
/// out where a retry cannot help, rather than sent as -1: a client retries those codes only if its
/// owner listed them, and the server should not overrule the owner.
const PUSHBACK_TRAILER: &str = "grpc-retry-pushback-ms";

/// Returns whole milliseconds, as gRFC A6 requires.
fn pushback(delay: Duration) -> AsciiMetadataValue {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).into()
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Denied => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Precondition => Code::FailedPrecondition,
        ErrorKind::AlreadyUsed => Code::AlreadyExists,
        ErrorKind::Overloaded | ErrorKind::Behind => Code::ResourceExhausted,
        ErrorKind::Expired => Code::DeadlineExceeded,
        ErrorKind::NotReady | ErrorKind::ReplayStoreDown => Code::Unavailable,
        ErrorKind::Cancelled => Code::Cancelled,
        ErrorKind::Internal => Code::Internal,
    }
}

/// Returns the violated fields, or the retry delay.
fn details(error: &Error, message: &str) -> Option<ErrorDetails> {
    match error {
        Error::Invalid(violations) => {
            let fields: Vec<FieldViolation> = violations
                .iter()
                .map(|v| FieldViolation::new(v.field.clone(), v.description.clone()))
                .collect();
            Some(ErrorDetails::with_bad_request(fields))
        }
        Error::Token(_) if error.kind() == ErrorKind::Invalid => {
            Some(ErrorDetails::with_bad_request_violation("token", message))
        }
        Error::Overloaded(refusal) => Some(retry_after(refusal.retry_after)),
        Error::IntakeFull => Some(retry_after(INTAKE_RETRY_AFTER)),
        Error::Behind { .. } => Some(retry_after(BEHIND_RETRY_AFTER)),
        Error::NotReady(_) | Error::ReplayStore(_) => Some(retry_after(NOT_READY_RETRY_AFTER)),
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

/// Returns the outcome under which the metrics count a call.
fn outcome(kind: ErrorKind) -> Outcome {
    match kind {
        ErrorKind::Invalid
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Precondition
        | ErrorKind::AlreadyUsed => Outcome::Invalid,
        ErrorKind::Overloaded | ErrorKind::Behind => Outcome::Overloaded,
        ErrorKind::Expired => Outcome::Expired,
        ErrorKind::Cancelled => Outcome::Cancelled,
        ErrorKind::NotReady | ErrorKind::ReplayStoreDown | ErrorKind::Internal => Outcome::Failed,
    }
}

/// Returns the log level of the line that ends a call.
fn severity(kind: ErrorKind) -> Severity {
    match kind {
        ErrorKind::Invalid
        | ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Precondition
        | ErrorKind::AlreadyUsed
        | ErrorKind::Cancelled => Severity::Info,
        ErrorKind::Overloaded | ErrorKind::Behind | ErrorKind::Expired | ErrorKind::NotReady => {
            Severity::Warn
        }
        ErrorKind::ReplayStoreDown | ErrorKind::Internal => Severity::Error,
    }
}

/// Returns the ending of a call that was answered.
pub fn ending_of_answer(outcome: Outcome) -> Ending {
    Ending { outcome, code: code_name(Code::Ok), severity: Severity::Info, causes: None }
}

/// Returns the ending of a call that failed in its service.
pub fn ending_of_error(error: &Error) -> Ending {
    let ending = ending_of_kind(error.kind());
    // An ending of severity `Info` is the caller's doing, and the message may quote the caller.
    let causes = (ending.severity != Severity::Info).then(|| causes(error));
    Ending { causes, ..ending }
}

/// Returns the ending of a call that has an error kind but no error.
pub fn ending_of_kind(kind: ErrorKind) -> Ending {
    Ending {
        outcome: outcome(kind),
        code: code_name(code(kind)),
        severity: severity(kind),
        causes: None,
    }
}

/// Returns the ending of a call whose status is in these headers or trailers, or `None` if they
/// hold no status. The ending counts only if the service has not ended the call itself: then a
/// layer or tonic refused the call, or the service's task failed.
///
/// `OK` without an ending by the service is a fault of the server. Any other status is read by
/// [`broken_stream`].
pub fn ending_in_headers(headers: &HeaderMap) -> Option<Ending> {
    let status = Status::from_header_map(headers)?;
    let is_unfinished = status.code() == Code::Ok;
    let kind = if is_unfinished { ErrorKind::Internal } else { broken_stream(&status).kind() };
    let ending = ending_of_kind(kind);
    // tonic turns the broken stream of a caller that left into UNKNOWN, which no caller receives.
    let code = if kind == ErrorKind::Cancelled { ending.code } else { code_name(status.code()) };
    Some(Ending { code, ..ending })
}

/// Returns the status of a call whose deadline passed.
pub fn expired() -> Status {
    from_error(&Error::Expired)
}

/// Returns the status of a `grpc-timeout` header that violates the gRPC specification.
pub fn malformed_timeout() -> Status {
    let rule = "must be 1 to 8 digits and a unit of H, M, S, m, u or n";
    from_error(&Error::invalid("grpc-timeout", rule))
}

/// Returns the status of a request message over the limit of its method. A retry cannot help, so
/// the code is not `RESOURCE_EXHAUSTED`.
pub fn message_too_large(limit: usize) -> Status {
    let rule = format!("the request message is larger than {limit} bytes");
    let details = ErrorDetails::with_bad_request_violation("message", rule.clone());
    Status::with_error_details(Code::InvalidArgument, rule, details)
}

/// Returns the status of a message that does not fit into the intake's budget.
pub fn intake_full() -> Status {
    from_error(&Error::IntakeFull)
}

/// Returns why a client's stream brings no further message: the layers below refused the message,
/// the client left, or the message cannot be decoded.
pub fn broken_stream(status: &Status) -> Error {
    match status.code() {
        Code::ResourceExhausted => Error::IntakeFull,
        Code::DeadlineExceeded => Error::Expired,
        // The stream was reset, or the connection ended.
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
            (Error::Behind { skipped: 6, all: 20 }, Some(5000)),
            (Error::NotReady("models are loading"), Some(1000)),
            (Error::Expired, None),
            (Error::SessionUsed, None),
            (Error::invalid("frame", "must follow the start"), None),
            (Error::internal(std::fmt::Error), None),
        ] {
            let status = from_error(&error);
            let info = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(info, delay_ms.map(Duration::from_millis), "{error}");
            let trailer =
                status.metadata().get(PUSHBACK_TRAILER).map(|value| value.to_str().unwrap());
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
        let invalid = ending_of_error(&Error::invalid("policy_fmr", "is what the caller sent"));
        assert_eq!((invalid.severity, invalid.code), (Severity::Info, "INVALID_ARGUMENT"));
        assert_eq!(invalid.causes, None, "it may quote the caller");
        let refused = ending_of_error(&Error::NotReady("models are loading"));
        assert_eq!((refused.severity, refused.code), (Severity::Warn, "UNAVAILABLE"));
        assert!(refused.causes.unwrap().contains("models are loading"));
        let fault = ending_of_error(&Error::internal(std::fmt::Error));
        assert_eq!((fault.severity, fault.code), (Severity::Error, "INTERNAL"));
        assert!(fault.causes.unwrap().contains(&std::fmt::Error.to_string()));
    }

    #[test]
    fn what_ends_a_call_outside_of_its_service_is_read_off_the_answer() {
        let ending = |status: Status| {
            let response = status.into_http::<tonic::body::Body>();
            let Ending { outcome, code, severity, .. } =
                ending_in_headers(response.headers()).unwrap();
            (outcome, code, severity)
        };
        let late = (Outcome::Expired, "DEADLINE_EXCEEDED", Severity::Warn);
        assert_eq!(ending(expired()), late);
        let full = (Outcome::Overloaded, "RESOURCE_EXHAUSTED", Severity::Warn);
        assert_eq!(ending(intake_full()), full);
        // tonic's error for bytes that are not a message.
        let unread = (Outcome::Invalid, "INTERNAL", Severity::Info);
        assert_eq!(ending(Status::internal("failed to decode Protobuf message")), unread);
        let unknown = (Outcome::Invalid, "UNIMPLEMENTED", Severity::Info);
        assert_eq!(ending(Status::unimplemented("")), unknown);
        let unfinished = (Outcome::Failed, "OK", Severity::Error);
        assert_eq!(ending(Status::ok("")), unfinished);
        assert!(ending_in_headers(&HeaderMap::new()).is_none());
    }

    #[test]
    fn a_fault_of_the_server_tells_the_caller_nothing() {
        let status = from_error(&Error::internal(std::fmt::Error));
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    }
}
