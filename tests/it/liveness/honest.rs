//! Honest customers pass, whatever actions they are asked for.

use futures_util::future::join_all;
use menshen::proto::v1;
use menshen::proto::v1::run_response::Event;
use menshen_puppet::{Actor, Gesture, Performance, film};

use super::{
    PORTRAITS, REAL_TIME_LOCK, client, create_session, create_with_actions, describe_result,
    evaluate_request, gesture, puppet, run_stream, session_request,
};
use crate::support::is_in_part;

/// Returns every sequence that a session may ask for: three actions with a turn and a blink, and no
/// action twice in a row.
fn sequences() -> Vec<[v1::Action; 3]> {
    use v1::Action::{Blink, Nod, OpenMouth, TurnLeft, TurnRight};
    const ALL: [v1::Action; 5] = [TurnLeft, TurnRight, Blink, Nod, OpenMouth];
    let pairs = ALL.into_iter().flat_map(|first| ALL.map(|second| [first, second]));
    let triples = pairs.flat_map(|[first, second]| ALL.map(|third| [first, second, third]));
    let is_asked_for = |[first, second, third]: &[v1::Action; 3]| {
        let all = [first, second, third];
        let has_turn = all.contains(&&TurnLeft) || all.contains(&&TurnRight);
        has_turn && all.contains(&&Blink) && first != second && second != third
    };
    triples.filter(is_asked_for).collect()
}

/// A sequence, and the portrait that performs it.
#[derive(Clone, Copy)]
struct Case {
    index: usize,
    sequence: [v1::Action; 3],
    portrait: &'static str,
}

/// Returns the cases of this run, as selected by [`is_in_part`]. Each sequence has one portrait,
/// and each portrait at least four sequences. With `PUPPET_SESSIONS=all` each sequence has each
/// portrait.
fn cases() -> Vec<Case> {
    let all = std::env::var("PUPPET_SESSIONS").is_ok_and(|sessions| sessions == "all");
    let portraits = if all { PORTRAITS.len() } else { 1 };
    let pairs = sequences().into_iter().enumerate().flat_map(|(at, sequence)| {
        (0..portraits).map(move |other| (sequence, PORTRAITS[(at + other) % PORTRAITS.len()]))
    });
    let cases =
        pairs.enumerate().map(|(index, (sequence, portrait))| Case { index, sequence, portrait });
    cases.filter(|case| is_in_part(case.index)).collect()
}

/// Judges the recording of an honest puppet that does what the server asks for.
async fn judge(Case { index, sequence, portrait }: Case) -> v1::LivenessResult {
    let mut client = client().await;
    let session =
        create_with_actions(&mut client, &format!("honest-{index}"), portrait, sequence).await;
    let gestures: Vec<Gesture> = sequence.map(gesture).into();
    let seed = index as u64;
    let filming = move || {
        let puppet = puppet(portrait);
        let actor = Actor::new(seed, puppet.turn_yaws());
        film(&puppet, &Performance::scripted(actor, &gestures, 10).shots, seed)
    };
    let frames = tokio::task::spawn_blocking(filming).await.unwrap();
    client.evaluate(evaluate_request(&session, portrait, &frames)).await.unwrap().into_inner()
}

/// All puppets pass at the time of writing. At least nine of ten must.
#[tokio::test(flavor = "multi_thread")]
async fn honest_puppets_pass_whatever_sequence_is_asked_for() {
    let _shared = REAL_TIME_LOCK.read().await;
    const AT_ONCE: usize = 4;
    assert_eq!(sequences().len(), 34);
    let cases = cases();
    let mut failed = Vec::new();
    for chunk in cases.chunks(AT_ONCE) {
        let judged = chunk.iter().map(|case| judge(*case));
        for (case, result) in chunk.iter().zip(join_all(judged).await) {
            assert_eq!(result.assurance(), v1::Assurance::Batch);
            if result.decision() != v1::Decision::Pass {
                failed.push(format!("{} {}", case.portrait, describe_result(&result)));
            }
        }
    }
    let count = cases.len();
    #[expect(clippy::print_stdout, reason = "the rate is worth seeing, not only its limit")]
    {
        println!("{} of {count} honest puppets passed", count - failed.len());
        println!("{}", failed.join("\n"));
    }
    assert!(failed.len() * 10 <= count);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_puppet_is_prompted_step_by_step_and_passes() {
    let _alone = REAL_TIME_LOCK.write().await;
    let (mut client, portrait) = (client().await, "person_b_1.jpg");
    let session =
        create_session(&mut client, session_request("stream", portrait, v1::Assurance::Stream))
            .await;
    assert!(session.actions.is_empty(), "actions are told one by one");
    let react = |actor: &mut Actor, gesture, now_ms| {
        actor.prompt(gesture, now_ms);
    };
    let (events, result) =
        run_stream(&mut client, &session, portrait, (puppet(portrait), 2), react).await.unwrap();
    assert_eq!(result.decision(), v1::Decision::Pass, "{}", describe_result(&result));
    assert_eq!(result.assurance(), v1::Assurance::Stream);
    assert!(
        result.matched_frame.is_some() && result.frames_judged >= 5,
        "{}",
        describe_result(&result)
    );
    let done = events.iter().filter(|event| matches!(event, Event::StepDone(_))).count();
    assert_eq!((done, result.steps_done), (3, 3));
    let prompts: Vec<v1::Action> = events
        .iter()
        .filter_map(|event| match event {
            Event::Prompt(prompt) => Some(prompt.action()),
            _ => None,
        })
        .collect();
    assert_eq!(prompts, result.actions().collect::<Vec<_>>());
}
