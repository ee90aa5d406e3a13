//! PNG through the `png` crate: every colour type and depth becomes 8-bit RGB.

use std::io::{Cursor, ErrorKind};

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use super::{DecodeError, catch_panics, exif};
use crate::image::{ImageSettings, RgbImage};
use crate::trust::Secret;

/// Most bytes that the decoder may hold besides the output: chunks (palette, EXIF) and a few lines
/// of at most 4096 pixels of 8 bytes.
const WORK_BYTES_MAX: usize = 4 << 20;

/// Decodes a file that starts with the PNG magic.
pub(super) fn decode(bytes: &[u8], limits: &ImageSettings) -> Result<RgbImage, DecodeError> {
    catch_panics(|| {
        let mut reader = open(bytes, limits)?;
        let image = read_pixels(&mut reader)?;
        // The image is complete only after its end chunk.
        reader.finish().map_err(to_decode_error)?;
        let metadata = reader.info().exif_metadata.as_deref();
        Ok(match metadata {
            Some(tiff) => exif::orientation(tiff).make_upright(image),
            None => image,
        })
    })
}

fn open<'a>(
    bytes: &'a [u8],
    limits: &ImageSettings,
) -> Result<Reader<Cursor<&'a [u8]>>, DecodeError> {
    let mut decoder =
        Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: WORK_BYTES_MAX });
    // Palettes, small depths and transparency become 8-bit samples; 16-bit samples lose their low
    // byte.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(to_decode_error)?;
    limits.check_size(header.width as usize, header.height as usize)?;
    let reader = decoder.read_info().map_err(to_decode_error)?;
    if reader.info().animation_control().is_some() {
        return Err(DecodeError::Unsupported { feature: "animated png" });
    }
    Ok(reader)
}

fn read_pixels(reader: &mut Reader<Cursor<&[u8]>>) -> Result<RgbImage, DecodeError> {
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let (color, depth) = reader.output_color_type();
    if depth != BitDepth::Eight {
        return Err(DecodeError::Corrupt);
    }
    let mut image = RgbImage::black(width, height);
    if color == ColorType::Rgb {
        reader.next_frame(image.pixels_mut()).map_err(to_decode_error)?;
        return Ok(image);
    }
    let bytes = reader.output_buffer_size().ok_or(DecodeError::Corrupt)?;
    let mut samples = Secret::new(vec![0; bytes]);
    reader.next_frame(samples.expose_mut()).map_err(to_decode_error)?;
    let pixels = image.pixels_mut().as_chunks_mut::<3>().0.iter_mut();
    let samples = samples.expose();
    match color {
        ColorType::Grayscale => pixels.zip(samples).for_each(|(rgb, &grey)| *rgb = [grey; 3]),
        ColorType::GrayscaleAlpha => pixels
            .zip(samples.as_chunks::<2>().0)
            .for_each(|(rgb, &[grey, alpha])| *rgb = [blend_over_white(grey, alpha); 3]),
        ColorType::Rgba => {
            pixels.zip(samples.as_chunks::<4>().0).for_each(|(rgb, &[r, g, b, alpha])| {
                *rgb = [r, g, b].map(|v| blend_over_white(v, alpha))
            })
        }
        ColorType::Rgb | ColorType::Indexed => return Err(DecodeError::Corrupt),
    }
    Ok(image)
}

fn blend_over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * alpha + 255 * (255 - alpha) + 127;
    u8::try_from(sum / 255).expect("a weighted mean of bytes is a byte")
}

fn to_decode_error(error: DecodingError) -> DecodeError {
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated
        }
        DecodingError::LimitsExceeded => {
            DecodeError::Unsupported { feature: "png metadata of more than 4 MiB" }
        }
        DecodingError::IoError(_) | DecodingError::Format(_) | DecodingError::Parameter(_) => {
            DecodeError::Corrupt
        }
    }
}
