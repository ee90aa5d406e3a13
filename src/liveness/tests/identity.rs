//! Each action lies between two judged frames, whatever happened before.

use super::simulation::{SimulatedFrame, Simulation, limits};
use crate::face::ReasonCode;
use crate::liveness::Action;
use crate::liveness::synthetic::measures_of;

const ACTIONS: [Action; 3] = [Action::TurnRight, Action::Blink, Action::OpenMouth];

/// Turns the head on every third frame for the given time, so that no neutral phase begins.
fn fidget(frame: &mut SimulatedFrame, seconds: f64) {
    let at = (frame.time * 10.0).round() as u32;
    if frame.action_since.is_none() && frame.time < seconds && at.is_multiple_of(3) {
        frame.head.yaw = 25.0;
        let difference_hash = frame.measures.difference_hash;
        frame.measures = measures_of(&frame.head);
        frame.measures.difference_hash = difference_hash;
    }
}

#[test]
fn an_honest_customer_is_judged_before_and_after_each_action_and_at_the_end() {
    let result = Simulation::default().run(ACTIONS, &limits());
    assert!(result.is_passed() && result.judged >= 7, "{result:?}");
}

#[test]
fn the_person_who_acts_is_judged_however_often_another_face_rested_before() {
    let simulation = Simulation {
        tamper: |frame| {
            fidget(frame, 5.0);
            frame.person = usize::from(frame.action_since.is_some());
        },
        ..Simulation::default()
    };
    let result = simulation.run(ACTIONS, &limits());
    assert_eq!(result.first_reason(), Some(ReasonCode::IdentitySwitch), "{result:?}");
}

#[test]
fn a_person_who_leaves_before_the_first_prompt_does_not_fail_the_customer() {
    let simulation = Simulation {
        tamper: |frame| {
            fidget(frame, 3.0);
            frame.person = usize::from(frame.time < 3.0);
        },
        ..Simulation::default()
    };
    assert!(simulation.run(ACTIONS, &limits()).is_passed());
}

#[test]
fn finding_the_right_place_may_take_longer_than_acting() {
    let simulation = Simulation { tamper: |frame| fidget(frame, 20.0), ..Simulation::default() };
    let result = simulation.run(ACTIONS, &limits());
    assert!(result.is_passed(), "{result:?}");
}
