//! The camera: light, sensor noise, and frames with their capture times.

use crate::Puppet;
use crate::actor::Shot;
use crate::picture::Picture;
use crate::split_mix::SplitMix64;

/// JPEG quality of a phone's preview. A frame then has about a quarter of the 256 KiB that are
/// allowed.
const QUALITY: u8 = 85;

/// One frame, compressed, with its capture time.
#[derive(Debug, Clone, PartialEq)]
pub struct FilmedFrame {
    /// Capture time, in milliseconds since the recording began.
    pub at_ms: u64,
    /// The frame as a baseline JPEG.
    pub jpeg: Vec<u8>,
}

impl FilmedFrame {
    /// Compresses a picture.
    ///
    /// # Panics
    /// If the picture is empty or has a side of more than 65,535 pixels.
    pub fn new(at_ms: u64, picture: &Picture) -> Self {
        Self { at_ms, jpeg: picture.jpeg(QUALITY) }
    }
}

/// Films every shot of a track.
pub fn film(puppet: &Puppet, track: &[Shot], seed: u64) -> Vec<FilmedFrame> {
    track.iter().map(|shot| FilmedFrame::new(shot.at_ms, &shoot(puppet, shot, seed))).collect()
}

/// Films one shot. The noise depends on the shot's time, so that no two frames are equal.
pub fn shoot(puppet: &Puppet, shot: &Shot, seed: u64) -> Picture {
    puppet.film(&shot.pose, seed ^ shot.at_ms.wrapping_mul(0x9E37_79B9))
}

/// Applies light and noise in place.
pub(crate) fn expose(picture: &mut Picture, gain: f32, noise: f32, seed: u64) {
    if gain == 1.0 && noise == 0.0 {
        return;
    }
    let mut random = SplitMix64::new(seed);
    // The difference of two random bytes has a standard deviation of 256 / sqrt(6).
    let scale = noise / 104.5;
    for pixel in picture.pixels.as_chunks_mut::<3>().0 {
        let bytes = random.next().to_le_bytes();
        for channel in 0..3 {
            let (a, b) = (f32::from(bytes[2 * channel]), f32::from(bytes[2 * channel + 1]));
            let value = f32::from(pixel[channel]) * gain + (a - b) * scale + 0.5;
            pixel[channel] = value as u8;
        }
    }
}
