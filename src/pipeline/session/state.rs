//! The state that all sessions share.

use std::sync::Arc;

use super::settings::LivenessSettings;
use crate::liveness::SessionLimits;
use crate::trust::{KeyError, ReplayError, ReplayStore, SessionKeys, SessionTokens};

/// The state that all sessions share.
#[derive(Debug)]
pub struct Sessions {
    /// Seals and opens session tokens.
    pub tokens: SessionTokens,
    /// Keys of the digests of transactions and frames.
    pub keys: Arc<SessionKeys>,
    /// The replay store, which records the sessions that were used.
    pub replay: ReplayStore,
    /// TTL, attempts and other settings.
    pub settings: LivenessSettings,
    /// The limits of a session, without those that depend on the calibration.
    pub limits: SessionLimits,
}

/// Why liveness sessions cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SessionsError {
    /// The session keys cannot be used.
    #[error("no keys for liveness sessions")]
    Keys(#[from] KeyError),
    /// The replay store cannot be used.
    #[error("the store of liveness sessions cannot be used")]
    Replay(#[from] ReplayError),
}

/// Audience of the tokens: replicas of this service, in this version of the API.
const TOKEN_AUDIENCE: &str = "menshen.v1.LivenessService";

impl Sessions {
    /// Creates the shared state. See [`session_keys`] and [`session_store`] for the arguments.
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

/// Reads the keys of `liveness.key_file`, or generates one if no file is set.
///
/// # Errors
/// The key file cannot be read, is open to other users, or holds no valid keys.
pub fn session_keys(settings: &LivenessSettings) -> Result<SessionKeys, SessionsError> {
    Ok(match &settings.key_file {
        Some(path) => SessionKeys::load(path)?,
        None => SessionKeys::generate()?,
    })
}

/// Opens the store of `liveness.replay` and checks that it can be used.
///
/// # Errors
/// The store cannot be used.
pub async fn session_store(settings: &LivenessSettings) -> Result<ReplayStore, SessionsError> {
    let timeout = settings.replay_timeout();
    let replay = ReplayStore::open(&settings.replay, settings.replay_replicas_min, timeout)?;
    replay.probe().await?;
    Ok(replay)
}
