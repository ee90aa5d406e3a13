//! Honest customers pass, whatever they are asked for.

use futures_util::future::join_all;
use menshen::proto::v1;
use menshen::proto::v1::run_response::Event;

use super::{PACE, PORTRAITS, action, client, create, order, puppet, recording, run, story};
use crate::puppet::{Action, Actor, Session, film};

/// Recordings that are judged; set it higher to meet each of the 34 sequences with each portrait.
fn sessions() -> usize {
    std::env::var("PUPPET_SESSIONS").map_or(2 * PORTRAITS.len(), |count| count.parse().unwrap())
}

/// A recording of an honest puppet that does what the server drew.
async fn judge(index: usize) -> (&'static str, v1::LivenessResult) {
    let (mut client, portrait) = (client().await, PORTRAITS[index % PORTRAITS.len()]);
    let order = order(&format!("honest-{index}"), portrait, v1::Assurance::Batch);
    let session = create(&mut client, order).await;
    let actions: Vec<Action> = session.actions().map(action).collect();
    let seed = index as u64;
    let filming = move || {
        let puppet = puppet(portrait);
        let actor = Actor::new(seed, puppet.turns());
        film(&puppet, &Session::scripted(actor, &actions, 10).shots, seed)
    };
    let frames = tokio::task::spawn_blocking(filming).await.unwrap();
    let result = client.evaluate(recording(&session, portrait, &frames)).await.unwrap();
    (portrait, result.into_inner())
}

/// All do at the time of writing; at least nine of ten must.
#[tokio::test(flavor = "multi_thread")]
async fn honest_puppets_pass_whatever_sequence_is_drawn() {
    let _shared = PACE.read().await;
    const AT_ONCE: usize = 4;
    let count = sessions();
    let mut failed = Vec::new();
    for from in (0..count).step_by(AT_ONCE) {
        for (portrait, result) in join_all((from..count.min(from + AT_ONCE)).map(judge)).await {
            assert_eq!(result.assurance(), v1::Assurance::Batch);
            if result.decision() != v1::Decision::Pass {
                failed.push(format!("{portrait} {}", story(&result)));
            }
        }
    }
    #[expect(clippy::print_stdout, reason = "the rate is worth seeing, not only its limit")]
    {
        println!("{} of {count} honest puppets passed", count - failed.len());
    }
    assert!(failed.len() * 10 <= count, "{}", failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_puppet_is_prompted_step_by_step_and_passes() {
    let _alone = PACE.write().await;
    let (mut client, portrait) = (client().await, "person_b_1.jpg");
    let session = create(&mut client, order("stream", portrait, v1::Assurance::Stream)).await;
    assert!(session.actions.is_empty(), "actions are told one by one");
    let react = |actor: &mut Actor, action, now_ms| {
        actor.prompt(action, now_ms);
    };
    let (events, result) =
        run(&mut client, &session, portrait, puppet(portrait), react).await.unwrap();
    assert_eq!(result.decision(), v1::Decision::Pass, "{}", story(&result));
    assert_eq!(result.assurance(), v1::Assurance::Stream);
    assert!(result.matched_frame.is_some() && result.frames_judged >= 5, "{}", story(&result));
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
