//! Liveness sessions: created and sealed in a token, run once, and saved with their results. To
//! claim a session is to record in the replay store that it is used; its claims are the content of
//! the token.
//!
//! ```text
//! SessionSpec → create → token … SessionStart → RunningSession: frame by frame → SessionReport
//! ```

mod report;
mod running;
mod settings;
mod state;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

pub use report::SessionReport;
pub use running::RunningSession;
pub use settings::LivenessSettings;
pub use state::{Sessions, SessionsError, session_keys, session_store};

use super::{Error, Pipeline};
use crate::face::ImageSource;
use crate::face::calibration::PairType;
use crate::liveness::{self, Action, Assurance, STEPS};
use crate::telemetry;
use crate::trust::{
    ClaimOutcome, Digest, KeyedDigests, PresentedBinding, Secret, SessionClaims, SessionId,
    SessionState, random_u128,
};

/// TTL of the attempts at a transaction. A registration is finished on the same day.
const ATTEMPTS_TTL: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of attempts refunded to one transaction. The count expires [`ATTEMPTS_TTL`] after
/// the last refund. An honest customer rarely meets more faults in one day. An attacker can cause
/// faults, with bursts of frames or with unread answers, but gains no more than this many sessions
/// without a verdict.
const REFUNDS_MAX: u32 = 10;

/// TTL of a session's result.
const RESULT_TTL: Duration = Duration::from_secs(600);

/// The tenant of all sessions, until callers have identities.
const TENANT: &str = "default";

/// The parameters of a new session.
#[derive(Debug)]
pub struct SessionSpec {
    /// The shop that may run the session.
    pub store: Arc<str>,
    /// Reference to the customer's consent.
    pub consent: String,
    /// The device that may run the session.
    pub device: String,
    /// The registration that the session belongs to.
    pub transaction: String,
    /// The portrait that the session is for.
    pub portrait: SessionPortrait,
    /// The source of the portrait.
    pub portrait_source: ImageSource,
    /// The requested false-match rate.
    pub policy_fmr: Option<f64>,
    /// Whether the frames come as a stream or as a recording.
    pub assurance: Assurance,
}

/// The portrait of a new session. Only its SHA-256 is stored.
#[derive(Debug)]
pub enum SessionPortrait {
    /// The SHA-256 of the portrait's file.
    Digest(Digest),
    /// The file.
    File(Secret<Vec<u8>>),
}

/// A new session.
#[derive(Debug)]
pub struct CreatedSession {
    /// The sealed claims.
    pub token: Secret<String>,
    /// The claims.
    pub claims: SessionClaims,
    /// The actions to perform, in order.
    pub actions: [Action; STEPS],
}

/// The parameters of a session's start.
#[derive(Debug)]
pub struct SessionStart {
    /// The shop of the request.
    pub store: Arc<str>,
    /// The device of the request.
    pub device: String,
    /// The sealed claims.
    pub token: Secret<String>,
    /// The portrait's file.
    pub portrait: Secret<Vec<u8>>,
}

impl Pipeline {
    /// Draws the actions of a session and seals them in a token.
    ///
    /// # Errors
    /// A false-match rate that the calibration does not support, too many attempts, an unavailable
    /// replay store.
    pub async fn create_session(&self, spec: SessionSpec) -> Result<CreatedSession, Error> {
        let pair_type = PairType::against_live(spec.portrait_source);
        let policy_fmr = self.policies.for_pair(pair_type, spec.policy_fmr)?.policy_fmr;
        let Sessions { tokens, keys, replay, settings, .. } = &self.sessions;
        let portrait = match spec.portrait {
            SessionPortrait::Digest(digest) => digest,
            SessionPortrait::File(file) => self.hash_portrait(file).await?.0,
        };
        // Drawn before the attempt is counted, so that a failure here costs no attempt.
        let (session, actions) = (SessionId::random()?, liveness::draw_actions(random_u128()?));
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

    /// Hashes a portrait on the CPU pool, which may take milliseconds. Returns the digest and the
    /// file.
    async fn hash_portrait(
        &self,
        file: Secret<Vec<u8>>,
    ) -> Result<(Digest, Secret<Vec<u8>>), Error> {
        self.compute(move || (Digest::of(file.expose()), file)).await
    }

    /// Opens a session's token, checks it, and claims the session.
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

    /// Returns the transaction's digest that is sealed in a token. `None` if the token cannot be
    /// opened or parsed.
    pub fn transaction_of(&self, token: &Secret<String>) -> Option<KeyedDigests> {
        let claims = self.sessions.tokens.open(token.expose(), unix_ms()).ok()?;
        let opened = OpenedClaims::parse(claims)?;
        Some(KeyedDigests { primary: opened.claims.transaction, secondary: None })
    }

    /// Refunds the attempt that a session cost its transaction, up to `REFUNDS_MAX` times. Call
    /// this only for a session that failed by the server's fault and cannot be run again. If the
    /// refund fails, the attempt stays counted.
    pub async fn refund_attempt(&self, transaction: &KeyedDigests) {
        let replay = &self.sessions.replay;
        if let Err(error) = replay.refund_attempt(transaction, REFUNDS_MAX, ATTEMPTS_TTL).await {
            let causes = telemetry::causes(&error);
            tracing::warn!(causes, "an attempt could not be refunded");
        }
    }

    /// Saves the result of a session, so that the caller can ask for the result again.
    ///
    /// # Errors
    /// The replay store is unavailable: the caller must not get the result.
    pub async fn save_result(&self, session: SessionId, result: Vec<u8>) -> Result<(), Error> {
        self.sessions.replay.save_result(session, Bytes::from(result), RESULT_TTL).await?;
        Ok(())
    }

    /// Returns the saved result of a session.
    ///
    /// # Errors
    /// [`Error::NoResult`], or an unavailable replay store.
    pub async fn load_result(&self, session: SessionId) -> Result<Bytes, Error> {
        match self.sessions.replay.state(session).await? {
            SessionState::Finished(result) => Ok(result),
            SessionState::Claimed | SessionState::Unknown => Err(Error::NoResult),
        }
    }
}

/// The parsed claims of a session.
struct OpenedClaims {
    claims: SessionClaims,
    actions: [Action; STEPS],
    assurance: Assurance,
    source: ImageSource,
}

/// A genuine token whose claims cannot be parsed: another version of the server sealed it.
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

/// Returns the time in milliseconds of Unix time. Returns 0 for a clock before 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
