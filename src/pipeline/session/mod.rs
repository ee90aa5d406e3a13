//! Liveness sessions: created and sealed, run once, and remembered by their results.
//!
//! ```text
//! SessionSpec → create → token … SessionStart → LiveSession: frame by frame → SessionReport
//! ```

mod live;
mod report;
mod settings;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use live::{LiveSession, ReceivedFrame};
pub use report::SessionReport;
pub use settings::LivenessSettings;

use super::{Error, Pipeline};
use crate::face::ImageSource;
use crate::face::calibration::PairType;
use crate::image::Rotation;
use crate::liveness::{self, Action, Assurance, Limits, STEPS};
use crate::telemetry;
use crate::trust::{
    ClaimOutcome, Digest, KeyError, KeyedDigests, PresentedBinding, ReplayError, ReplayStore,
    Secret, SessionClaims, SessionId, SessionKeys, SessionState, SessionTokens, random_u128,
};

/// How long the attempts at a transaction are counted: a registration is finished the same day.
const ATTEMPTS_TTL: Duration = Duration::from_secs(24 * 3600);

/// Attempts that one transaction gets back at most, within [`ATTEMPTS_TTL`] of each other. Who
/// comes back more often on one bad day is rare; and who brings the trouble about on purpose, with
/// frames in bursts or answers left unread, gains so many sessions without a verdict and no more.
const REFUNDS_MAX: u32 = 10;

/// How long a result can be asked for.
const RESULT_TTL: Duration = Duration::from_secs(600);

/// Whose sessions these are: all callers are of one tenant until they have identities.
const TENANT: &str = "default";

/// What all sessions share.
#[derive(Debug)]
pub struct Sessions {
    /// Seals and opens.
    pub tokens: SessionTokens,
    /// Digests of transactions and frames.
    pub keys: Arc<SessionKeys>,
    /// Which sessions were used.
    pub replay: ReplayStore,
    /// How long and how often.
    pub settings: LivenessSettings,
    /// The limits of a session, but for what the calibration says.
    pub limits: Limits,
}

/// Why liveness sessions cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// There are no keys to seal with.
    #[error("no keys for liveness sessions")]
    Keys(#[from] KeyError),
    /// The store of used sessions cannot be relied on.
    #[error("the store of liveness sessions cannot be used")]
    Replay(#[from] ReplayError),
}

/// Whom tokens are for: replicas of this service, of this version of the API.
const TOKEN_AUDIENCE: &str = "menshen.v1.LivenessService";

impl Sessions {
    /// Sessions sealed with `keys`, each used once by `replay`: see [`session_keys`] and
    /// [`session_store`].
    pub fn new(settings: &LivenessSettings, keys: SessionKeys, replay: ReplayStore) -> Self {
        let keys = Arc::new(keys);
        Self {
            tokens: SessionTokens::new(Arc::clone(&keys), TOKEN_AUDIENCE),
            keys,
            replay,
            settings: settings.clone(),
            limits: settings.limits(),
        }
    }
}

/// Reads the keys of `liveness.key_file`, or makes one.
///
/// # Errors
/// A key file that cannot be read, is not private, or holds no keys.
pub fn session_keys(settings: &LivenessSettings) -> Result<SessionKeys, SessionsError> {
    Ok(match &settings.key_file {
        Some(path) => SessionKeys::load(path)?,
        None => SessionKeys::generate()?,
    })
}

/// Opens the store of `liveness.replay`, and asks whether it can be relied on.
///
/// # Errors
/// A store that cannot be used.
pub async fn session_store(settings: &LivenessSettings) -> Result<ReplayStore, SessionsError> {
    let timeout = settings.replay_timeout();
    let replay = ReplayStore::open(&settings.replay, settings.replay_replicas_min, timeout)?;
    replay.probe().await?;
    Ok(replay)
}

/// A session that is asked for.
#[derive(Debug)]
pub struct SessionSpec {
    /// The shop that may run it.
    pub store: Arc<str>,
    /// Reference to the customer's consent.
    pub consent: String,
    /// The device that may run it.
    pub device: String,
    /// The registration it belongs to.
    pub transaction: String,
    /// The portrait it is for.
    pub portrait: PortraitFile,
    /// Where the portrait comes from.
    pub portrait_source: ImageSource,
    /// The false-match rate asked for.
    pub policy_fmr: Option<f64>,
    /// How its frames will come.
    pub assurance: Assurance,
}

/// The portrait that a session is for: all that is kept of it is its SHA-256.
#[derive(Debug)]
pub enum PortraitFile {
    /// By the SHA-256 of its file.
    Digest(Digest),
    /// The file.
    File(Secret<Vec<u8>>),
}

/// A session that was created.
#[derive(Debug)]
pub struct CreatedSession {
    /// The sealed session.
    pub token: Secret<String>,
    /// What it was promised.
    pub claims: SessionClaims,
    /// What it asks for.
    pub actions: [Action; STEPS],
}

/// What a session is started with.
#[derive(Debug)]
pub struct SessionStart {
    /// The shop that runs it.
    pub store: Arc<str>,
    /// The device that runs it.
    pub device: String,
    /// The sealed session.
    pub token: Secret<String>,
    /// The portrait's file.
    pub portrait: Secret<Vec<u8>>,
}

/// A frame as it was sent.
#[derive(Debug)]
pub struct CameraFrame {
    /// Path of the frame in the request.
    pub field: String,
    /// Its number.
    pub sequence: u32,
    /// When it was taken, by the client's clock, in milliseconds of Unix time.
    pub captured_unix_ms: u64,
    /// A JPEG.
    pub file: Secret<Vec<u8>>,
    /// Left and right are exchanged.
    pub mirrored: bool,
    /// What makes it upright.
    pub rotation: Rotation,
}

impl Pipeline {
    /// Draws a session's actions and seals them.
    ///
    /// # Errors
    /// A policy the calibration cannot support, too many attempts, a store that is unavailable.
    pub async fn create_session(&self, spec: SessionSpec) -> Result<CreatedSession, Error> {
        let pair_type = PairType::against_live(spec.portrait_source);
        let policy_fmr = self.policies.for_pair(pair_type, spec.policy_fmr)?.policy_fmr;
        let Sessions { tokens, keys, replay, settings, .. } = &self.sessions;
        let portrait = match spec.portrait {
            PortraitFile::Digest(digest) => digest,
            PortraitFile::File(file) => self.hash(file).await?.0,
        };
        // Drawn before the attempt is counted: what fails here has cost none.
        let (session, actions) = (SessionId::random()?, liveness::draw(random_u128()?));
        let transaction = keys.transaction_digests(TENANT, &spec.transaction);
        let attempts_max = settings.attempts_max;
        let counted = replay.count_attempt(&transaction, attempts_max, ATTEMPTS_TTL).await?;
        let attempt = counted.ok_or(Error::AttemptsSpent { attempts_max })?;
        let now = unix_ms();
        let claims = SessionClaims {
            session,
            issued_unix_ms: now,
            not_before_unix_ms: now,
            expires_unix_ms: now.saturating_add(settings.session_ttl_ms),
            tenant: TENANT.to_owned(),
            store: spec.store.to_string(),
            device: spec.device,
            transaction: transaction.primary,
            portrait,
            portrait_is_chip: spec.portrait_source == ImageSource::IdChip,
            consent: Digest::of(spec.consent.as_bytes()),
            policy_fmr,
            actions: actions.map(|action| action.name().to_owned()).into(),
            is_batch: spec.assurance == Assurance::Batch,
            attempt,
        };
        Ok(CreatedSession { token: tokens.seal(&claims)?, claims, actions })
    }

    /// Hashes a portrait, which may take milliseconds, and gives it back.
    async fn hash(&self, file: Secret<Vec<u8>>) -> Result<(Digest, Secret<Vec<u8>>), Error> {
        self.compute(move || (Digest::of(file.expose()), file)).await
    }

    /// Opens a session's token, and takes the session so that nobody else can.
    async fn claim(
        &self,
        token: &Secret<String>,
        presented: &PresentedBinding<'_>,
        assurance: Assurance,
    ) -> Result<OpenedClaims, Error> {
        let Sessions { tokens, replay, .. } = &self.sessions;
        let now = unix_ms();
        let claims = tokens.open(token.expose(), now)?;
        claims.check_binding(presented)?;
        let opened =
            OpenedClaims::parse(claims).ok_or_else(|| Error::internal(UnreadableClaims))?;
        if opened.assurance != assurance {
            return Err(Error::WrongCall(method_for(opened.assurance)));
        }
        match replay.claim(opened.claims.session, opened.claims.claim_ttl(now)).await? {
            ClaimOutcome::Claimed => Ok(opened),
            ClaimOutcome::AlreadyUsed => Err(Error::SessionUsed),
        }
    }

    /// The transaction that a session's token was sealed for, under the key that sealed it; `None`
    /// where the session cannot be run here and now.
    pub fn transaction_of(&self, token: &Secret<String>) -> Option<KeyedDigests> {
        let claims = self.sessions.tokens.open(token.expose(), unix_ms()).ok()?;
        let opened = OpenedClaims::parse(claims)?;
        Some(KeyedDigests { primary: opened.claims.transaction, secondary: None })
    }

    /// Gives a transaction the attempt back that a session has cost it. Only for one that was
    /// claimed and ended by our fault. Where it fails, the attempt stays counted.
    pub async fn refund_attempt(&self, transaction: &KeyedDigests) {
        let replay = &self.sessions.replay;
        if let Err(error) = replay.refund_attempt(transaction, REFUNDS_MAX, ATTEMPTS_TTL).await {
            let causes = telemetry::causes(&error);
            tracing::warn!(causes, "an attempt could not be refunded");
        }
    }

    /// Keeps the result of a session, so that it can be asked for again.
    ///
    /// # Errors
    /// The store is unavailable: the result must not be given.
    pub async fn save_result(&self, session: SessionId, result: Vec<u8>) -> Result<(), Error> {
        self.sessions.replay.save_result(session, Bytes::from(result), RESULT_TTL).await?;
        Ok(())
    }

    /// The result of a session.
    ///
    /// # Errors
    /// A session that has none, a store that is unavailable.
    pub async fn load_result(&self, session: SessionId) -> Result<Bytes, Error> {
        match self.sessions.replay.state(session).await? {
            SessionState::Finished(result) => Ok(result),
            SessionState::Claimed | SessionState::Unknown => Err(Error::NoResult),
        }
    }
}

/// A session's claims, read.
struct OpenedClaims {
    claims: SessionClaims,
    actions: [Action; STEPS],
    assurance: Assurance,
    source: ImageSource,
}

/// A token of this server that holds what this server never seals: another version sealed it.
#[derive(Debug, thiserror::Error)]
#[error("the claims of the session cannot be read")]
struct UnreadableClaims;

impl OpenedClaims {
    fn parse(claims: SessionClaims) -> Option<Self> {
        let actions: Option<Vec<Action>> =
            claims.actions.iter().map(|name| Action::from_name(name)).collect();
        let assurance = if claims.is_batch { Assurance::Batch } else { Assurance::Stream };
        let is_chip = claims.portrait_is_chip;
        let source = if is_chip { ImageSource::IdChip } else { ImageSource::IdFile };
        Some(Self { actions: actions?.try_into().ok()?, assurance, source, claims })
    }
}

fn method_for(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Stream => "Run",
        Assurance::Batch => "Evaluate",
    }
}

/// Milliseconds of Unix time; a clock before 1970 is 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
