//! A liveness session: a film before a camera, joined by the prompts of the server.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::SeedableRng;
use rand::rngs::SmallRng;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::film::{FRAMES_PER_SECOND, Film, Player, with_comment};
use super::pacer::FrameClock;
use super::requests::{Stores, context};
use super::worker::Connections;
use crate::proto::v1;
use crate::proto::v1::liveness_service_client::LivenessServiceClient;
use crate::proto::v1::run_response::Event;

/// Most frames that wait for the connection. A camera drops further ones.
const FRAMES_QUEUED_MAX: usize = 8;

/// Time from the start of a session to its first frame. The pacer looks for new timers less often
/// than a session could start.
const CAMERA_AFTER: Duration = Duration::from_millis(50);

/// What the sessions of a run have in common.
#[derive(Debug)]
pub(super) struct SessionOptions {
    film: Arc<Film>,
    portrait_sha256: Vec<u8>,
    clock: FrameClock,
    stores: Stores,
}

impl SessionOptions {
    pub(super) fn new(film: Arc<Film>, clock: FrameClock, stores: Stores) -> Self {
        let portrait_sha256 = Sha256::digest(&film.portrait).to_vec();
        Self { film, portrait_sha256, clock, stores }
    }
}

/// Returns the memory of a session: the portrait and the frames that wait to be sent.
pub(super) fn session_bytes(film: &Film) -> usize {
    film.portrait.len() + FRAMES_QUEUED_MAX * film.frame_bytes()
}

/// A session that has its result.
#[derive(Debug)]
pub(super) struct SessionEnd {
    pub(super) decision: v1::Decision,
    /// Capture time of the last frame that the server received before it decided.
    pub(super) decided_by: Instant,
}

/// The capture device of all sessions.
const DEVICE: &str = "menshen-load";

impl Connections {
    /// Runs one session from `CreateSession` to its result.
    ///
    /// # Errors
    /// The status that ended the session.
    pub(super) async fn run_session(
        &self,
        options: &SessionOptions,
        channel: Channel,
        store: u32,
        is_recorded: bool,
    ) -> Result<SessionEnd, Status> {
        let store = options.stores.id(store);
        let mut client = LivenessServiceClient::new(channel);
        let transaction = uuid::Uuid::new_v4();
        let create = create_request(options, &store, &transaction.to_string());
        let mut create = self.request(create);
        create.set_timeout(self.options.timeout);
        let created = client.create_session(create).await?.into_inner();
        let (frames, outgoing) = mpsc::channel(FRAMES_QUEUED_MAX);
        let start = start_message(&options.film, &store, created.token);
        frames.try_send(start).map_err(|error| Status::internal(error.to_string()))?;
        let random = SmallRng::from_seed([transaction.as_bytes()[0]; 32]);
        let events = client.run(self.request(ReceiverStream::new(outgoing))).await?.into_inner();
        // Only now is the stream open, so that a slow server does not make the camera late.
        let camera = Camera {
            player: Player::new(&options.film),
            random,
            session: *transaction.as_bytes(),
            started: Instant::now() + CAMERA_AFTER,
            number: 0,
            captured: Vec::new(),
            frames: Some(frames),
        };
        self.film_until_result(options, camera, events, is_recorded).await
    }

    /// Sends frames and reads events until the server sends the result.
    async fn film_until_result(
        &self,
        options: &SessionOptions,
        mut camera: Camera<'_>,
        mut events: Streaming<v1::RunResponse>,
        is_recorded: bool,
    ) -> Result<SessionEnd, Status> {
        let mut left_out = 0;
        let ended = loop {
            let next_frame = camera.next_time();
            tokio::select! {
                event = events.message() => match event {
                    Ok(Some(v1::RunResponse { event: Some(event) })) => match event {
                        Event::Result(result) => break camera.end(&result),
                        Event::Prompt(prompt) => camera.prompt(prompt.action()),
                        Event::Thinned(thinned) => left_out = thinned.frames,
                        Event::Guidance(_) | Event::StepDone(_) => {}
                    },
                    Ok(Some(_)) => {}
                    Ok(None) => break Err(Status::unknown("the stream ended without a result")),
                    Err(status) => break Err(status),
                },
                () = options.clock.sleep_until(next_frame), if camera.is_filming() => {
                    let frame = camera.film(next_frame);
                    if is_recorded {
                        self.recorded.lock().add_frame(frame);
                    }
                }
            }
        };
        if is_recorded {
            self.recorded.lock().frames.left_out += u64::from(left_out);
        }
        ended
    }
}

/// How the connection took a frame.
#[derive(Debug, Clone, Copy)]
pub(super) enum SentFrame {
    /// This long after it was due.
    Sent { lag: Duration },
    /// Not at all, since it still held earlier frames.
    Dropped,
    /// There was no frame: the film has ended, and the stream with it.
    FilmEnded,
}

/// Films one person for one session.
struct Camera<'a> {
    player: Player<'a>,
    random: SmallRng,
    session: [u8; 16],
    started: Instant,
    /// Number of the next frame.
    number: u32,
    /// Capture time of each frame that the connection took.
    captured: Vec<Instant>,
    /// `None` once the film has ended.
    frames: Option<mpsc::Sender<v1::RunRequest>>,
}

impl Camera<'_> {
    fn is_filming(&self) -> bool {
        self.frames.is_some()
    }

    /// Returns the time of the next frame.
    fn next_time(&self) -> Instant {
        self.started + Duration::from_secs(1) * self.number / FRAMES_PER_SECOND
    }

    fn prompt(&mut self, action: v1::Action) {
        if action != v1::Action::Unspecified {
            self.player.prompt(action, &mut self.random);
        }
    }

    /// Sends the frame that is due at `at`. After its last frame the camera ends the stream.
    fn film(&mut self, at: Instant) -> SentFrame {
        let file = self.player.next_frame();
        let (Some(file), Some(frames)) = (file, &self.frames) else {
            self.frames = None;
            return SentFrame::FilmEnded;
        };
        let image = v1::Image { data: with_comment(file, &self.session) };
        let frame = v1::Frame {
            sequence: self.number,
            capture_unix_ms: now_unix_ms(),
            image: Some(image),
            mirrored: false,
            rotation_degrees: 0,
        };
        self.number += 1;
        let lag = Instant::now().saturating_duration_since(at);
        let message = v1::run_request::Message::Frame(frame);
        if frames.try_send(v1::RunRequest { message: Some(message) }).is_err() {
            return SentFrame::Dropped;
        }
        self.captured.push(at);
        SentFrame::Sent { lag }
    }

    /// Returns how the session ended. The server counts the frames that it received, so the last
    /// of them is the one that decided.
    fn end(&self, result: &v1::LivenessResult) -> Result<SessionEnd, Status> {
        let received = result.frames_received as usize;
        let last = received.checked_sub(1).and_then(|last| self.captured.get(last));
        let decided_by = last.copied().unwrap_or(self.started);
        Ok(SessionEnd { decision: result.decision(), decided_by })
    }
}

fn create_request(
    options: &SessionOptions,
    store: &str,
    transaction: &str,
) -> v1::CreateSessionRequest {
    v1::CreateSessionRequest {
        context: Some(context(store.to_owned())),
        device_id: DEVICE.to_owned(),
        transaction_id: transaction.to_owned(),
        portrait_sha256: options.portrait_sha256.clone(),
        portrait_source: v1::ImageSource::IdFile.into(),
        policy_fmr: None,
        assurance: v1::Assurance::Stream.into(),
        portrait: None,
    }
}

fn start_message(film: &Film, store: &str, token: String) -> v1::RunRequest {
    let start = v1::Start {
        context: Some(context(store.to_owned())),
        token,
        device_id: DEVICE.to_owned(),
        portrait: Some(v1::Image { data: film.portrait.to_vec() }),
    };
    v1::RunRequest { message: Some(v1::run_request::Message::Start(start)) }
}

fn now_unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
