//! Wire messages to the pipeline's values and back.

mod fields;
mod request;
mod response;

pub use fields::Caller;
pub use request::{compare, liveness, photo, verify};
pub use response::{
    About, compare_response, detect_response, embed_response, liveness_response, verify_response,
};
