//! Sessions of honest customers.

use std::time::Duration;

use super::simulation::{SimulatedFrame, Simulation, limits};
use crate::face::ReasonCode;
use crate::face::decision::Decision;
use crate::liveness::action::tests::every_triple;
use crate::liveness::{Action, Assurance, Event};

const ACTIONS: [Action; 3] = [Action::TurnLeft, Action::Blink, Action::OpenMouth];

#[test]
fn every_triple_of_actions_passes_at_every_rate_and_reaction_time() {
    for (at, actions) in every_triple().into_iter().enumerate() {
        for frames_a_second in [8.0, 10.0, 15.0, 24.0, 30.0] {
            for reaction in [0.2, 0.5, 1.0] {
                let seed = at as u64 + 1;
                let simulation =
                    Simulation { frames_a_second, reaction, seed, ..Simulation::default() };
                let result = simulation.run(actions, &limits());
                let case = (actions, frames_a_second, reaction);
                assert!(result.is_passed(), "{case:?}: {:#?}", result.verdict);
                assert!((5..=12).contains(&result.judged), "{case:?}: {}", result.judged);
            }
        }
    }
}

#[test]
fn a_brisk_and_a_slow_customer_pass() {
    for movement_seconds in [0.9, 2.5] {
        for actions in every_triple() {
            let result =
                Simulation { movement_seconds, ..Simulation::default() }.run(actions, &limits());
            assert!(result.is_passed(), "{movement_seconds} {actions:?}: {:#?}", result.verdict);
        }
    }
}

#[test]
fn a_batch_passes_without_a_clock_of_the_server() {
    let at_once = |frame: &mut SimulatedFrame| frame.delay = 100.0 - frame.time;
    for frames_a_second in [10.0, 25.0] {
        let assurance = Assurance::Batch;
        let simulation =
            Simulation { assurance, frames_a_second, tamper: at_once, ..Simulation::default() };
        let result = simulation.run(ACTIONS, &limits());
        assert!(result.is_passed(), "{:#?}", result.verdict);
        assert_eq!(result.verdict.assurance, Assurance::Batch);
    }
}

#[test]
fn prompts_and_steps_take_turns() {
    let result = Simulation::default().run(ACTIONS, &limits());
    let steps: Vec<Event> =
        result.events.into_iter().filter(|event| !matches!(event, Event::Guidance(_))).collect();
    assert_eq!(steps.len(), 7);
    for (step, pair) in steps.chunks(2).enumerate() {
        match pair {
            [Event::Prompt(prompt), Event::StepDone(done)] => {
                assert_eq!((prompt.step, prompt.action, *done), (step, ACTIONS[step], step));
            }
            other => assert_eq!(other, [Event::Finished]),
        }
    }
}

#[test]
fn a_fast_stream_is_thinned_and_a_slow_one_is_not() {
    let thinned = |frames_a_second| {
        Simulation { frames_a_second, ..Simulation::default() }.run(ACTIONS, &limits()).thinned
    };
    assert!(thinned(30.0) > 100);
    assert_eq!(thinned(10.0), 0);
}

#[test]
fn a_customer_who_does_nothing_may_try_again() {
    let result = Simulation { reaction: 30.0, ..Simulation::default() }.run(ACTIONS, &limits());
    assert_eq!(result.verdict.decision, Decision::Retry);
    assert_eq!(result.first_reason(), Some(ReasonCode::StepTimeout));
}

#[test]
fn a_face_that_is_gone_for_a_moment_gets_the_prompt_again() {
    let gone = |frame: &mut SimulatedFrame| {
        if frame.done == 1 && (3.0..3.8).contains(&frame.time) {
            frame.measures.faces.clear();
            frame.measures.main = None;
        }
    };
    let simulation = Simulation { tamper: gone, reaction: 0.8, ..Simulation::default() };
    let result = simulation.run(ACTIONS, &limits());
    let prompts = result.events.iter().filter(|event| matches!(event, Event::Prompt(_))).count();
    assert!(result.is_passed(), "{:#?}", result.verdict);
    assert_eq!(prompts, 4);
}

#[test]
fn a_customer_in_the_dark_is_told_and_the_verdict_names_the_darkness() {
    let dark = |frame: &mut SimulatedFrame| {
        frame.measures.main.as_mut().unwrap().brightness = 0.1;
    };
    let mut limits = limits();
    limits.admission.session_time_max = Duration::from_secs(8);
    let result = Simulation { tamper: dark, ..Simulation::default() }.run(ACTIONS, &limits);
    let codes: Vec<ReasonCode> = result.verdict.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(result.verdict.decision, Decision::Retry);
    assert_eq!(codes, [ReasonCode::SessionExpired, ReasonCode::TooDark]);
}

#[test]
fn a_stream_that_stops_ends_by_the_clock() {
    let stops = |frame: &mut SimulatedFrame| frame.is_lost = frame.time > 1.5;
    let result = Simulation { tamper: stops, ..Simulation::default() }.run(ACTIONS, &limits());
    assert_eq!(result.verdict.decision, Decision::Retry);
    assert_eq!(result.first_reason(), Some(ReasonCode::StepTimeout));

    let never = |frame: &mut SimulatedFrame| frame.is_lost = true;
    let result = Simulation { tamper: never, ..Simulation::default() }.run(ACTIONS, &limits());
    assert_eq!(result.first_reason(), Some(ReasonCode::SessionExpired));
}

#[test]
fn the_iris_network_is_wanted_until_the_blinks_are_done() {
    let result = Simulation::default().run(ACTIONS, &limits());
    assert_eq!(result.eyes_wanted, Some(1));
}

#[test]
fn a_frame_that_is_judged_after_the_end_still_counts() {
    let late = Simulation { is_judged_late: true, ..Simulation::default() };
    assert!(late.run(ACTIONS, &limits()).is_passed());
    let other = |frame: &mut SimulatedFrame| frame.person = usize::from(frame.done > 1);
    let result = Simulation { tamper: other, ..late }.run(ACTIONS, &limits());
    assert_eq!(result.verdict.decision, Decision::Fail);
    assert_eq!(result.first_reason(), Some(ReasonCode::IdentitySwitch));
}

#[test]
fn a_spontaneous_blink_does_not_count() {
    // One blink at the prompt and one later, so the second answer is missing.
    let early = |frame: &mut SimulatedFrame| {
        if let Some((since, Action::Blink)) = frame.action_since {
            let is_closed = since < 0.15 || (1.0..1.3).contains(&since);
            let eyes = if is_closed { 0.07 } else { 0.3 };
            frame.measures.main.as_mut().unwrap().eyes = Some([eyes; 2]);
        }
    };
    let result = Simulation { tamper: early, ..Simulation::default() }.run(ACTIONS, &limits());
    assert_eq!(result.first_reason(), Some(ReasonCode::StepTimeout));
}
