//! Sealed session tokens: PASETO v4.local, which any replica that has the key can open and nobody
//! else can read, so a client does not learn the later actions from its token.

mod claims;

use std::sync::Arc;

use pasetors::Local;
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, V4};
use serde::{Deserialize, Serialize};

use crate::trust::{Secret, SessionKeys};
use claims::SKEW_MS;

pub use claims::{BoundField, PresentedBinding, SessionClaims, SessionId};

/// Longest token: identifiers and actions fill half a kilobyte, and a header of HTTP/2 may be 8.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Seals and opens session tokens of one audience.
#[derive(Debug, Clone)]
pub struct SessionTokens {
    keys: Arc<SessionKeys>,
    audience: &'static str,
}

/// Why a token does not stand for a session here and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or changed, or of another key under this key's name. These are not told apart,
    /// since the difference would help only who forges.
    #[error("the session token is not genuine")]
    Forged,
    /// Sealed with a key that is not live here.
    #[error("the session token is sealed with an unknown key")]
    UnknownKey,
    /// Sealed for another service.
    #[error("the session token is for another service")]
    WrongAudience,
    /// Its time is over.
    #[error("the session has expired")]
    Expired,
    /// Its time has not come, even on a clock that runs 30 s ahead of this one.
    #[error("the session is not valid yet")]
    NotYetValid,
    /// It belongs to another customer, shop or device.
    #[error("the session is bound to another {0}")]
    WrongBinding(BoundField),
    /// The claims are longer than a token may be.
    #[error("the session token would be over {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The operating system gives no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
}

/// What is encrypted.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<A, C> {
    audience: A,
    claims: C,
}

/// A number from the operating system's random source.
///
/// # Errors
/// [`TokenError::Random`].
pub fn random_u128() -> Result<u128, TokenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(u128::from_le_bytes(bytes))
}

impl SessionTokens {
    /// Tokens under `keys` that only services of the same `audience` take.
    pub fn new(keys: Arc<SessionKeys>, audience: &'static str) -> Self {
        Self { keys, audience }
    }

    /// Seals `claims` with the primary key.
    ///
    /// # Errors
    /// [`TokenError::TooLong`] and [`TokenError::Random`].
    pub fn seal(&self, claims: &SessionClaims) -> Result<Secret<String>, TokenError> {
        let payload = Payload { audience: self.audience, claims };
        let payload = serde_json::to_vec(&payload).expect("claims are plain data");
        let payload = Secret::new(payload);
        let key = self.keys.primary();
        let footer = Some(key.footer.as_bytes());
        let token = LocalToken::encrypt(&key.sealing, payload.expose(), footer, None)
            .map_err(|_| TokenError::Random)?;
        if token.len() > TOKEN_BYTES_MAX {
            Err(TokenError::TooLong)
        } else {
            Ok(Secret::new(token))
        }
    }

    /// Opens a token at `now`.
    ///
    /// # Errors
    /// Every [`TokenError`] but [`TokenError::WrongBinding`] and those of sealing.
    pub fn open(&self, token: &str, now_unix_ms: u64) -> Result<SessionClaims, TokenError> {
        let Payload { audience, claims } = self.decrypt(token)?;
        if audience != self.audience {
            return Err(TokenError::WrongAudience);
        }
        if claims.not_before_unix_ms > now_unix_ms.saturating_add(SKEW_MS) {
            return Err(TokenError::NotYetValid);
        }
        // Without skew: a session never lives longer than it was given.
        if now_unix_ms >= claims.expires_unix_ms {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }

    fn decrypt(&self, token: &str) -> Result<Payload<String, SessionClaims>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Forged);
        }
        let token = UntrustedToken::<Local, V4>::try_from(token).map_err(|_| TokenError::Forged)?;
        let footer = token.untrusted_footer();
        if footer.is_empty() {
            return Err(TokenError::Forged);
        }
        let key = self.keys.find_by_footer(footer).ok_or(TokenError::UnknownKey)?;
        let opened = LocalToken::decrypt(&key.sealing, &token, Some(footer), None)
            .map_err(|_| TokenError::Forged)?;
        serde_json::from_str(opened.payload()).map_err(|_| TokenError::Forged)
    }
}

#[cfg(test)]
mod tests;
