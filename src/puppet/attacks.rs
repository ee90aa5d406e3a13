//! Recordings of cheats. Each function takes the shots or frames of an honest performance and
//! breaks one property.

use crate::camera::{FilmedFrame, shoot};
use crate::picture::Picture;
use crate::portrait::FRAME;
use crate::raster::Transform;
use crate::{Pose, Puppet, Shot};

/// A photo on a stand: frames differ only by the sensor's noise.
pub fn still(shots: &[Shot]) -> Vec<Shot> {
    shots.iter().map(|shot| Shot { pose: photo_pose(shot.pose), ..*shot }).collect()
}

/// A photo in a hand: moved, rotated in its plane and brought nearer.
pub fn moved_in_plane(shots: &[Shot]) -> Vec<Shot> {
    let moved = |shot: &Shot| {
        let seconds = shot.at_ms as f32 / 1000.0;
        let (sway, lift) = ((2.1 * seconds).sin(), (1.3 * seconds).sin());
        let transform = Transform {
            roll: 12.0 * sway,
            scale: 1.0 + 0.08 * lift,
            shift: [40.0 * sway, 25.0 * lift],
            ..Pose::REST.transform
        };
        Shot { pose: Pose { transform, ..photo_pose(shot.pose) }, ..*shot }
    };
    shots.iter().map(moved).collect()
}

/// A print that turns and tilts as the person would. Paper closes neither eyes nor mouth. The
/// puppet must be made of paper.
pub fn turned_print(shots: &[Shot]) -> Vec<Shot> {
    let paper = |shot: &Shot| {
        let transform = shot.pose.transform;
        Shot { pose: Pose { transform, ..photo_pose(shot.pose) }, ..*shot }
    };
    shots.iter().map(paper).collect()
}

fn photo_pose(pose: Pose) -> Pose {
    Pose { gain: pose.gain, noise: pose.noise, ..Pose::REST }
}

/// Returns the first recording up to `at_ms` and the second from then on.
pub fn splice(first: &[FilmedFrame], second: &[FilmedFrame], at_ms: u64) -> Vec<FilmedFrame> {
    let before = first.iter().filter(|frame| frame.at_ms < at_ms);
    before.chain(second.iter().filter(|frame| frame.at_ms >= at_ms)).cloned().collect()
}

/// Replaces the `count` frames after `index` by byte-for-byte copies of frame `index`.
pub fn duplicated(frames: &[FilmedFrame], index: usize, count: usize) -> Vec<FilmedFrame> {
    let copied = index + 1..=index + count;
    let source = |at| if copied.contains(&at) { index } else { at };
    let copy = |(at, frame): (usize, &FilmedFrame)| FilmedFrame {
        at_ms: frame.at_ms,
        ..frames[source(at)].clone()
    };
    frames.iter().enumerate().map(copy).collect()
}

/// Repeats a piece of a recording until the recording's end. A number in the corner of each frame
/// keeps hashes of bytes and of pixels from finding the repetition.
pub fn looped(
    puppet: &Puppet,
    shots: &[Shot],
    piece: std::ops::Range<usize>,
    seed: u64,
) -> Vec<FilmedFrame> {
    let shown = |index: usize| match index.checked_sub(piece.end) {
        None => index,
        Some(beyond) => piece.start + beyond % piece.len(),
    };
    let frame = |index: usize| {
        let mut picture = shoot(puppet, &shots[shown(index)], seed);
        mark(&mut picture, index);
        FilmedFrame::new(shots[index].at_ms, &picture)
    };
    (0..shots.len()).map(frame).collect()
}

/// Writes a number into the top left corner, too small to change the face.
fn mark(picture: &mut Picture, number: usize) {
    for bit in 0..8 {
        let level = if number >> bit & 1 == 1 { 255.0 } else { 0.0 };
        for x in 0..4 {
            picture.put(bit * 4 + x, 0, [level; 3]);
        }
    }
}

/// A second person looks into the picture from the side, large enough to count as a second face.
pub fn second_face(main: &Puppet, other: &Puppet, shots: &[Shot], seed: u64) -> Vec<FilmedFrame> {
    /// Top left corner of the second person's window, the person's scale, and the middle of the
    /// face in the frame.
    const WINDOW: [usize; 2] = [300, 150];
    const SMALLER: f32 = 0.65;
    const FACE: [f32; 2] = [390.0, 330.0];
    let frame = |shot: &Shot| {
        let mut aside = *shot;
        aside.pose.transform.shift[0] -= 95.0;
        let mut picture = shoot(main, &aside, seed);
        let guest = other.draw(&Pose::REST);
        for y in WINDOW[1]..FRAME[1] {
            for x in WINDOW[0]..FRAME[0] {
                let u = (x as f32 - FACE[0]) / SMALLER + FRAME[0] as f32 / 2.0;
                let v = (y as f32 - FACE[1]) / SMALLER + FRAME[1] as f32 / 2.0;
                picture.put(x, y, guest.sample(u, v));
            }
        }
        FilmedFrame::new(shot.at_ms, &picture)
    };
    shots.iter().map(frame).collect()
}

/// Left and right exchanged, as in a phone's preview.
pub fn mirrored(puppet: &Puppet, shots: &[Shot], seed: u64) -> Vec<FilmedFrame> {
    let frame = |shot: &Shot| FilmedFrame::new(shot.at_ms, &shoot(puppet, shot, seed).mirrored());
    shots.iter().map(frame).collect()
}
