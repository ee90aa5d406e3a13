//! Wire messages to the pipeline's values and back.

mod request;
mod response;

pub use request::{Caller, compare, liveness, photo, verify};
pub use response::{
    About, compare_response, detect_response, embed_response, liveness_response, verify_response,
};
