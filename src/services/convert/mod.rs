//! Converts wire messages to the pipeline's types and back.

mod fields;
mod request;
mod response;
mod session_request;
mod session_response;

pub use fields::Caller;
pub use request::{parse_check_liveness, parse_compare, parse_photo, parse_verify};
pub use response::{
    ResponseInfo, check_liveness_response, compare_response, detect_response, embed_response,
    verify_response,
};
#[cfg(fuzzing)]
pub use session_request::law::read_as_every_request;
pub use session_request::{
    parse_create_session, parse_evaluate, parse_frame, parse_get_result, parse_start,
};
pub use session_response::{create_session_response, liveness_result, run_event, thinned_event};
