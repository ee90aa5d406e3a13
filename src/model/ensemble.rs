//! `ensemble.toml`: several passive-liveness models that decide together.

use serde::Deserialize;

use super::ModelError;
use super::manifest::syntax_error;
use super::task::check_fraction;
use super::values::{parse_free_text, parse_label};
use crate::liveness::Fusion;

/// Most members. Each member runs one more network per photograph; published ensembles have two.
const MEMBERS_MAX: usize = 8;

/// Passive-liveness models that decide together. The values are checked; whether the members are on
/// disk is not.
///
/// The crop, colour order and classes of each member stand in its own manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// Name of the ensemble; also its directory.
    pub name: String,
    /// Version of the ensemble; also its directory.
    pub version: String,
    /// The models as `name/version`, because the threshold holds only for these weights. Each name
    /// appears once.
    pub members: Vec<String>,
    /// How the scores are fused into one.
    pub fusion: Fusion,
    /// Least fused probability of a live face, in 0..1.
    pub score_min: f64,
    /// The source of `score_min`.
    pub score_source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnsemble {
    name: String,
    version: String,
    members: Vec<String>,
    fusion: Fusion,
    score_min: f64,
    score_source: String,
}

impl Ensemble {
    /// Parses the text of an `ensemble.toml`.
    ///
    /// # Errors
    /// [`ModelError`] names the key and the rule that it breaks. Unknown keys are refused.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let raw: RawEnsemble = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
        check_fraction("score_min", raw.score_min)?;
        Ok(Self {
            name: parse_label("name", raw.name)?,
            version: parse_label("version", raw.version)?,
            members: parse_members(raw.members)?,
            fusion: raw.fusion,
            score_min: raw.score_min,
            score_source: parse_free_text("score_source", raw.score_source)?,
        })
    }

    /// Returns `name/version`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.name, self.version)
    }
}

/// Parses `members`. Each name may appear once, because queues and metrics are keyed by the name.
fn parse_members(members: Vec<String>) -> Result<Vec<String>, ModelError> {
    if !(1..=MEMBERS_MAX).contains(&members.len()) {
        return Err(ModelError::value("members", format!("must have 1 to {MEMBERS_MAX} entries")));
    }
    let mut names: Vec<&str> = Vec::with_capacity(members.len());
    for (k, member) in members.iter().enumerate() {
        let key = format!("members[{k}]");
        let Some((name, version)) = member.split_once('/') else {
            return Err(ModelError::value(key, "must be `name/version`"));
        };
        parse_label(&key, name.to_owned())?;
        parse_label(&key, version.to_owned())?;
        if names.contains(&name) {
            return Err(ModelError::value(key, "has the name of another member"));
        }
        names.push(name);
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAIR: &str = r#"
name = "pair"
version = "1"
members = ["one/1", "two/0.4"]
fusion = "mean"
score_min = 0.8
score_source = "a test"
"#;

    #[test]
    fn an_ensemble_names_its_members_and_how_they_are_fused() {
        let pair = Ensemble::parse(PAIR).unwrap();
        assert_eq!(pair.id(), "pair/1");
        assert_eq!(pair.members, ["one/1", "two/0.4"]);
        assert_eq!((pair.fusion, pair.score_min), (Fusion::Mean, 0.8));
    }

    #[test]
    fn every_broken_ensemble_is_refused_by_the_key_that_breaks_it() {
        for (from, to, expected) in [
            ("name = \"pair\"", "name = \"../pair\"", "`name`"),
            ("version = \"1\"", "version = \"\"", "`version`"),
            ("[\"one/1\", \"two/0.4\"]", "[]", "`members`"),
            ("[\"one/1\", \"two/0.4\"]", "[\"one\"]", "`members[0]`"),
            ("\"two/0.4\"", "\"two/../x\"", "`members[1]`"),
            ("\"two/0.4\"", "\"one/2\"", "`members[1]` has the name of another member"),
            ("\"mean\"", "\"max\"", "fusion"),
            ("score_min = 0.8", "score_min = 1.0", "`score_min`"),
            ("score_source = \"a test\"", "", "missing field `score_source`"),
            ("fusion", "file = \"x.onnx\"\nfusion", "unknown field `file`"),
        ] {
            assert!(PAIR.contains(from), "{from}");
            let message = Ensemble::parse(&PAIR.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(message.contains(expected), "{message} does not name {expected}");
        }
        let many = format!("[{}]", "\"one/1\", ".repeat(MEMBERS_MAX + 1));
        let text = PAIR.replace("[\"one/1\", \"two/0.4\"]", &many);
        let message = Ensemble::parse(&text).unwrap_err().to_string();
        assert_eq!(message, "manifest: `members` must have 1 to 8 entries");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_ensemble_or_an_error(text in ".{0,200}", at in 0..200_usize) {
            let _ = Ensemble::parse(&text);
            let _ = Ensemble::parse(&PAIR.chars().take(at).chain(text.chars()).collect::<String>());
        }
    }
}
