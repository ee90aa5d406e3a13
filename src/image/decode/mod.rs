//! Decoding of image files to [`RgbImage`] within limits.
//!
//! JPEG (baseline and progressive; grey, YCbCr or RGB) and PNG (every colour type and depth). The
//! size in the header is checked before memory of the image's size is allocated. A truncated file
//! is an error, never a picture with a grey rest. The orientation comes from EXIF; all other
//! metadata, colour profiles included, is ignored.

mod exif;
mod jpeg;
mod png;

use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

use crate::image::{ImageSettings, RgbImage};

/// Reasons for refusing bytes as an image.
///
/// The errors of the decoder crates are not kept as sources, because they may quote the caller's
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// There are no bytes.
    #[error("image is empty")]
    Empty,
    /// The file is larger than the limit.
    #[error("image has {bytes} bytes, at most {bytes_max} are accepted")]
    TooManyBytes {
        /// Length of the file.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The bytes start like no known image format.
    #[error("bytes are neither a jpeg nor a png image")]
    NotAnImage,
    /// The format, or a feature of it, is not supported.
    #[error("image uses {feature}, which is not supported")]
    Unsupported {
        /// The format or feature.
        feature: &'static str,
    },
    /// A side is longer than the limit.
    #[error("image has a side of {side} pixels, at most {side_max} are accepted")]
    SideTooLong {
        /// The longer side.
        side: usize,
        /// The limit.
        side_max: usize,
    },
    /// The area is larger than the limit.
    #[error("image has {pixels} pixels, at most {pixels_max} are accepted")]
    TooManyPixels {
        /// Width times height.
        pixels: usize,
        /// The limit.
        pixels_max: usize,
    },
    /// The file ends before the image does.
    #[error("image is truncated")]
    Truncated,
    /// The file violates its format.
    #[error("image is corrupt")]
    Corrupt,
}

/// Decodes a JPEG or PNG file into upright RGB.
///
/// Transparent pixels are blended over white, the background of identity portraits.
///
/// # Errors
/// See [`DecodeError`]. No input panics: the third-party decoders run under `catch_unwind`.
pub fn decode(bytes: &[u8], limits: &ImageSettings) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    if bytes.len() > limits.bytes_max {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len(), bytes_max: limits.bytes_max });
    }
    match detect_format(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::Png => png::decode(bytes, limits),
    }
}

/// Checks by the first bytes that a file has a format that [`decode`] supports.
///
/// # Errors
/// [`DecodeError::Empty`], [`DecodeError::Unsupported`] or [`DecodeError::NotAnImage`].
pub fn check_format(bytes: &[u8]) -> Result<(), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    detect_format(bytes).map(|_| ())
}

enum Format {
    Jpeg,
    Png,
}

/// Formats that callers send by mistake, with the offset and the magic bytes. Naming the format
/// saves a support call: phones store HEIC, browsers WebP.
const OTHER_FORMATS: [(usize, &[u8], &str); 8] = [
    (4, b"ftypavif", "the avif format"),
    (4, b"ftyp", "the heic format"),
    (8, b"WEBP", "the webp format"),
    (0, b"GIF8", "the gif format"),
    (0, b"BM", "the bmp format"),
    (0, b"II*\0", "the tiff format"),
    (0, b"MM\0*", "the tiff format"),
    (0, b"%PDF", "the pdf format"),
];

fn detect_format(bytes: &[u8]) -> Result<Format, DecodeError> {
    if bytes.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return Ok(Format::Jpeg);
    }
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    let other = OTHER_FORMATS
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    match other {
        Some(&(_, _, feature)) => Err(DecodeError::Unsupported { feature }),
        None => Err(DecodeError::NotAnImage),
    }
}

/// Runs a third-party decoder. A panic inside it counts as a corrupt file.
fn catch_panics<T>(decoder: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or(Err(DecodeError::Corrupt))
}
