//! Draws a server's answer on the picture.

use anyhow::Context;
use font8x8::UnicodeFonts;

use super::client::enum_name;
use crate::image::{ImageSettings, RgbImage, decode};
use crate::proto::v1;

/// RGB.
type Colour = [u8; 3];

const GOOD: Colour = [64, 220, 90];
const BAD: Colour = [255, 70, 60];
const OTHER: Colour = [255, 200, 60];
const TEXT_BACKGROUND: Colour = [16, 16, 20];

/// Width and height of a glyph, in dots.
const GLYPH_SIDE: usize = 8;

/// Returns the picture as PNG, with a box and points for each face and the reasons at the top.
/// Green marks a usable main face, red an unusable one, yellow any other face.
pub(super) fn draw_faces(file: &[u8], answer: &v1::DetectResponse) -> anyhow::Result<Vec<u8>> {
    let mut picture = decode(file, &ImageSettings::default())?;
    let line_width = (picture.width().max(picture.height()) / 320).max(2);
    let verdict_colour = if answer.reasons.is_empty() { GOOD } else { BAD };
    for (index, face) in answer.faces.iter().enumerate().rev() {
        draw_face(&mut picture, face, if index == 0 { verdict_colour } else { OTHER }, line_width);
    }
    let mut canvas = Canvas { picture: &mut picture, scale: line_width };
    let mut top = 2 * line_width;
    for line in text_lines(answer) {
        canvas.write_text(2 * line_width, top, &line, verdict_colour);
        top += (GLYPH_SIDE + 2) * line_width;
    }
    encode_png(&picture)
}

fn text_lines(answer: &v1::DetectResponse) -> Vec<String> {
    if answer.reasons.is_empty() {
        return vec!["OK".to_owned()];
    }
    let line = |reason: &v1::Reason| {
        let code = enum_name(reason.code().as_str_name(), "REASON_CODE_");
        match (reason.value, reason.limit) {
            (Some(value), Some(limit)) => format!("{code} {value:.2} / {limit:.2}"),
            _ => code.to_owned(),
        }
    };
    answer.reasons.iter().map(line).collect()
}

fn draw_face(picture: &mut RgbImage, face: &v1::Face, colour: Colour, line_width: usize) {
    let bounds = face.r#box.unwrap_or_default();
    let (left, top) = (bounds.x as i64, bounds.y as i64);
    let (right, bottom) = ((bounds.x + bounds.width) as i64, (bounds.y + bounds.height) as i64);
    let width = line_width as i64;
    fill_rectangle(picture, [left, top, right, top + width], colour);
    fill_rectangle(picture, [left, bottom - width, right, bottom], colour);
    fill_rectangle(picture, [left, top, left + width, bottom], colour);
    fill_rectangle(picture, [right - width, top, right, bottom], colour);
    let points =
        [face.right_eye, face.left_eye, face.nose, face.right_mouth_corner, face.left_mouth_corner];
    for point in points.into_iter().flatten() {
        let (x, y) = (point.x as i64, point.y as i64);
        fill_rectangle(picture, [x - width, y - width, x + width + 1, y + width + 1], colour);
    }
}

/// Fills the rectangle `[left, top, right, bottom)`, cut off at the edges of the picture.
fn fill_rectangle(picture: &mut RgbImage, [left, top, right, bottom]: [i64; 4], colour: Colour) {
    let (width, height) = (picture.width() as i64, picture.height() as i64);
    for y in top.max(0)..bottom.min(height) {
        for x in left.max(0)..right.min(width) {
            let start = ((y * width + x) * 3) as usize;
            picture.pixels_mut()[start..start + 3].copy_from_slice(&colour);
        }
    }
}

/// Writes text on a picture; each dot of a glyph is `scale` pixels wide.
struct Canvas<'a> {
    picture: &'a mut RgbImage,
    scale: usize,
}

impl Canvas<'_> {
    fn write_text(&mut self, left: usize, top: usize, text: &str, colour: Colour) {
        let dot = self.scale as i64;
        let cell = GLYPH_SIDE as i64 * dot;
        let (mut x, y) = (left as i64, top as i64);
        for character in text.chars() {
            fill_rectangle(
                self.picture,
                [x - dot, y - dot, x + cell, y + cell + dot],
                TEXT_BACKGROUND,
            );
            let glyph = font8x8::BASIC_FONTS.get(character).unwrap_or_default();
            for (glyph_y, bits) in glyph.iter().enumerate() {
                for glyph_x in (0..GLYPH_SIDE).filter(|glyph_x| bits >> glyph_x & 1 == 1) {
                    let (dot_x, dot_y) = (x + glyph_x as i64 * dot, y + glyph_y as i64 * dot);
                    fill_rectangle(self.picture, [dot_x, dot_y, dot_x + dot, dot_y + dot], colour);
                }
            }
            x += cell;
        }
    }
}

fn encode_png(picture: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let width = u32::try_from(picture.width())?;
    let height = u32::try_from(picture.height())?;
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(picture.pixels()))
        .context("cannot encode the picture")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(x: f32, y: f32) -> v1::Face {
        v1::Face {
            r#box: Some(v1::Box { x, y, width: 40.0, height: 40.0 }),
            nose: Some(v1::Point { x: x + 20.0, y: y + 20.0 }),
            ..v1::Face::default()
        }
    }

    #[test]
    fn the_main_face_is_framed_and_a_frame_beyond_the_edge_is_cut() {
        let black = encode_png(&RgbImage::black(100, 90)).unwrap();
        let answer = v1::DetectResponse {
            faces: vec![face(30.0, 30.0), face(80.0, -20.0)],
            ..v1::DetectResponse::default()
        };
        let drawn = draw_faces(&black, &answer).unwrap();
        let picture = decode(&drawn, &ImageSettings::default()).unwrap();
        let pixel = |x: usize, y: usize| &picture.pixels()[(y * 100 + x) * 3..][..3];
        assert_eq!(pixel(30, 50), GOOD);
        assert_eq!(pixel(50, 50), GOOD);
        assert_eq!(pixel(80, 10), OTHER);
        assert_eq!(pixel(60, 80), [0, 0, 0]);
    }
}
