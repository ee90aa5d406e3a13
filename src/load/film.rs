//! What the camera of a session sees: rendered before the run, or recorded.
//!
//! A film has frames of a person at rest, and takes of each action. The player joins them while the
//! server prompts.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use menshen_puppet::{Actor, FilmedFrame, Gesture, Point, Puppet, Shot, shoot};
use rand::Rng;
use rand::rngs::SmallRng;
use rayon::prelude::*;
use zune_jpeg::JpegDecoder;

use super::LoadError;
use super::pictures::{self, GRACE_HOPPER};
use crate::proto::v1::Action;

/// Frames a second of the camera.
pub(super) const FRAMES_PER_SECOND: u32 = 10;

/// Interval of frames, in milliseconds.
const FRAME_MS: u64 = 1000 / FRAMES_PER_SECOND as u64;

/// Rendered frames of a person at rest: those before, between and after three actions, and as many
/// again for a server that answers late. No frame is shown twice, since the server takes a
/// repetition for a loop.
const REST_FRAMES: u64 = 200;

/// Takes of each action. A session never asks for one action twice in a row, so it asks for one at
/// most twice.
const TAKES: u64 = 2;

/// Frames between a prompt and the movement, the least and the most: 400 to 700 ms.
const REACTION_FRAMES: [usize; 2] = [4, 7];

/// Folders of a recorded film, with the action that each shows.
const ACTIONS: [(&str, Action, Gesture); 5] = [
    ("turn_left", Action::TurnLeft, Gesture::TurnLeft),
    ("turn_right", Action::TurnRight, Gesture::TurnRight),
    ("blink", Action::Blink, Gesture::Blink),
    ("nod", Action::Nod, Gesture::Nod),
    ("open_mouth", Action::OpenMouth, Gesture::OpenMouth),
];

/// Frames of one person, as JPEG files.
#[derive(Debug, Clone)]
pub struct Film {
    /// The file of the person's portrait.
    pub(super) portrait: Bytes,
    rest: Vec<Bytes>,
    takes: Vec<(Action, Vec<Bytes>)>,
}

impl Film {
    /// Renders the built-in person. Calls `progress` with the share of finished frames, in 0..=1,
    /// from any thread.
    pub fn render(progress: impl Fn(f64) + Sync) -> Self {
        let puppet = built_in_person();
        let tracks = tracks(&puppet);
        let all: usize = tracks.iter().map(|track| track.shots.len()).sum();
        let finished = AtomicUsize::new(0);
        let render = |shot: &Shot| {
            let frame = FilmedFrame::new(shot.at_ms, &shoot(&puppet, shot, SEED));
            progress((finished.fetch_add(1, Ordering::Relaxed) + 1) as f64 / all as f64);
            Bytes::from(frame.jpeg)
        };
        let mut film = Self {
            portrait: Bytes::from_static(GRACE_HOPPER),
            rest: Vec::new(),
            takes: Vec::new(),
        };
        for track in &tracks {
            let frames = track.shots.par_iter().map(render).collect();
            match track.action {
                Some(action) => film.takes.push((action, frames)),
                None => film.rest = frames,
            }
        }
        film
    }

    /// Reads a recording: JPEG files in the order of their names, which are sent whatever the
    /// server prompts. If the folder has a folder `rest`, its files are sent until the server
    /// prompts, and those of the folder of the action (`turn_left`, `turn_right`, `blink`, `nod`,
    /// `open_mouth`) after a prompt.
    ///
    /// # Errors
    /// A folder or file cannot be read, holds no picture, or a file is no JPEG.
    pub fn read(folder: &Path, portrait: &Path) -> Result<Self, LoadError> {
        let portrait = pictures::read(portrait)?;
        let rest = folder.join("rest");
        if !rest.is_dir() {
            return Ok(Self { portrait, rest: read_frames(folder)?, takes: Vec::new() });
        }
        let mut film = Self { portrait, rest: read_frames(&rest)?, takes: Vec::new() };
        for (name, action, _) in ACTIONS {
            let folder = folder.join(name);
            if folder.is_dir() {
                film.takes.push((action, read_frames(&folder)?));
            }
        }
        Ok(film)
    }

    /// Returns the mean size of a frame, in bytes.
    pub fn frame_bytes(&self) -> usize {
        let frames = || self.rest.iter().chain(self.takes.iter().flat_map(|(_, frames)| frames));
        frames().map(Bytes::len).sum::<usize>() / frames().count().max(1)
    }
}

/// Seed of the rendered film.
const SEED: u64 = 15;

/// One piece of a film before it is rendered.
struct Track {
    /// `None`: at rest.
    action: Option<Action>,
    shots: Vec<Shot>,
}

fn tracks(puppet: &Puppet) -> Vec<Track> {
    let turns = puppet.turn_yaws();
    let actor = || Actor::new(SEED, turns);
    let rest = (0..REST_FRAMES).map(|frame| actor().shot(frame * FRAME_MS)).collect();
    let mut tracks = vec![Track { action: None, shots: rest }];
    // Each take has a time of its own, so that the sway and the noise of no two frames are equal.
    let mut starts_ms = REST_FRAMES * FRAME_MS;
    for (_, action, gesture) in ACTIONS {
        for _ in 0..TAKES {
            let mut actor = actor();
            let ends_ms = actor.perform(gesture, starts_ms);
            let times = (starts_ms..=ends_ms).step_by(FRAME_MS as usize);
            let shots = times.map(|at_ms| actor.shot(at_ms)).collect();
            tracks.push(Track { action: Some(action), shots });
            starts_ms = ends_ms + FRAME_MS;
        }
    }
    tracks
}

/// Returns the person of the built-in portrait that the mesh points are for.
fn built_in_person() -> Puppet {
    const POINTS: &str = include_str!("../../tests/fixtures/faces/grace_hopper.mesh.json");
    let points: Vec<Point> = serde_json::from_str(POINTS).expect("the built-in mesh is JSON");
    let mut decoder = JpegDecoder::new(std::io::Cursor::new(GRACE_HOPPER));
    let pixels = decoder.decode().expect("the built-in portrait is a JPEG");
    let (width, height) = decoder.dimensions().expect("a decoded picture has a size");
    let picture = menshen_puppet::Picture::new(width, height, pixels);
    Puppet::person(&picture, &points)
}

fn read_frames(folder: &Path) -> Result<Vec<Bytes>, LoadError> {
    let paths = pictures::files(folder, &["jpg", "jpeg"])?;
    if paths.is_empty() {
        return Err(LoadError::NoPictures { path: folder.to_owned() });
    }
    let mut frames = Vec::new();
    for path in paths {
        let frame = pictures::read(&path)?;
        if !frame.starts_with(&START_OF_IMAGE) {
            return Err(LoadError::NoJpeg { path });
        }
        frames.push(frame);
    }
    Ok(frames)
}

/// The marker that a JPEG file starts with.
const START_OF_IMAGE: [u8; 2] = [0xFF, 0xD8];

/// Returns the file with a JPEG comment after its first marker. The server refuses a frame that
/// another session showed, by the digest of its file.
pub(super) fn with_comment(frame: &[u8], comment: &[u8]) -> Vec<u8> {
    const COMMENT: [u8; 2] = [0xFF, 0xFE];
    let length = u16::try_from(comment.len() + 2).expect("comments are short");
    let mut marked = Vec::with_capacity(frame.len() + comment.len() + 4);
    marked.extend(START_OF_IMAGE);
    marked.extend(COMMENT);
    marked.extend(length.to_be_bytes());
    marked.extend(comment);
    marked.extend(&frame[START_OF_IMAGE.len()..]);
    marked
}

/// Plays a film to one session.
#[derive(Debug)]
pub(super) struct Player<'a> {
    film: &'a Film,
    /// Number of the next frame at rest.
    rest: usize,
    /// The take that is played or waits, and the frames to show before its first one.
    take: Option<(&'a [Bytes], usize)>,
    /// Number of the next frame of the take.
    at: usize,
    prompts: Vec<Action>,
}

impl<'a> Player<'a> {
    pub(super) fn new(film: &'a Film) -> Self {
        Self { film, rest: 0, take: None, at: 0, prompts: Vec::new() }
    }

    /// Reacts to a prompt: after some frames the person performs the action. A film without takes
    /// of the action goes on at rest.
    pub(super) fn prompt(&mut self, action: Action, random: &mut SmallRng) {
        let number = self.prompts.iter().filter(|earlier| **earlier == action).count();
        self.prompts.push(action);
        let takes: Vec<&Vec<Bytes>> =
            self.film.takes.iter().filter(|(of, _)| *of == action).map(|(_, take)| take).collect();
        if let Some(take) = takes.get(number).or(takes.last()) {
            let [least, most] = REACTION_FRAMES;
            self.take = Some((take, random.random_range(least..=most)));
            self.at = 0;
        }
    }

    /// Returns the next frame; `None` once the film has ended.
    pub(super) fn next_frame(&mut self) -> Option<&'a Bytes> {
        if let Some((take, wait)) = &mut self.take {
            if *wait == 0 {
                if let Some(frame) = take.get(self.at) {
                    self.at += 1;
                    return Some(frame);
                }
                self.take = None;
            } else {
                *wait -= 1;
            }
        }
        self.rest += 1;
        self.film.rest.get(self.rest - 1)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn film() -> Film {
        let frames = |names: &[&'static str]| names.iter().map(|name| Bytes::from(*name)).collect();
        Film {
            portrait: Bytes::new(),
            rest: (0..40).map(|number| Bytes::from(format!("rest {number}"))).collect(),
            takes: vec![
                (Action::Blink, frames(&["blink 1a", "blink 1b"])),
                (Action::Blink, frames(&["blink 2a"])),
            ],
        }
    }

    #[test]
    fn a_player_reacts_to_a_prompt_with_a_take_and_goes_back_to_rest() {
        let film = film();
        let (mut player, mut random) = (Player::new(&film), SmallRng::seed_from_u64(1));
        assert_eq!(player.next_frame().unwrap(), "rest 0");
        player.prompt(Action::Blink, &mut random);
        let shown: Vec<_> = (0..12).map(|_| player.next_frame().unwrap()).collect();
        let starts = shown.iter().position(|frame| *frame == "blink 1a").unwrap();
        assert!((4..=7).contains(&starts), "{shown:?}");
        assert_eq!(shown[starts + 1], "blink 1b");
        assert_eq!(*shown[starts + 2], format!("rest {}", starts + 1));
        player.prompt(Action::Blink, &mut random);
        let shown: Vec<_> = (0..12).map(|_| player.next_frame().unwrap()).collect();
        assert!(shown.iter().any(|frame| *frame == "blink 2a"), "{shown:?}");
    }

    #[test]
    fn a_film_ends_after_its_last_frame_at_rest() {
        let film = film();
        let mut player = Player::new(&film);
        player.prompt(Action::Nod, &mut SmallRng::seed_from_u64(1));
        let shown = std::iter::from_fn(|| player.next_frame()).count();
        assert_eq!(shown, 40);
    }

    #[test]
    fn a_comment_makes_a_new_file_of_the_same_picture() {
        let marked = with_comment(GRACE_HOPPER, b"session 1");
        assert_eq!(marked.len(), GRACE_HOPPER.len() + 13);
        let decode = |file: &[u8]| JpegDecoder::new(std::io::Cursor::new(file)).decode().unwrap();
        assert!(decode(&marked) == decode(GRACE_HOPPER));
    }

    #[test]
    fn every_action_has_takes_long_enough_for_its_movement() {
        let tracks = tracks(&built_in_person());
        let rest: Vec<_> = tracks.iter().filter(|track| track.action.is_none()).collect();
        assert_eq!((rest.len(), rest[0].shots.len()), (1, 200));
        for (_, action, _) in ACTIONS {
            let takes: Vec<_> = tracks.iter().filter(|t| t.action == Some(action)).collect();
            assert_eq!(takes.len(), 2, "{action:?}");
            assert!(takes.iter().all(|take| (11..=30).contains(&take.shots.len())), "{action:?}");
        }
        let mut times: Vec<u64> =
            tracks.iter().flat_map(|track| &track.shots).map(|shot| shot.at_ms).collect();
        let count = times.len();
        times.sort_unstable();
        times.dedup();
        assert_eq!(times.len(), count, "no two frames are of one moment");
    }

    #[test]
    fn a_recording_without_jpeg_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let portrait = folder.path().join("portrait");
        std::fs::write(&portrait, "x").unwrap();
        let error = Film::read(folder.path(), &portrait).unwrap_err();
        assert!(matches!(error, LoadError::NoPictures { .. }), "{error}");
        std::fs::write(folder.path().join("a.jpg"), "text").unwrap();
        let error = Film::read(folder.path(), &portrait).unwrap_err();
        assert!(matches!(error, LoadError::NoJpeg { .. }), "{error}");
    }
}
