//! Which of the models on disk play which part. Pure: manifests in, places out.

use super::{ByRole, CatalogError, Role};
use crate::model::Manifest;

/// For each role, the place of its model in `manifests`.
///
/// A choice is `name` or `name/version`. Without one, the only model for the task is taken; where
/// several fit, the operator must say which.
///
/// # Errors
/// [`CatalogError`] names what was asked for and what there is.
pub fn choose(
    manifests: &[&Manifest],
    choices: &ByRole<Option<String>>,
) -> Result<ByRole<usize>, CatalogError> {
    let choices = ByRole {
        detector: choices.detector.as_deref(),
        embedder: choices.embedder.as_deref(),
        liveness: choices.liveness.as_deref(),
    };
    choices.try_map(|role, choice| match choice {
        Some(asked) => choose_named(manifests, role, asked),
        None => choose_only(manifests, role),
    })
}

fn choose_named(manifests: &[&Manifest], role: Role, asked: &str) -> Result<usize, CatalogError> {
    let place = only(manifests, asked, |manifest| is_called(manifest, asked))?
        .ok_or_else(|| unknown(asked, manifests.iter().map(|manifest| manifest.id())))?;
    let manifest = manifests[place];
    if role.fits(&manifest.task) {
        return Ok(place);
    }
    let (model, task) = (manifest.id(), manifest.task.name());
    Err(CatalogError::WrongTask { model, task, wanted: role })
}

fn choose_only(manifests: &[&Manifest], role: Role) -> Result<usize, CatalogError> {
    only(manifests, &role.to_string(), |manifest| role.fits(&manifest.task))?
        .ok_or(CatalogError::Missing { wanted: role })
}

/// The place of the manifest that fits; more than one is an error.
fn only(
    manifests: &[&Manifest],
    asked: &str,
    fits: impl Fn(&Manifest) -> bool,
) -> Result<Option<usize>, CatalogError> {
    let fitting = manifests.iter().enumerate().filter(|(_, manifest)| fits(manifest));
    let places: Vec<usize> = fitting.map(|(place, _)| place).collect();
    if places.len() <= 1 {
        return Ok(places.first().copied());
    }
    let candidates: Vec<String> = places.iter().map(|place| manifests[*place].id()).collect();
    let (asked, candidates) = (asked.to_owned(), candidates.join(", "));
    Err(CatalogError::Several { asked, candidates })
}

/// Whether `asked` is the model's `name` or its `name/version`.
pub(super) fn is_called(manifest: &Manifest, asked: &str) -> bool {
    asked == manifest.name || asked == manifest.id()
}

pub(super) fn unknown(asked: &str, known: impl Iterator<Item = String>) -> CatalogError {
    let known: Vec<String> = known.collect();
    CatalogError::Unknown { asked: asked.to_owned(), known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fixture::{detector, embedder, liveness};

    fn asking(embedder: &str) -> ByRole<Option<String>> {
        ByRole { embedder: Some(embedder.to_owned()), ..ByRole::default() }
    }

    fn message(manifests: &[Manifest], choices: &ByRole<Option<String>>) -> String {
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        choose(&manifests, choices).unwrap_err().to_string()
    }

    #[test]
    fn the_only_model_for_a_task_needs_no_choice() {
        let manifests = [liveness("live", "1"), detector("det", "1"), embedder("emb", "1")];
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        let chosen = choose(&manifests, &ByRole::default()).unwrap();
        assert_eq!(chosen, ByRole { detector: 1, embedder: 2, liveness: 0 });
    }

    #[test]
    fn a_version_is_chosen_by_its_full_name() {
        let manifests = [
            detector("det", "1"),
            embedder("emb", "1"),
            embedder("emb", "2"),
            liveness("live", "1"),
        ];
        let refs: Vec<&Manifest> = manifests.iter().collect();
        assert_eq!(choose(&refs, &asking("emb/2")).unwrap().embedder, 2);
        let several = "several models fit 'emb', ask for one of: emb/1, emb/2";
        assert_eq!(message(&manifests, &asking("emb")), several);
        let several = "several models fit 'face-embedding', ask for one of: emb/1, emb/2";
        assert_eq!(message(&manifests, &ByRole::default()), several);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name_and_reason() {
        let manifests = [detector("det", "1"), embedder("emb", "1")];
        let unknown = "model 'emb/9' is unknown, there are: det/1, emb/1";
        assert_eq!(message(&manifests, &asking("emb/9")), unknown);
        let wrong = "model det/1 is for face-detection, face-embedding was asked for";
        assert_eq!(message(&manifests, &asking("det")), wrong);
        let missing = "no model is for passive-liveness";
        assert_eq!(message(&manifests, &ByRole::default()), missing);
    }
}
