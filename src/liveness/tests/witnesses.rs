//! Each action lies between two looks at who did it, whatever came before.

use super::show::{Frame, Show, limits};
use crate::face::ReasonCode;
use crate::liveness::Action;
use crate::liveness::synthetic::measures_of;

const ACTIONS: [Action; 3] = [Action::TurnRight, Action::Blink, Action::OpenMouth];

/// Looks away on every third frame, so that there is no rest to begin with, for so many seconds.
fn fidget(frame: &mut Frame, seconds: f64) {
    let at = (frame.time * 10.0).round() as u32;
    if frame.doing.is_none() && frame.time < seconds && at.is_multiple_of(3) {
        frame.head.yaw = 25.0;
        let fingerprint = frame.measures.fingerprint;
        frame.measures = measures_of(&frame.head);
        frame.measures.fingerprint = fingerprint;
    }
}

#[test]
fn an_honest_customer_is_looked_at_before_and_behind_each_action_and_at_the_end() {
    let played = Show::default().play(ACTIONS, &limits());
    assert!(played.is_passed() && played.judged >= 7, "{played:?}");
}

#[test]
fn whoever_acts_is_looked_at_however_often_another_face_came_to_rest_before() {
    let show = Show {
        tamper: |frame| {
            fidget(frame, 5.0);
            frame.person = usize::from(frame.doing.is_some());
        },
        ..Show::default()
    };
    let played = show.play(ACTIONS, &limits());
    assert_eq!(played.first_reason(), Some(ReasonCode::IdentitySwitch), "{played:?}");
}

#[test]
fn whoever_makes_way_before_the_first_prompt_is_not_held_against_the_customer() {
    let show = Show {
        tamper: |frame| {
            fidget(frame, 3.0);
            frame.person = usize::from(frame.time < 3.0);
        },
        ..Show::default()
    };
    assert!(show.play(ACTIONS, &limits()).is_passed());
}

#[test]
fn finding_the_right_place_may_take_longer_than_acting() {
    let show = Show { tamper: |frame| fidget(frame, 20.0), ..Show::default() };
    let played = show.play(ACTIONS, &limits());
    assert!(played.is_passed(), "{played:?}");
}
