//! Orientation of a picture: the eight ways a camera can be held, and how to undo them.

use crate::image::RgbImage;

/// Clockwise rotation that makes a stored picture upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rotation {
    /// No rotation.
    #[default]
    None,
    /// By 90 degrees.
    Quarter,
    /// By 180 degrees.
    Half,
    /// By 270 degrees.
    ThreeQuarters,
}

impl Rotation {
    /// Parses 0, 90, 180 or 270; returns `None` for any other number.
    pub fn from_degrees(degrees: u32) -> Option<Self> {
        match degrees {
            0 => Some(Self::None),
            90 => Some(Self::Quarter),
            180 => Some(Self::Half),
            270 => Some(Self::ThreeQuarters),
            _ => None,
        }
    }
}

/// Maps a pixel of the upright picture to the stored one: swap the axes, then flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orientation {
    transpose: bool,
    flip_x: bool,
    flip_y: bool,
}

impl Orientation {
    /// The picture is upright.
    pub const UPRIGHT: Self = Self { transpose: false, flip_x: false, flip_y: false };

    /// The picture is upright, with left and right exchanged.
    pub const MIRRORED: Self = Self { transpose: false, flip_x: true, flip_y: false };

    /// Returns the orientation of a camera whose pictures become upright by `rotation` and show the
    /// scene unmirrored.
    pub fn turned(rotation: Rotation) -> Self {
        match rotation {
            Rotation::None => Self { transpose: false, flip_x: false, flip_y: false },
            Rotation::Quarter => Self { transpose: true, flip_x: false, flip_y: true },
            Rotation::Half => Self { transpose: false, flip_x: true, flip_y: true },
            Rotation::ThreeQuarters => Self { transpose: true, flip_x: true, flip_y: false },
        }
    }

    /// Returns the orientation of a camera whose pictures become upright by `rotation` and then
    /// show the scene as in a mirror. A rotation by 90 or 270 degrees swaps the axes, so the mirror
    /// flips the other stored axis.
    pub fn turned_and_mirrored(rotation: Rotation) -> Self {
        let turned = Self::turned(rotation);
        match turned.transpose {
            true => Self { flip_y: !turned.flip_y, ..turned },
            false => Self { flip_x: !turned.flip_x, ..turned },
        }
    }

    /// Parses the EXIF value, 1 to 8; returns `None` for any other number.
    pub(super) fn from_exif(value: u16) -> Option<Self> {
        match value {
            1 => Some(Self { transpose: false, flip_x: false, flip_y: false }),
            2 => Some(Self { transpose: false, flip_x: true, flip_y: false }),
            3 => Some(Self { transpose: false, flip_x: true, flip_y: true }),
            4 => Some(Self { transpose: false, flip_x: false, flip_y: true }),
            5 => Some(Self { transpose: true, flip_x: false, flip_y: false }),
            6 => Some(Self { transpose: true, flip_x: false, flip_y: true }),
            7 => Some(Self { transpose: true, flip_x: true, flip_y: true }),
            8 => Some(Self { transpose: true, flip_x: true, flip_y: false }),
            _ => None,
        }
    }

    /// Returns the upright picture; returns an upright picture unchanged.
    pub fn make_upright(self, stored: RgbImage) -> RgbImage {
        if self == Self::UPRIGHT {
            return stored;
        }
        let (stored_width, stored_height) = (stored.width(), stored.height());
        let (width, height) = match self.transpose {
            true => (stored_height, stored_width),
            false => (stored_width, stored_height),
        };
        let source = stored.pixels();
        let mut upright = RgbImage::black(width, height);
        for (y, line) in upright.pixels_mut().chunks_exact_mut(width * 3).enumerate() {
            for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
                let (x, y) = if self.transpose { (y, x) } else { (x, y) };
                let x = if self.flip_x { stored_width - 1 - x } else { x };
                let y = if self.flip_y { stored_height - 1 - y } else { y };
                let at = (y * stored_width + x) * 3;
                pixel.copy_from_slice(&source[at..at + 3]);
            }
        }
        upright
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds an image from lines of grey values.
    fn image(lines: &[&[u8]]) -> RgbImage {
        let pixels = lines.iter().flat_map(|line| line.iter().flat_map(|&v| [v; 3])).collect();
        RgbImage::new(lines[0].len(), lines.len(), pixels).unwrap()
    }

    #[test]
    fn every_exif_orientation_is_undone() {
        // The upright picture is 1 2 / 3 4 / 5 6. The stored pictures follow from EXIF's "row 0 is
        // the visual …, column 0 is the visual …".
        let upright = image(&[&[1, 2], &[3, 4], &[5, 6]]);
        let stored: [&[&[u8]]; 8] = [
            &[&[1, 2], &[3, 4], &[5, 6]], // row 0 top, column 0 left
            &[&[2, 1], &[4, 3], &[6, 5]], // top, right
            &[&[6, 5], &[4, 3], &[2, 1]], // bottom, right
            &[&[5, 6], &[3, 4], &[1, 2]], // bottom, left
            &[&[1, 3, 5], &[2, 4, 6]],    // left, top
            &[&[2, 4, 6], &[1, 3, 5]],    // right, top
            &[&[6, 4, 2], &[5, 3, 1]],    // right, bottom
            &[&[5, 3, 1], &[6, 4, 2]],    // left, bottom
        ];
        for (lines, value) in stored.iter().zip(1..) {
            let found = Orientation::from_exif(value).unwrap().make_upright(image(lines));
            assert_eq!((found.width(), found.height()), (2, 3), "orientation {value}");
            assert_eq!(found.pixels(), upright.pixels(), "orientation {value}");
        }
    }

    #[test]
    fn a_camera_that_is_turned_or_mirrors_is_undone() {
        // The scene is 1 2 / 3 4 / 5 6. A sensor that must be turned clockwise by 90 degrees stores
        // its right column first, and so on.
        let scene = image(&[&[1, 2], &[3, 4], &[5, 6]]);
        type Lines = &'static [&'static [u8]];
        let stored: [(u32, Lines, Lines); 4] = [
            (0, &[&[1, 2], &[3, 4], &[5, 6]], &[&[2, 1], &[4, 3], &[6, 5]]),
            (90, &[&[2, 4, 6], &[1, 3, 5]], &[&[1, 3, 5], &[2, 4, 6]]),
            (180, &[&[6, 5], &[4, 3], &[2, 1]], &[&[5, 6], &[3, 4], &[1, 2]]),
            (270, &[&[5, 3, 1], &[6, 4, 2]], &[&[6, 4, 2], &[5, 3, 1]]),
        ];
        for (degrees, plain, mirrored) in stored {
            let rotation = Rotation::from_degrees(degrees).unwrap();
            let found = Orientation::turned(rotation).make_upright(image(plain));
            assert_eq!(found.pixels(), scene.pixels(), "{degrees}");
            let found = Orientation::turned_and_mirrored(rotation).make_upright(image(mirrored));
            assert_eq!((found.width(), found.height()), (2, 3), "{degrees}, mirrored");
            assert_eq!(found.pixels(), scene.pixels(), "{degrees}, mirrored");
        }
        assert_eq!(Rotation::from_degrees(45), None);
    }

    #[test]
    fn other_values_are_no_orientation() {
        assert_eq!(Orientation::from_exif(0), None);
        assert_eq!(Orientation::from_exif(9), None);
    }
}
