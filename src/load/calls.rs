//! The kinds of calls that a run may send, and their mix.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

use super::LoadError;
use crate::proto::{code_name, v1};

/// What one arrival does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallKind {
    /// `FaceService.Verify` with a portrait and one live photograph.
    Verify,
    /// `FaceService.Compare` of two pictures.
    Compare,
    /// `FaceService.Embed`
    Embed,
    /// `FaceService.Detect`
    Detect,
    /// `FaceService.CheckLiveness`
    CheckLiveness,
    /// `grpc.health.v1.Health/Check`: a call that costs the server nothing, the null call.
    Health,
    /// A whole liveness session: `CreateSession`, then `Run` with a camera.
    Session,
}

impl CallKind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Verify,
        Self::Compare,
        Self::Embed,
        Self::Detect,
        Self::CheckLiveness,
        Self::Health,
        Self::Session,
    ];

    /// Returns the name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Compare => "compare",
            Self::Embed => "embed",
            Self::Detect => "detect",
            Self::CheckLiveness => "check-liveness",
            Self::Health => "health",
            Self::Session => "session",
        }
    }

    /// Returns the path of the call over HTTP/2. A session begins with its second path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Verify => "/menshen.v1.FaceService/Verify",
            Self::Compare => "/menshen.v1.FaceService/Compare",
            Self::Embed => "/menshen.v1.FaceService/Embed",
            Self::Detect => "/menshen.v1.FaceService/Detect",
            Self::CheckLiveness => "/menshen.v1.FaceService/CheckLiveness",
            Self::Health => "/grpc.health.v1.Health/Check",
            Self::Session => "/menshen.v1.LivenessService/Run",
        }
    }
}

impl fmt::Display for CallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CallKind {
    type Err = LoadError;

    /// Reads a short name, such as `verify`, or a full one, such as
    /// `menshen.v1.FaceService/Verify` or `menshen.v1.FaceService.Verify`.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let text = text.trim();
        let full = |kind: &Self| {
            let path = &kind.path()[1..];
            path == text || path.replace('/', ".") == text
        };
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text || full(kind));
        found.ok_or_else(|| LoadError::UnknownCall {
            name: text.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Kinds of calls with their weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Weights are above 0 and finite. No kind occurs twice.
    weights: Vec<(CallKind, f64)>,
}

impl Mix {
    /// Returns the kinds, in the order in which they were given.
    pub fn kinds(&self) -> impl Iterator<Item = CallKind> {
        self.weights.iter().map(|(kind, _)| *kind)
    }

    /// Draws a kind by weight.
    pub(super) fn draw(&self, random: &mut impl Rng) -> CallKind {
        let total: f64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = random.random_range(0.0..total);
        for (kind, weight) in &self.weights {
            if left < *weight {
                return *kind;
            }
            left -= weight;
        }
        self.weights[0].0
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(kind, _)] = self.weights[..] {
            return kind.fmt(f);
        }
        let parts: Vec<String> =
            self.weights.iter().map(|(kind, weight)| format!("{kind}={weight}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = LoadError;

    /// Reads `verify` or `verify=8,detect=1`. A kind without a weight has weight 1.
    fn from_str(text: &str) -> Result<Self, LoadError> {
        let mut weights: Vec<(CallKind, f64)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind: CallKind = name.parse()?;
            let weight = weight.trim().parse().ok().filter(|w: &f64| (1e-6..=1e6).contains(w));
            let weight = weight.ok_or_else(|| LoadError::Weight { part: part.to_owned() })?;
            if weights.iter().any(|(other, _)| *other == kind) {
                return Err(LoadError::RepeatedCall { kind });
            }
            weights.push((kind, weight));
        }
        Ok(Self { weights })
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Answered without a decision, as `Embed` is.
    Answered,
    /// Answered with a decision.
    Decided(v1::Decision),
    /// Ended by a gRPC status, of the server or of the connection.
    Status(tonic::Code),
    /// Not sent, since the calls in flight already took the memory that they may take.
    NotSent,
}

impl Outcome {
    /// Returns whether the server answered the call.
    pub fn is_ok(self) -> bool {
        matches!(self, Self::Answered | Self::Decided(_))
    }

    /// Returns the name of the gRPC status, `OK` for an answer, or `NOT_SENT`.
    pub fn status(self) -> &'static str {
        match self {
            Self::Answered | Self::Decided(_) => "OK",
            Self::NotSent => "NOT_SENT",
            Self::Status(code) => code_name(code),
        }
    }

    /// Returns the name of the decision; empty without one.
    pub fn decision(self) -> &'static str {
        match self {
            Self::Decided(decision) => {
                let name = decision.as_str_name();
                name.strip_prefix("DECISION_").unwrap_or(name)
            }
            Self::Answered | Self::Status(_) | Self::NotSent => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn a_mix_is_read_by_short_and_full_names() {
        let mix: Mix = "verify=8, menshen.v1.FaceService/Detect,grpc.health.v1.Health.Check=0.5"
            .parse()
            .unwrap();
        let want =
            [(CallKind::Verify, 8.0), (CallKind::Detect, 1.0), (CallKind::Health, 0.5)].to_vec();
        assert_eq!(mix.weights, want);
        assert_eq!(mix.to_string(), "verify=8,detect=1,health=0.5");
        assert_eq!("session".parse::<Mix>().unwrap().to_string(), "session");
    }

    #[test]
    fn a_wrong_mix_names_the_wrong_part() {
        for (text, want) in [
            ("verfy", "verfy"),
            ("verify=0", "verify=0"),
            ("verify=x", "verify=x"),
            ("detect=inf", "detect=inf"),
            ("detect,detect=2", "detect"),
            ("", "call"),
        ] {
            let error = text.parse::<Mix>().expect_err(text).to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn kinds_are_drawn_by_weight() {
        let mix: Mix = "verify=3,detect=1".parse().unwrap();
        let mut random = SmallRng::seed_from_u64(1);
        let verify = (0..10_000).filter(|_| mix.draw(&mut random) == CallKind::Verify).count();
        assert!((7_300..7_700).contains(&verify), "{verify}");
    }
}
