//! Images: bounded decoding, resizing and warping. Pure functions on RGB images.
//!
//! Every image inside the server is 8-bit RGB: lines top to bottom, pixels left to right, channels
//! interleaved. The input contract of a network converts to other orders.
//!
//! A line is one horizontal line of pixels; in the rest of the server, a row is the input of one
//! network.

mod decode;
mod luma;
mod orientation;
mod resize;
mod rgb;
mod settings;
mod square;
mod warp;

pub use decode::{DecodeError, check_format, decode};
pub use luma::{DifferenceHash, LumaImage};
pub use orientation::{Orientation, Rotation};
pub use resize::{PixelRect, crop_resize, letterbox};
pub use rgb::RgbImage;
pub use settings::ImageSettings;
pub use square::TurnedSquare;
pub use warp::{SimilarityTransform, warp};
