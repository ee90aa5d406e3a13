//! Wire messages to the pipeline's values and back.

mod fields;
mod request;
mod response;
mod session_request;
mod session_response;

pub use fields::Caller;
pub use request::{compare, liveness, photo, verify};
pub use response::{
    ResponseInfo, compare_response, detect_response, embed_response, liveness_response,
    verify_response,
};
#[cfg(fuzzing)]
pub use session_request::law::read_as_every_request;
pub use session_request::{create_session, evaluate, frame, get_result, start};
pub use session_response::{created, liveness_result, thinned, told};
