//! Pixels: bounded decoding, resizing and warping. Pure functions on RGB images.
//!
//! Every image inside the server is 8-bit RGB, rows top to bottom, pixels left to right, channels
//! interleaved. Networks that want another order are fed by their input contract.

mod rgb;

pub use rgb::RgbImage;
