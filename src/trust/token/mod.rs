//! Session tokens: PASETO v4.local. Only a holder of the key can read a token, so a client does not
//! learn the later actions from its token. Any replica with the key can open it.

mod claims;

use std::sync::Arc;

use pasetors::Local;
use pasetors::token::UntrustedToken;
use pasetors::version4::{LocalToken, V4};
use serde::{Deserialize, Serialize};

use crate::trust::{Secret, SessionKeys};
use claims::SKEW_MS;

pub use claims::{BoundField, PresentedBinding, SessionClaims, SessionId};

/// Size limit of a token in bytes. Identifiers and actions take about half a kilobyte. The limit is
/// half of the 8 kilobytes that HTTP/2 headers may have.
pub const TOKEN_BYTES_MAX: usize = 4_096;

/// Seals and opens session tokens of one audience.
#[derive(Debug, Clone)]
pub struct SessionTokens {
    keys: Arc<SessionKeys>,
    audience: &'static str,
}

/// Why a token cannot be sealed, opened or used for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is malformed, was changed, or was sealed with another key under this key's
    /// identifier. One variant covers all three: the difference would help only an attacker.
    #[error("the session token is not genuine")]
    Forged,
    /// The token was sealed with a key that this replica does not have.
    #[error("the session token is sealed with an unknown key")]
    UnknownKey,
    /// The token was sealed for another service.
    #[error("the session token is for another service")]
    WrongAudience,
    /// The session has expired.
    #[error("the session has expired")]
    Expired,
    /// The session is not valid yet, not even on a clock that runs 30 s ahead of this one.
    #[error("the session is not valid yet")]
    NotYetValid,
    /// The session is bound to another tenant, shop, device or portrait.
    #[error("the session is bound to another {0}")]
    WrongBinding(BoundField),
    /// The claims are too long for a token.
    #[error("the session token would be over {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes")]
    Random,
}

/// The plaintext of a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload<A, C> {
    audience: A,
    claims: C,
}

/// Draws a number from the operating system's random source.
///
/// # Errors
/// [`TokenError::Random`].
pub fn random_u128() -> Result<u128, TokenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| TokenError::Random)?;
    Ok(u128::from_le_bytes(bytes))
}

impl SessionTokens {
    /// Creates tokens under `keys` for one `audience`. Services of another audience refuse them.
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
        let token = LocalToken::encrypt(&key.sealing_key, payload.expose(), footer, None)
            .map_err(|_| TokenError::Random)?;
        if token.len() > TOKEN_BYTES_MAX {
            Err(TokenError::TooLong)
        } else {
            Ok(Secret::new(token))
        }
    }

    /// Decrypts a token and checks its audience and its validity at `now_unix_ms`.
    ///
    /// # Errors
    /// Every [`TokenError`] except [`TokenError::WrongBinding`], [`TokenError::TooLong`] and
    /// [`TokenError::Random`].
    pub fn open(&self, token: &str, now_unix_ms: u64) -> Result<SessionClaims, TokenError> {
        let Payload { audience, claims } = self.decrypt(token)?;
        if audience != self.audience {
            return Err(TokenError::WrongAudience);
        }
        if claims.not_before_unix_ms > now_unix_ms.saturating_add(SKEW_MS) {
            return Err(TokenError::NotYetValid);
        }
        // No skew here: a session never lives longer than its TTL.
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
        let opened = LocalToken::decrypt(&key.sealing_key, &token, Some(footer), None)
            .map_err(|_| TokenError::Forged)?;
        serde_json::from_str(opened.payload()).map_err(|_| TokenError::Forged)
    }
}

#[cfg(test)]
mod tests;
