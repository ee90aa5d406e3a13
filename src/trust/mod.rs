//! What keeps biometrics from leaking: [`Secret`] wraps every pixel buffer, embedding and key.

mod secret;

pub use secret::{Secret, Wipe};
