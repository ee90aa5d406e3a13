//! Turns a still portrait into the frames of a person in front of a camera: the puppet. The crate
//! knows nothing of the server.
//!
//! The crate keeps the metaphor of a film: an actor performs gestures, each pose is a shot, and a
//! camera films the shots. `portrait` fits a picture and its 468 mesh points to a canvas. `eyes`
//! and `mouth` change the face on the canvas. `surface` stretches the canvas over a head or a
//! print, `raster` turns and draws it, and `camera` films it. `actor` decides who performs what and
//! when. [`attacks`] makes the recordings of a cheat.
//!
//! Left and right are the person's own. Times are in milliseconds since the recording began.

mod actor;
pub mod attacks;
mod camera;
mod eyes;
mod mouth;
mod picture;
mod polyline;
mod portrait;
mod raster;
mod split_mix;
mod surface;
#[cfg(test)]
mod tests;

pub use actor::{Actor, Gesture, Performance, Shot};
pub use camera::{FilmedFrame, film, shoot};
pub use picture::Picture;
pub use portrait::Point;
pub use raster::Transform;

use portrait::{NOSE_TIP, Portrait};
use surface::Surface;

/// All that a frame depends on besides the portrait.
#[derive(Debug, Clone, Copy)]
pub struct Pose {
    /// How the head is turned, and where it is in the frame.
    pub transform: Transform,
    /// Right eye of the person, then the left eye: 0 as in the portrait, 1 closed.
    pub eyes_closed: [f32; 2],
    /// 0 at rest, 1 wide open.
    pub mouth_open: f32,
    /// Factor on the light.
    pub gain: f32,
    /// Standard deviation of the sensor's noise, in levels of 255.
    pub noise: f32,
}

impl Pose {
    /// The pose of the portrait, without noise.
    pub(crate) const REST: Self = Self {
        transform: Transform { yaw: 0.0, pitch: 0.0, roll: 0.0, scale: 1.0, shift: [0.0; 2] },
        eyes_closed: [0.0; 2],
        mouth_open: 0.0,
        gain: 1.0,
        noise: 0.0,
    };
}

/// Offset of the nose from the midpoint of the eyes at a full turn, in half distances of the eyes.
/// The detector's points lag behind the mesh and must still show 0.5.
const TURN_RATIO: f32 = 1.1;

/// Yaws in degrees: looking into the camera, and turned fully to each side. They differ by
/// portrait, since few people looked straight into the camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnYaws {
    /// Looking into the camera.
    pub straight: f32,
    /// Turned to the left; greater than `straight`.
    pub left: f32,
    /// Turned to the right; less than `straight`.
    pub right: f32,
}

/// A portrait stretched over a surface, ready to be posed.
#[derive(Debug, Clone)]
pub struct Puppet {
    portrait: Portrait,
    surface: Surface,
}

impl Puppet {
    /// Creates the person of the portrait. Points are the 468 points of a face mesh, in pixels of
    /// the picture; z has the same scale and is negative towards the camera.
    ///
    /// # Panics
    /// If there are not 468 points, or the eyes are at one place.
    pub fn person(picture: &Picture, points: &[Point]) -> Self {
        let portrait = Portrait::new(picture, points);
        Self { surface: Surface::head(&portrait), portrait }
    }

    /// Creates a flat print of the portrait, which turns as a board does.
    ///
    /// # Panics
    /// As [`Self::person`].
    pub fn flat_print(picture: &Picture, points: &[Point]) -> Self {
        Self { portrait: Portrait::new(picture, points), surface: Surface::flat_print() }
    }

    /// Creates a print of the portrait that is bent around an upright cylinder.
    ///
    /// # Panics
    /// As [`Self::person`].
    pub fn bent_print(picture: &Picture, points: &[Point], radius_cm: f32) -> Self {
        Self { portrait: Portrait::new(picture, points), surface: Surface::bent_print(radius_cm) }
    }

    /// Returns the yaws that an actor needs.
    pub fn turn_yaws(&self) -> TurnYaws {
        let [right, straight, left] =
            [-TURN_RATIO, 0.0, TURN_RATIO].map(|ratio| self.yaw_at_ratio(ratio));
        TurnYaws { straight, left, right }
    }

    /// Returns the yaw in degrees at which the nose is `ratio` half eye distances beside the
    /// midpoint of the eyes. Positive is image right. (`ratio` is `r` of the liveness rules.)
    fn yaw_at_ratio(&self, ratio: f32) -> f32 {
        let (mut low, mut high) = (-60.0, 60.0);
        for _ in 0..16 {
            let middle = (low + high) / 2.0;
            if self.nose_ratio(middle) > ratio { high = middle } else { low = middle }
        }
        (low + high) / 2.0
    }

    fn nose_ratio(&self, yaw: f32) -> f32 {
        let transform = Transform { yaw, ..Pose::REST.transform };
        let x_in_frame = |at: Point| raster::locate(&self.surface, [at[0], at[1]], &transform)[0];
        let [right, left] = self.portrait.eyes().map(x_in_frame);
        let nose = x_in_frame(self.portrait.points[NOSE_TIP]);
        (2.0 * nose - right - left) / (left - right)
    }

    /// Draws one frame, without the camera's light and noise.
    pub(crate) fn draw(&self, pose: &Pose) -> Picture {
        /// Colour of the wall behind prints.
        const WALL: [u8; 3] = [150, 146, 140];
        let mut canvas = self.portrait.canvas.clone();
        eyes::close(&self.portrait, pose.eyes_closed, &mut canvas);
        mouth::open(&self.portrait, pose.mouth_open, &mut canvas);
        raster::draw(&self.surface, &canvas, &pose.transform, WALL)
    }

    /// Draws one frame as the camera records it; `seed` fixes the noise.
    pub(crate) fn film(&self, pose: &Pose, seed: u64) -> Picture {
        let mut frame = self.draw(pose);
        camera::expose(&mut frame, pose.gain, pose.noise, seed);
        frame
    }
}
