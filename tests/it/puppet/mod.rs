//! The puppet: turns a still portrait into the frames of a person in front of a camera.
//!
//! A portrait and its 468 mesh points are brought to a canvas (`portrait`), the face makes its
//! expression there (`eyes`, `mouth`), the canvas is stretched over a head or a print (`surface`),
//! turned and drawn (`raster`), and filmed (`camera`). An `actor` decides who does what when;
//! `attacks` are what a cheat would show instead. Nothing here knows the server.

pub mod actor;
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
pub use portrait::{Point, Portrait};
pub use raster::Transform;

use portrait::NOSE_TIP;
use surface::Surface;

/// All that a frame depends on besides the portrait.
#[derive(Debug, Clone, Copy)]
pub struct Pose {
    pub transform: Transform,
    /// The person's right eye, the left one: 0 as in the portrait, 1 closed.
    pub eyes_closed: [f32; 2],
    /// 0 at rest, 1 wide open.
    pub mouth_open: f32,
    /// Factor on the light.
    pub gain: f32,
    /// Standard deviation of the sensor's noise, in levels of 255.
    pub noise: f32,
}

impl Pose {
    /// As in the portrait, without noise.
    pub const REST: Self = Self {
        transform: Transform { yaw: 0.0, pitch: 0.0, roll: 0.0, scale: 1.0, shift: [0.0; 2] },
        eyes_closed: [0.0; 2],
        mouth_open: 0.0,
        gain: 1.0,
        noise: 0.0,
    };
}

/// How far the nose is seen beside the middle of the eyes in a full turn, in halves of their
/// distance. The detector, whose points lag behind the mesh, must still read 0.5.
const TURN_RATIO: f32 = 1.1;

/// Degrees of yaw that make a person look into the camera, and fully to each side. They differ by
/// portrait: few people looked straight when it was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnYaws {
    pub straight: f32,
    pub left: f32,
    pub right: f32,
}

/// A portrait stretched over a surface, ready to be posed.
#[derive(Debug, Clone)]
pub struct Puppet {
    portrait: Portrait,
    surface: Surface,
}

impl Puppet {
    /// The person of the portrait. Points are in pixels of the picture, z towards the camera
    /// negative and on the same scale.
    pub fn person(picture: &Picture, points: &[Point]) -> Self {
        let portrait = Portrait::new(picture, points);
        Self { surface: Surface::head(&portrait), portrait }
    }

    /// A flat print of the portrait, which turns as a board does.
    pub fn flat_print(picture: &Picture, points: &[Point]) -> Self {
        Self { portrait: Portrait::new(picture, points), surface: Surface::flat_print() }
    }

    /// A print of the portrait bent about an upright cylinder.
    pub fn bent_print(picture: &Picture, points: &[Point], radius_cm: f32) -> Self {
        Self { portrait: Portrait::new(picture, points), surface: Surface::bent_print(radius_cm) }
    }

    /// The yaws that an actor needs.
    pub fn turn_yaws(&self) -> TurnYaws {
        let [right, straight, left] =
            [-TURN_RATIO, 0.0, TURN_RATIO].map(|ratio| self.yaw_at_ratio(ratio));
        TurnYaws { straight, left, right }
    }

    /// The yaw in degrees at which the camera sees the nose `ratio` beside the middle of the eyes,
    /// in halves of their distance; positive to image right. (`r` of the liveness rules.)
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

    /// One frame, before the camera's noise.
    pub fn draw(&self, pose: &Pose) -> Picture {
        /// A wall behind prints.
        const WALL: [u8; 3] = [150, 146, 140];
        let mut canvas = self.portrait.canvas.clone();
        eyes::close(&self.portrait, pose.eyes_closed, &mut canvas);
        mouth::open(&self.portrait, pose.mouth_open, &mut canvas);
        raster::draw(&self.surface, &canvas, &pose.transform, WALL)
    }

    /// One frame as the camera gives it; `seed` fixes its noise.
    pub fn film(&self, pose: &Pose, seed: u64) -> Picture {
        let mut frame = self.draw(pose);
        camera::expose(&mut frame, pose.gain, pose.noise, seed);
        frame
    }
}
