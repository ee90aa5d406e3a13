//! Sessions of honest customers.

use std::time::Duration;

use super::show::{Frame, Show, limits};
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
                let show = Show { frames_a_second, reaction, seed, ..Show::default() };
                let played = show.play(actions, &limits());
                let told = (actions, frames_a_second, reaction);
                assert!(played.is_passed(), "{told:?}: {:#?}", played.verdict);
                assert!((5..=12).contains(&played.judged), "{told:?}: {}", played.judged);
            }
        }
    }
}

#[test]
fn a_brisk_and_a_slow_customer_pass() {
    for pace in [0.9, 2.5] {
        for actions in every_triple() {
            let played = Show { pace, ..Show::default() }.play(actions, &limits());
            assert!(played.is_passed(), "{pace} {actions:?}: {:#?}", played.verdict);
        }
    }
}

#[test]
fn a_batch_passes_without_a_clock_of_the_server() {
    let at_once = |frame: &mut Frame| frame.delay = 100.0 - frame.time;
    for frames_a_second in [10.0, 25.0] {
        let assurance = Assurance::Batch;
        let show = Show { assurance, frames_a_second, tamper: at_once, ..Show::default() };
        let played = show.play(ACTIONS, &limits());
        assert!(played.is_passed(), "{:#?}", played.verdict);
        assert_eq!(played.verdict.assurance, Assurance::Batch);
    }
}

#[test]
fn prompts_and_steps_take_turns() {
    let played = Show::default().play(ACTIONS, &limits());
    let steps: Vec<Event> =
        played.events.into_iter().filter(|event| !matches!(event, Event::Guidance(_))).collect();
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
        Show { frames_a_second, ..Show::default() }.play(ACTIONS, &limits()).thinned
    };
    assert!(thinned(30.0) > 100);
    assert_eq!(thinned(10.0), 0);
}

#[test]
fn a_customer_who_does_nothing_may_try_again() {
    let played = Show { reaction: 30.0, ..Show::default() }.play(ACTIONS, &limits());
    assert_eq!(played.verdict.decision, Decision::Retry);
    assert_eq!(played.first_reason(), Some(ReasonCode::StepTimeout));
}

#[test]
fn a_face_that_is_gone_for_a_moment_costs_a_second_prompt_and_no_more() {
    let gone = |frame: &mut Frame| {
        if frame.done == 1 && (3.0..3.8).contains(&frame.time) {
            frame.measures.faces.clear();
            frame.measures.main = None;
        }
    };
    let show = Show { tamper: gone, reaction: 0.8, ..Show::default() };
    let played = show.play(ACTIONS, &limits());
    let prompts = played.events.iter().filter(|event| matches!(event, Event::Prompt(_))).count();
    assert!(played.is_passed(), "{:#?}", played.verdict);
    assert_eq!(prompts, 4);
}

#[test]
fn a_customer_in_the_dark_is_told_so_and_the_answer_says_it() {
    let dark = |frame: &mut Frame| {
        frame.measures.main.as_mut().unwrap().brightness = 0.1;
    };
    let mut limits = limits();
    limits.admission.session_time_max = Duration::from_secs(8);
    let played = Show { tamper: dark, ..Show::default() }.play(ACTIONS, &limits);
    let codes: Vec<ReasonCode> = played.verdict.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(played.verdict.decision, Decision::Retry);
    assert_eq!(codes, [ReasonCode::SessionExpired, ReasonCode::TooDark]);
}

#[test]
fn a_stream_that_stops_ends_by_the_clock() {
    let stops = |frame: &mut Frame| frame.is_lost = frame.time > 1.5;
    let played = Show { tamper: stops, ..Show::default() }.play(ACTIONS, &limits());
    assert_eq!(played.verdict.decision, Decision::Retry);
    assert_eq!(played.first_reason(), Some(ReasonCode::StepTimeout));

    let never = |frame: &mut Frame| frame.is_lost = true;
    let played = Show { tamper: never, ..Show::default() }.play(ACTIONS, &limits());
    assert_eq!(played.first_reason(), Some(ReasonCode::SessionExpired));
}

#[test]
fn the_iris_network_is_wanted_until_the_blinks_are_done() {
    let played = Show::default().play(ACTIONS, &limits());
    assert_eq!(played.eyes_wanted, Some(1));
}

#[test]
fn what_is_judged_after_the_end_still_counts() {
    let late = Show { is_judged_late: true, ..Show::default() };
    assert!(late.play(ACTIONS, &limits()).is_passed());
    let other = |frame: &mut Frame| frame.person = usize::from(frame.done > 1);
    let played = Show { tamper: other, ..late }.play(ACTIONS, &limits());
    assert_eq!(played.verdict.decision, Decision::Fail);
    assert_eq!(played.first_reason(), Some(ReasonCode::IdentitySwitch));
}

#[test]
fn a_spontaneous_blink_is_nobodys_answer() {
    // One blink with the prompt, one later: a second one is missing.
    let early = |frame: &mut Frame| {
        if let Some((since, Action::Blink)) = frame.doing {
            let is_closed = since < 0.15 || (1.0..1.3).contains(&since);
            let eyes = if is_closed { 0.07 } else { 0.3 };
            frame.measures.main.as_mut().unwrap().eyes = Some([eyes; 2]);
        }
    };
    let played = Show { tamper: early, ..Show::default() }.play(ACTIONS, &limits());
    assert_eq!(played.first_reason(), Some(ReasonCode::StepTimeout));
}
