//! Regular patterns in a picture: the moiré of a screen's or a printer's grid seen by a camera.

use std::f64::consts::PI;

use super::{LumaImage, PixelRect, RgbImage, crop_resize};

/// Side of the square that is looked at, in pixels of the picture as it was taken: a resized one
/// shows other patterns. A power of two.
const SIDE: usize = 128;

/// Fewest waves in the square that are a pattern; fewer are the face's own shapes.
const WAVES_MIN: f64 = 12.0;

/// JPEG's blocks of 8×8 repeat at multiples of this.
const BLOCK_WAVES: usize = SIDE / 8;

/// A peak is held against what lies this far around it: the window spreads it over less.
const AROUND: std::ops::RangeInclusive<usize> = 4..=8;

/// Share of what lies around a peak that lies below its background. An edge is a line through the
/// spectrum, a tenth of what lies around any of its points, and so its own background; that also
/// takes out the fall of a natural spectrum.
const BACKGROUND: f64 = 0.9;

type Complex = [f64; 2];

/// The square about a point that [`pattern_db`] looks at; `None` where the picture has none.
pub fn pattern_square(image: &RgbImage, x: f64, y: f64) -> Option<RgbImage> {
    if image.width() < SIDE || image.height() < SIDE {
        return None;
    }
    let half = SIDE as f64 / 2.0;
    let start = |middle: f64, length: usize| (middle - half).clamp(0.0, (length - SIDE) as f64);
    let (x, y) = (start(x, image.width()) as usize, start(y, image.height()) as usize);
    crop_resize(image, PixelRect { x, y, width: SIDE, height: SIDE }, SIDE, SIDE)
}

/// By how many decibels the strongest regular pattern of a [`pattern_square`] stands above the
/// spectrum around it. Photographs of faces have up to 9, pictures of a screen's grid 26 and more.
pub fn pattern_db(square: &RgbImage) -> f64 {
    let power = power(&LumaImage::new(square));
    let at = |row: usize, column: usize| power[row % SIDE * SIDE + column % SIDE];
    let mut strongest = 1.0_f64;
    for row in 0..=SIDE / 2 {
        for column in 0..SIDE {
            let here = at(row, column);
            let sides = [(1, 0), (SIDE - 1, 0), (0, 1), (0, SIDE - 1)];
            let is_peak = sides.iter().all(|&(down, right)| at(row + down, column + right) <= here);
            if is_peak && may_be_pattern(row, column) {
                strongest = strongest.max(here / background(&at, row, column));
            }
        }
    }
    10.0 * strongest.log10()
}

fn may_be_pattern(row: usize, column: usize) -> bool {
    let waves = [row, column].map(|at| at.min(SIDE - at));
    let is_of_blocks = |waves: usize| (waves + 1) % BLOCK_WAVES <= 2;
    let length = (waves[0] as f64).hypot(waves[1] as f64);
    let is_fine = (WAVES_MIN..=SIDE as f64 / 2.0).contains(&length);
    is_fine && !waves.into_iter().all(is_of_blocks)
}

/// What most of the spectrum around a peak keeps below.
fn background(power: &impl Fn(usize, usize) -> f64, row: usize, column: usize) -> f64 {
    let (near, far) = (*AROUND.start(), *AROUND.end());
    let mut around = Vec::with_capacity((2 * far + 1).pow(2));
    for down in 0..=2 * far {
        for right in 0..=2 * far {
            if down.abs_diff(far).max(right.abs_diff(far)) >= near {
                around.push(power(row + SIDE + down - far, column + SIDE + right - far));
            }
        }
    }
    let place = (around.len() as f64 * BACKGROUND) as usize;
    let (_, value, _) = around.select_nth_unstable_by(place, f64::total_cmp);
    *value
}

/// The power spectrum of the square under a Hann window, row by row.
fn power(luma: &LumaImage) -> Vec<f64> {
    let values = luma.values();
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    let window: Vec<f64> =
        (0..SIDE).map(|at| 0.5 - 0.5 * (2.0 * PI * at as f64 / SIDE as f64).cos()).collect();
    let roots: Vec<Complex> = (0..SIDE / 2)
        .map(|at| -2.0 * PI * at as f64 / SIDE as f64)
        .map(|angle| [angle.cos(), angle.sin()])
        .collect();
    let mut grid = vec![[0.0; 2]; SIDE * SIDE];
    for (at, (cell, value)) in grid.iter_mut().zip(values).enumerate() {
        cell[0] = (f64::from(*value) - mean) * window[at / SIDE] * window[at % SIDE];
    }
    for _ in 0..2 {
        for line in grid.chunks_exact_mut(SIDE) {
            transform(line, &roots);
        }
        grid = (0..SIDE * SIDE).map(|at| grid[at % SIDE * SIDE + at / SIDE]).collect();
    }
    // Far below a grey level, so that nothing is divided by 0.
    grid.iter().map(|[re, im]| re * re + im * im + 1e-9).collect()
}

/// Fourier transform in place (Cooley and Tukey, radix 2).
fn transform(line: &mut [Complex], roots: &[Complex]) {
    let shift = usize::BITS - SIDE.ilog2();
    for at in 0..SIDE {
        let other = at.reverse_bits() >> shift;
        if at < other {
            line.swap(at, other);
        }
    }
    let mut half = 1;
    while half < SIDE {
        for pair in line.chunks_exact_mut(2 * half) {
            let (evens, odds) = pair.split_at_mut(half);
            for (at, (even, odd)) in evens.iter_mut().zip(odds).enumerate() {
                let [cos, sin] = roots[at * (SIDE / 2 / half)];
                let turned = [odd[0] * cos - odd[1] * sin, odd[0] * sin + odd[1] * cos];
                *odd = [even[0] - turned[0], even[1] - turned[1]];
                *even = [even[0] + turned[0], even[1] + turned[1]];
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::image::{ImageSettings, decode};

    fn faces() -> Vec<PathBuf> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/faces");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let is_picture = |file: &PathBuf| {
            file.extension().is_some_and(|extension| extension == "jpg" || extension == "png")
        };
        files.filter(is_picture).collect()
    }

    fn photograph(file: &Path) -> RgbImage {
        decode(&std::fs::read(file).unwrap(), &ImageSettings::default()).unwrap()
    }

    /// The picture on a screen of upright red, green and blue stripes with gaps between the rows,
    /// `pitch` screen pixels for each of the camera's, which is held `degrees` aslant.
    fn on_screen(picture: &RgbImage, pitch: f64, degrees: f64) -> RgbImage {
        const SAMPLES: usize = 3;
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (width, height) = (picture.width(), picture.height());
        let mut seen = RgbImage::black(width, height);
        for at in 0..width * height {
            let mut share = [0.0; 3];
            for sample in 0..SAMPLES * SAMPLES {
                let x = (at % width) as f64 + (sample % SAMPLES) as f64 / SAMPLES as f64;
                let y = (at / width) as f64 + (sample / SAMPLES) as f64 / SAMPLES as f64;
                let across = ((x * cos - y * sin) * pitch).rem_euclid(1.0);
                let down = ((x * sin + y * cos) * pitch).rem_euclid(1.0);
                let stripe = ((across * 3.0) as usize).min(2);
                share[stripe] += if down < 0.85 { 3.0 / 0.85 / 9.0 } else { 0.0 };
            }
            for (channel, share) in share.iter().enumerate() {
                let value = f64::from(picture.pixels()[at * 3 + channel]);
                seen.pixels_mut()[at * 3 + channel] = (value * share).min(255.0) as u8;
            }
        }
        seen
    }

    fn as_jpeg(picture: &RgbImage) -> RgbImage {
        let (width, height) = (picture.width() as u16, picture.height() as u16);
        let mut file = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut file, 90);
        encoder.encode(picture.pixels(), width, height, jpeg_encoder::ColorType::Rgb).unwrap();
        decode(&file, &ImageSettings::default()).unwrap()
    }

    fn middle_db(picture: &RgbImage) -> f64 {
        let (x, y) = (picture.width() as f64 / 2.0, picture.height() as f64 / 2.0);
        pattern_db(&pattern_square(picture, x, y).unwrap())
    }

    #[test]
    fn photographs_have_no_pattern_and_pictures_of_a_screen_have_one() {
        let faces = faces();
        assert_eq!(faces.len(), 8);
        for file in faces {
            let picture = photograph(&file);
            for plain in [middle_db(&picture), middle_db(&as_jpeg(&picture))] {
                assert!(plain < 10.0, "{}: {plain}", file.display());
            }
            for (pitch, degrees) in [(0.6, 8.0), (0.9, 3.0), (1.12, 5.0), (1.3, 2.0), (2.1, 1.0)] {
                let screened = middle_db(&as_jpeg(&on_screen(&picture, pitch, degrees)));
                assert!(screened > 20.0, "{} {pitch} {degrees}: {screened}", file.display());
            }
        }
    }

    #[test]
    fn an_edge_is_no_pattern_and_waves_are() {
        let drawn = |level: fn(usize, usize) -> u8| {
            let mut image = RgbImage::black(SIDE, SIDE);
            for at in 0..SIDE * SIDE {
                image.pixels_mut()[at * 3..][..3].fill(level(at % SIDE, at / SIDE));
            }
            pattern_db(&image)
        };
        assert!(drawn(|x, y| if 3 * x > 2 * y + 20 { 220 } else { 30 }) < 10.0);
        let waves = drawn(|x, y| (128.0 + 3.0 * (1.7 * x as f64 + 0.9 * y as f64).sin()) as u8);
        assert!(waves > 20.0, "{waves}");
        assert_eq!(drawn(|_, _| 128), 0.0);
    }

    #[test]
    fn a_picture_that_is_too_small_has_no_square_and_one_at_the_edge_is_moved_inside() {
        let image = RgbImage::black(SIDE, SIDE - 1);
        assert!(pattern_square(&image, 60.0, 60.0).is_none());
        let image = RgbImage::black(SIDE + 5, SIDE);
        for x in [-1e9, 0.0, 1e9, f64::NAN] {
            let square = pattern_square(&image, x, 60.0).unwrap();
            assert_eq!((square.width(), square.height()), (SIDE, SIDE));
        }
    }
}
