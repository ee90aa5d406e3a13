use std::io::Cursor;
use std::path::Path;

use zune_jpeg::JpegDecoder;

use super::attacks::{
    duplicated, looped, mirrored, moved_in_plane, second_face, splice, still, turned_print,
};
use super::portrait::{CHIN, EYE_DISTANCE, EYE_MIDPOINT, FRAME, MARGIN, NOSE_TIP};
use super::{
    Actor, FilmedFrame, Gesture, Performance, Picture, Point, Pose, Puppet, Shot, Transform, film,
    shoot,
};

/// A portrait that looks into the camera with closed lips. It shows best what must not change.
const CALM: &str = "grace_hopper.jpg";
/// A portrait that smiles with visible teeth.
const SMILING: &str = "person_b_1.jpg";
/// Most bytes of a session's frame.
const FRAME_BYTES_MAX: usize = 256 << 10;

const GESTURES: [Gesture; 5] =
    [Gesture::TurnLeft, Gesture::TurnRight, Gesture::Blink, Gesture::Nod, Gesture::OpenMouth];

fn fixture(name: &str) -> Vec<u8> {
    let faces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/faces");
    let path = faces.join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn decode_jpeg(file: &[u8]) -> Picture {
    let mut decoder = JpegDecoder::new(Cursor::new(file));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    Picture::new(width, height, pixels)
}

fn decode_png(file: &[u8]) -> Picture {
    let mut reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    Picture::new(info.width as usize, info.height as usize, pixels)
}

/// Returns a photograph of the fixtures, decoded, with its face mesh.
fn portrait(name: &str) -> (Picture, Vec<Point>) {
    let (stem, format) = name.rsplit_once('.').unwrap();
    let decode = if format == "png" { decode_png } else { decode_jpeg };
    let points = serde_json::from_slice(&fixture(&format!("{stem}.mesh.json"))).unwrap();
    (decode(&fixture(name)), points)
}

fn person(name: &str) -> Puppet {
    let (picture, points) = portrait(name);
    Puppet::person(&picture, &points)
}

fn yaw(degrees: f32) -> Pose {
    Pose { transform: Transform { yaw: degrees, ..Pose::REST.transform }, ..Pose::REST }
}

/// Returns the mean difference of all bytes.
fn difference(a: &Picture, b: &Picture) -> f32 {
    let sum: u64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f32 / a.pixels.len() as f32
}

/// Returns the part of the canvas that a frame shows when nothing moves.
fn window(canvas: &Picture) -> Picture {
    let mut frame = Picture::filled(FRAME[0], FRAME[1], [0; 3]);
    for y in 0..FRAME[1] {
        for x in 0..FRAME[0] {
            frame.put(x, y, canvas.get(x + MARGIN, y + MARGIN).map(f32::from));
        }
    }
    frame
}

fn luma(picture: &Picture, at: [f32; 2]) -> f32 {
    picture.sample(at[0], at[1]).iter().sum::<f32>() / 3.0
}

/// Returns the position of a mesh point in a frame where nothing moves.
fn framed(puppet: &Puppet, point: usize) -> [f32; 2] {
    let [x, y, _] = puppet.portrait.points[point];
    [x - MARGIN as f32, y - MARGIN as f32]
}

fn perform(puppet: &Puppet, seed: u64, gestures: &[Gesture]) -> Performance {
    Performance::scripted(Actor::new(seed, puppet.turn_yaws()), gestures, 10)
}

/// Returns six shots around the peak of a turn to the left.
fn turning(puppet: &Puppet) -> Vec<Shot> {
    let performance = perform(puppet, 1, &[Gesture::TurnLeft]);
    performance.shots.into_iter().filter(|shot| (2300..2900).contains(&shot.at_ms)).collect()
}

#[test]
fn at_rest_a_puppet_shows_its_portrait() {
    let puppet = person(CALM);
    let shown = puppet.draw(&Pose::REST);
    assert!(difference(&shown, &window(&puppet.portrait.canvas)) < 0.5);
}

#[test]
fn a_portrait_is_levelled_and_scaled_by_its_eyes() {
    let (picture, points) = portrait("person_a_2.jpg");
    let puppet = Puppet::person(&picture, &points);
    let [right, left] = puppet.portrait.eyes();
    assert!((left[0] - right[0] - EYE_DISTANCE).abs() < 0.01);
    for (eye, side) in [(right, -0.5), (left, 0.5)] {
        assert!((eye[0] - EYE_MIDPOINT[0] - side * EYE_DISTANCE).abs() < 0.01);
        assert!((eye[1] - EYE_MIDPOINT[1]).abs() < 0.01);
    }
    // The forehead is plain skin, so its colour survives the change of scale.
    let [x, y, _] = points[151];
    let [u, v, _] = puppet.portrait.points[151];
    assert!((luma(&picture, [x, y]) - luma(&puppet.portrait.canvas, [u, v])).abs() < 8.0);
}

#[test]
fn a_positive_yaw_turns_the_nose_to_image_right() {
    let puppet = person(CALM);
    let nose = |yaw| puppet.nose_ratio(puppet.turn_yaws().straight + yaw);
    assert!(nose(0.0).abs() < 0.01);
    assert!(nose(20.0) > 0.5 && nose(-20.0) < -0.5, "{} {}", nose(20.0), nose(-20.0));
    // The pixels change with the yaw.
    let moved = difference(&puppet.draw(&yaw(20.0)), &puppet.draw(&Pose::REST));
    assert!(moved > 4.0, "{moved}");
}

#[test]
fn turns_show_every_person_equally_far_to_both_sides() {
    for name in ["astronaut.png", CALM, "impostor_1.jpg", "person_a_2.jpg", SMILING] {
        let puppet = person(name);
        let turns = puppet.turn_yaws();
        assert!(turns.straight.abs() < 15.0, "{name}: {turns:?}");
        let ratios = [turns.left, turns.straight, turns.right].map(|yaw| puppet.nose_ratio(yaw));
        for (ratio, wanted) in ratios.into_iter().zip([1.1, 0.0, -1.1]) {
            assert!((ratio - wanted).abs() < 0.02, "{name}: {ratio} for {wanted}");
        }
    }
}

#[test]
fn a_nod_brings_the_nose_down_towards_the_chin() {
    let puppet = person(CALM);
    let height = |point: usize, pitch: f32| {
        let [x, y, _] = puppet.portrait.points[point];
        let transform = Transform { pitch, ..Pose::REST.transform };
        super::raster::locate(&puppet.surface, [x, y], &transform)[1]
    };
    let share = |pitch| {
        let brow = height(9, pitch);
        (height(NOSE_TIP, pitch) - brow) / (height(CHIN, pitch) - brow)
    };
    assert!(share(14.0) - share(0.0) > 0.05, "{} {}", share(0.0), share(14.0));
}

#[test]
fn a_turned_print_hardly_moves_its_nose_against_its_eyes() {
    let (picture, points) = portrait(SMILING);
    let flat = Puppet::flat_print(&picture, &points);
    let bent = Puppet::bent_print(&picture, &points, 5.0);
    let moved = |puppet: &Puppet| (puppet.nose_ratio(30.0) - puppet.nose_ratio(0.0)).abs();
    let person = Puppet::person(&picture, &points);
    assert!(moved(&flat) < 0.2 && moved(&bent) < 0.45 && moved(&person) > 0.8);
}

#[test]
fn a_closed_eye_changes_that_eye_alone() {
    let puppet = person("astronaut.png");
    let open = puppet.draw(&Pose::REST);
    let shut = puppet.draw(&Pose { eyes_closed: [1.0, 0.0], ..Pose::REST });
    let centre = |corners: [usize; 2]| {
        let [a, b] = corners.map(|corner| framed(&puppet, corner));
        [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0]
    };
    let [right, left] = [[33, 133], [362, 263]].map(centre);
    // The iris is dark; the lid over it is not.
    assert!(luma(&shut, right) > luma(&open, right) + 40.0);
    assert!((luma(&shut, left) - luma(&open, left)).abs() < 0.01);
    let nose = framed(&puppet, NOSE_TIP);
    assert!((luma(&shut, nose) - luma(&open, nose)).abs() < 0.01);
}

#[test]
fn an_open_mouth_is_dark_and_takes_the_chin_down() {
    let puppet = person(CALM);
    let open = puppet.draw(&Pose { mouth_open: 1.0, ..Pose::REST });
    let [x, y] = framed(&puppet, 14);
    assert!(luma(&open, [x, y + 15.0]) < 40.0);
    let [x, y] = framed(&puppet, CHIN);
    let colour = |picture: &Picture| luma(picture, [x, y + 12.0]);
    assert!((colour(&open) - colour(&puppet.draw(&Pose::REST))).abs() > 10.0);
}

#[test]
fn a_smile_is_closed_at_rest() {
    let puppet = person(SMILING);
    let [upper, lower] = [13, 14].map(|lip| framed(&puppet, lip));
    let teeth = [(upper[0] + lower[0]) / 2.0, (upper[1] + lower[1]) / 2.0];
    let shown = luma(&window(&puppet.portrait.canvas), teeth);
    assert!(luma(&puppet.draw(&Pose::REST), teeth) < shown - 30.0);
}

#[test]
fn frames_are_small_baseline_jpegs_with_the_same_tables() {
    let puppet = person(CALM);
    let frames = film(&puppet, &turning(&puppet), 1);
    let tables = |frame: &FilmedFrame| {
        // Quantisation tables: marker DB, then two tables of 8 × 8 one-byte values.
        let at = |bytes: [u8; 2]| frame.jpeg.windows(2).position(|two| two == bytes);
        assert_eq!(at([0xFF, 0xC2]), None, "a frame is progressive");
        assert!(at([0xFF, 0xC0]).is_some(), "a frame is not baseline");
        let start = at([0xFF, 0xDB]).unwrap();
        frame.jpeg[start..start + 69].to_vec()
    };
    for frame in &frames {
        assert!(frame.jpeg.len() < FRAME_BYTES_MAX);
        assert_eq!(tables(frame), tables(&frames[0]));
        let picture = decode_jpeg(&frame.jpeg);
        assert_eq!([picture.width, picture.height], FRAME);
    }
}

#[test]
fn a_seed_fixes_a_performance_to_the_byte() {
    let puppet = person(CALM);
    let shots = turning(&puppet);
    assert_eq!(film(&puppet, &shots, 1), film(&puppet, &shots, 1));
    assert_ne!(film(&puppet, &shots, 1), film(&puppet, &shots, 2));
}

#[test]
fn a_person_reacts_400_to_700_ms_after_a_prompt() {
    let turns = person(CALM).turn_yaws();
    for seed in 0..50 {
        let mut actor = Actor::new(seed, turns);
        actor.prompt(Gesture::OpenMouth, 1000);
        assert_eq!(actor.pose(1400).mouth_open, 0.0, "seed {seed}");
        assert!(actor.pose(1710).mouth_open > 0.0, "seed {seed}");
    }
}

#[test]
fn a_blink_closes_both_eyes_twice_for_300_ms() {
    let mut actor = Actor::new(7, person(CALM).turn_yaws());
    let end_ms = actor.prompt(Gesture::Blink, 0);
    let shut = |at_ms: &u64| actor.pose(*at_ms).eyes_closed == [1.0; 2];
    let times: Vec<u64> = (0..=end_ms).filter(shut).collect();
    let pauses = times.windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
    assert_eq!(pauses, 1);
    assert!((600..=604).contains(&times.len()), "{} ms", times.len());
}

#[test]
fn a_scripted_person_is_at_rest_when_prompted() {
    let turns = person(CALM).turn_yaws();
    let performance = Performance::scripted(Actor::new(3, turns), &GESTURES, 10);
    assert_eq!(performance.prompts.len(), GESTURES.len());
    for (gesture, prompt_ms) in performance.prompts {
        let shot = performance.shots.iter().find(|shot| shot.at_ms >= prompt_ms).unwrap();
        let pose = shot.pose;
        assert!((pose.transform.yaw - turns.straight).abs() < 2.0, "before {gesture:?}");
        assert!(pose.transform.pitch.abs() < 2.0, "before {gesture:?}");
        assert_eq!((pose.eyes_closed, pose.mouth_open), ([0.0; 2], 0.0), "before {gesture:?}");
    }
}

#[test]
fn a_photo_has_neither_lids_nor_lips_and_paper_only_turns() {
    let performance = perform(&person(CALM), 3, &GESTURES);
    for fake in [still(&performance.shots), moved_in_plane(&performance.shots)] {
        assert!(fake.iter().all(|shot| shot.pose.transform.yaw == 0.0));
        assert!(fake.iter().all(|shot| shot.pose.eyes_closed == [0.0; 2]));
        assert!(fake.iter().all(|shot| shot.pose.mouth_open == 0.0));
    }
    let paper = turned_print(&performance.shots);
    assert!(paper.iter().any(|shot| shot.pose.transform.yaw > 20.0));
    assert!(paper.iter().all(|shot| shot.pose.eyes_closed == [0.0; 2]));
}

#[test]
fn a_splice_shows_one_person_then_the_other() {
    let frame = |at_ms, byte| FilmedFrame { at_ms, jpeg: vec![byte] };
    let [first, second] = [1, 2].map(|who| [0, 100, 200].map(|at_ms| frame(at_ms, who)));
    let spliced = splice(&first, &second, 100);
    assert_eq!(spliced, [frame(0, 1), frame(100, 2), frame(200, 2)]);
}

#[test]
fn duplicates_repeat_bytes_while_time_goes_on() {
    let frame = |at_ms, byte| FilmedFrame { at_ms, jpeg: vec![byte] };
    let frames: Vec<FilmedFrame> = (0..5).map(|k| frame(u64::from(k) * 100, k)).collect();
    let bytes: Vec<u8> = duplicated(&frames, 1, 2).iter().map(|frame| frame.jpeg[0]).collect();
    assert_eq!(bytes, [0, 1, 1, 1, 4]);
    assert_eq!(duplicated(&frames, 1, 2)[3].at_ms, 300);
}

#[test]
fn a_loop_repeats_what_is_seen_but_no_bytes() {
    let puppet = person(CALM);
    let frames = looped(&puppet, &turning(&puppet), 1..3, 1);
    let times: Vec<u64> = frames.iter().map(|frame| frame.at_ms).collect();
    assert_eq!(times, [2300, 2400, 2500, 2600, 2700, 2800]);
    let pictures = frames.iter().map(|frame| decode_jpeg(&frame.jpeg));
    // The number in the corner is in the uppermost blocks of the compressed picture.
    let below: Vec<Vec<u8>> =
        pictures.map(|picture| picture.pixels[FRAME[0] * 3 * 32..].to_vec()).collect();
    assert_eq!(below[1], below[3]);
    assert_eq!(below[2], below[4]);
    assert_ne!(below[1], below[2]);
    assert_ne!(frames[1].jpeg, frames[3].jpeg);
}

#[test]
fn a_second_face_stands_beside_the_first() {
    let (main, other) = (person(CALM), person(SMILING));
    let shots = &turning(&main)[..1];
    let two = second_face(&main, &other, shots, 1);
    let twice = second_face(&main, &main, shots, 1);
    let [two, twice] = [two, twice].map(|frames| decode_jpeg(&frames[0].jpeg));
    assert!((luma(&two, [100.0, 300.0]) - luma(&twice, [100.0, 300.0])).abs() < 1.0);
    assert!(difference(&two, &twice) > 2.0);
}

#[test]
fn a_mirrored_session_exchanges_left_and_right() {
    let puppet = person(CALM);
    let shots = &turning(&puppet)[..1];
    let frame = &mirrored(&puppet, shots, 1)[0];
    let shown = decode_jpeg(&frame.jpeg);
    let plain = shoot(&puppet, &shots[0], 1);
    assert!(difference(&shown.mirrored(), &plain) < 5.0);
    assert!(difference(&shown, &plain) > 20.0);
}
