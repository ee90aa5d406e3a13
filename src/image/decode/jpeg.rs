//! JPEG: parses the markers itself, then decodes the pixels with zune-jpeg.
//!
//! The parser finds the size, the orientation and the end of the image before the decoder sees a
//! byte. It makes a truncated file an error: decoders are lenient and fill missing parts with grey.
//! Source: ITU-T T.81, annex B.

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{DecodeError, catch_panics, exif};
use crate::image::orientation::Orientation;
use crate::image::{ImageSettings, RgbImage};

/// Most scans of one file. libjpeg writes 10 for a progressive colour image. Each further scan is
/// another pass over all blocks, which makes small files slow to decode.
const SCANS_MAX: usize = 32;

/// Decodes a file that starts with the JPEG magic.
pub(super) fn decode(bytes: &[u8], limits: &ImageSettings) -> Result<RgbImage, DecodeError> {
    let header = JpegHeader::read(bytes)?;
    limits.check_size(header.frame.width, header.frame.height)?;
    let stored = catch_panics(|| decode_pixels(&bytes[..header.end], &header.frame, limits))?;
    Ok(header.orientation.make_upright(stored))
}

fn decode_pixels(
    bytes: &[u8],
    frame: &FrameHeader,
    limits: &ImageSettings,
) -> Result<RgbImage, DecodeError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(limits.side_max)
        .set_max_height(limits.side_max)
        .jpeg_set_max_scans(SCANS_MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|_| DecodeError::Corrupt)?;
    // Both parsers must agree on the size. Otherwise the limits were checked on wrong numbers.
    let size = decoder.dimensions();
    let mut image = RgbImage::black(frame.width, frame.height);
    if size != Some((frame.width, frame.height))
        || decoder.output_buffer_size() != Some(image.pixels().len())
    {
        return Err(DecodeError::Corrupt);
    }
    decoder.decode_into(image.pixels_mut()).map_err(|_| DecodeError::Corrupt)?;
    Ok(image)
}

/// The content of the markers.
struct JpegHeader {
    frame: FrameHeader,
    orientation: Orientation,
    /// Offset just after the end-of-image marker. Phones append further images.
    end: usize,
}

struct FrameHeader {
    width: usize,
    height: usize,
}

impl JpegHeader {
    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = MarkerReader { bytes, at: 2 };
        let mut frame = None;
        let mut orientation = Orientation::UPRIGHT;
        let mut scans = 0;
        loop {
            match reader.marker()? {
                0xC0..=0xC2 if frame.is_none() => {
                    frame = Some(FrameHeader::read(reader.segment()?)?)
                }
                marker @ 0xC3..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    return Err(DecodeError::Unsupported { feature: unsupported_feature(marker) });
                }
                0xDA => {
                    scans += 1;
                    if scans > SCANS_MAX {
                        let feature = "a jpeg of more than 32 scans";
                        return Err(DecodeError::Unsupported { feature });
                    }
                    reader.segment()?;
                    reader.skip_entropy_coded()?;
                }
                0xD9 => break,
                0xE1 => {
                    if let Some(tiff) = reader.segment()?.strip_prefix(b"Exif\0\0") {
                        orientation = exif::orientation(tiff);
                    }
                }
                // A second frame, start of image, restart and other markers without a length.
                0x00..=0x01 | 0xC0..=0xC2 | 0xD0..=0xD8 => return Err(DecodeError::Corrupt),
                _ => {
                    reader.segment()?;
                }
            }
        }
        let frame = frame.ok_or(DecodeError::Corrupt)?;
        if scans == 0 {
            return Err(DecodeError::Corrupt);
        }
        Ok(Self { frame, orientation, end: reader.at })
    }
}

impl FrameHeader {
    /// Parses the frame header: precision, height, width, components (T.81 B.2.2).
    fn read(segment: &[u8]) -> Result<Self, DecodeError> {
        let &[precision, h1, h0, w1, w0, components, ..] = segment else {
            return Err(DecodeError::Corrupt);
        };
        if precision != 8 {
            return Err(DecodeError::Unsupported { feature: "12-bit jpeg" });
        }
        match components {
            1 | 3 => {}
            4 => return Err(DecodeError::Unsupported { feature: "cmyk jpeg" }),
            _ => return Err(DecodeError::Corrupt),
        }
        let width = usize::from(u16::from_be_bytes([w1, w0]));
        let height = usize::from(u16::from_be_bytes([h1, h0]));
        if width == 0 || height == 0 {
            return Err(DecodeError::Corrupt);
        }
        Ok(Self { width, height })
    }
}

fn unsupported_feature(marker: u8) -> &'static str {
    match marker {
        0xC3 => "lossless jpeg",
        0xC5..=0xC7 => "hierarchical jpeg",
        _ => "arithmetic-coded jpeg",
    }
}

struct MarkerReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> MarkerReader<'a> {
    /// Returns the second byte of the next marker. Any number of fill bytes may precede it.
    fn marker(&mut self) -> Result<u8, DecodeError> {
        if self.byte()? != 0xFF {
            return Err(DecodeError::Corrupt);
        }
        loop {
            let byte = self.byte()?;
            if byte != 0xFF {
                return Ok(byte);
            }
        }
    }

    /// Returns the content of a marker segment without its length.
    fn segment(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(u16::from_be_bytes([self.byte()?, self.byte()?]));
        let content = length.checked_sub(2).ok_or(DecodeError::Corrupt)?;
        let segment = self.bytes.get(self.at..self.at + content).ok_or(DecodeError::Truncated)?;
        self.at += content;
        Ok(segment)
    }

    /// Moves to the marker that ends a scan. Stuffed zeroes and restart markers belong to the scan.
    fn skip_entropy_coded(&mut self) -> Result<(), DecodeError> {
        loop {
            let rest = self.bytes.get(self.at..).ok_or(DecodeError::Truncated)?;
            let to_marker = rest.iter().position(|&b| b == 0xFF).ok_or(DecodeError::Truncated)?;
            let second = *rest.get(to_marker + 1).ok_or(DecodeError::Truncated)?;
            match second {
                0x00 | 0xD0..=0xD7 => self.at += to_marker + 2,
                // The second 0xFF may itself start a marker.
                0xFF => self.at += to_marker + 1,
                _ => {
                    self.at += to_marker;
                    return Ok(());
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.bytes.get(self.at).ok_or(DecodeError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }
}
