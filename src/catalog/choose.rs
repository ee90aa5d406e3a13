//! Which of the models on disk play which part. Pure: manifests in, places out.

use super::{ByRole, CatalogError, LivenessEnsemble, Role};
use crate::liveness::Fusion;
use crate::model::{Ensemble, Manifest, Task};

/// What the operator asks for: `name` or `name/version`, where more than one model would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The model that finds faces.
    pub detector: Option<String>,
    /// The model that turns a face into a vector.
    pub embedder: Option<String>,
    /// The model that finds the points of a face.
    pub mesh: Option<String>,
    /// The model that finds the lids of an eye.
    pub iris: Option<String>,
    /// The model that tells a live face from a picture, or an ensemble of such models.
    pub liveness: Option<String>,
}

/// For each role, the place of its model in `manifests`.
///
/// Without a choice, the only model for the task is taken; where several fit, the operator must
/// say which. An ensemble is taken when it is asked for.
///
/// # Errors
/// [`CatalogError`] names what was asked for and what there is.
pub fn choose(
    manifests: &[&Manifest],
    ensembles: &[Ensemble],
    choices: &Choices,
) -> Result<ByRole<usize>, CatalogError> {
    let one = |role, choice: &Option<String>| choose_one(manifests, role, choice.as_deref());
    let ensemble = match &choices.liveness {
        Some(asked) => find_ensemble(manifests, ensembles, asked)?,
        None => None,
    };
    Ok(ByRole {
        detector: one(Role::Detector, &choices.detector)?,
        embedder: one(Role::Embedder, &choices.embedder)?,
        mesh: one(Role::Mesh, &choices.mesh)?,
        iris: one(Role::Iris, &choices.iris)?,
        liveness: match ensemble {
            Some(ensemble) => choose_members(manifests, ensemble)?,
            None => alone(manifests, one(Role::Liveness, &choices.liveness)?)?,
        },
    })
}

/// The ensemble called `asked`; `None` when a model is. What goes by neither is an error, and so
/// is what goes by both.
fn find_ensemble<'a>(
    manifests: &[&Manifest],
    ensembles: &'a [Ensemble],
    asked: &str,
) -> Result<Option<&'a Ensemble>, CatalogError> {
    let models = manifests.iter().filter(|manifest| is_called(manifest, asked));
    let mut ids: Vec<String> = models.map(|manifest| manifest.id()).collect();
    let fits = |ensemble: &&Ensemble| asked == ensemble.name || asked == ensemble.id();
    let fitting: Vec<&Ensemble> = ensembles.iter().filter(fits).collect();
    ids.extend(fitting.iter().map(|ensemble| ensemble.id()));
    match (ids.len(), fitting[..].first()) {
        (0, _) => {
            let models = manifests.iter().map(|manifest| manifest.id());
            Err(unknown(asked, models.chain(ensembles.iter().map(Ensemble::id))))
        }
        (1, Some(ensemble)) => Ok(Some(ensemble)),
        (_, None) => Ok(None),
        (_, Some(_)) => {
            Err(CatalogError::Several { asked: asked.to_owned(), candidates: ids.join(", ") })
        }
    }
}

/// The places of an ensemble's members in `manifests`.
///
/// # Errors
/// [`CatalogError::Member`] for one that is not there or is for something else.
pub fn choose_members(
    manifests: &[&Manifest],
    ensemble: &Ensemble,
) -> Result<LivenessEnsemble<usize>, CatalogError> {
    let member = |asked: &String| choose_one(manifests, Role::Liveness, Some(asked));
    let members = ensemble.members.iter().map(member).collect::<Result<_, _>>();
    let members = members.map_err(|source| CatalogError::Member {
        ensemble: ensemble.id(),
        source: Box::new(source),
    })?;
    let (fusion, score_min) = (ensemble.fusion, ensemble.score_min);
    Ok(LivenessEnsemble { members, fusion, score_min })
}

/// One model judges by its own threshold; of one score, every fusion makes the same.
fn alone(manifests: &[&Manifest], place: usize) -> Result<LivenessEnsemble<usize>, CatalogError> {
    let Task::PassiveLiveness(liveness) = &manifests[place].task else {
        return Err(wrong_task(manifests[place], Role::Liveness));
    };
    let score_min = liveness.score_min;
    Ok(LivenessEnsemble { members: vec![place], fusion: Fusion::Min, score_min })
}

fn choose_one(
    manifests: &[&Manifest],
    role: Role,
    choice: Option<&str>,
) -> Result<usize, CatalogError> {
    match choice {
        Some(asked) => choose_named(manifests, role, asked),
        None => choose_only(manifests, role),
    }
}

fn choose_named(manifests: &[&Manifest], role: Role, asked: &str) -> Result<usize, CatalogError> {
    let place = only(manifests, asked, |manifest| is_called(manifest, asked))?
        .ok_or_else(|| unknown(asked, manifests.iter().map(|manifest| manifest.id())))?;
    let manifest = manifests[place];
    if role.fits(&manifest.task) { Ok(place) } else { Err(wrong_task(manifest, role)) }
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

pub(super) fn wrong_task(manifest: &Manifest, wanted: Role) -> CatalogError {
    let (model, task) = (manifest.id(), manifest.task.name());
    CatalogError::WrongTask { model, task, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fixture::{detector, embedder, iris, liveness, mesh};
    use crate::telemetry::causes;

    fn asking(embedder: &str) -> Choices {
        Choices { embedder: Some(embedder.to_owned()), ..Choices::default() }
    }

    fn judged_by(liveness: &str) -> Choices {
        Choices { liveness: Some(liveness.to_owned()), ..Choices::default() }
    }

    /// One model for each part.
    fn models() -> Vec<Manifest> {
        vec![
            liveness("live", "1"),
            detector("det", "1"),
            embedder("emb", "1"),
            mesh("mesh", "1"),
            iris("iris", "1"),
        ]
    }

    fn pair(version: &str, members: [&str; 2]) -> Ensemble {
        Ensemble {
            name: "pair".to_owned(),
            version: version.to_owned(),
            members: members.map(str::to_owned).into(),
            fusion: Fusion::Mean,
            score_min: 0.8,
            score_source: "none".to_owned(),
        }
    }

    fn chosen(
        manifests: &[Manifest],
        ensembles: &[Ensemble],
        choices: &Choices,
    ) -> Result<ByRole<usize>, CatalogError> {
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        choose(&manifests, ensembles, choices)
    }

    fn message(manifests: &[Manifest], ensembles: &[Ensemble], choices: &Choices) -> String {
        causes(&chosen(manifests, ensembles, choices).unwrap_err())
    }

    #[test]
    fn the_only_model_for_a_task_needs_no_choice() {
        let liveness = LivenessEnsemble { members: vec![0], fusion: Fusion::Min, score_min: 0.5 };
        let expected = ByRole { detector: 1, embedder: 2, mesh: 3, iris: 4, liveness };
        assert_eq!(chosen(&models(), &[], &Choices::default()).unwrap(), expected);
        let unasked = [pair("1", ["live/1", "live/2"])];
        assert_eq!(chosen(&models(), &unasked, &judged_by("live")).unwrap(), expected);
    }

    #[test]
    fn a_version_is_chosen_by_its_full_name() {
        let manifests = [models(), vec![embedder("emb", "2")]].concat();
        assert_eq!(chosen(&manifests, &[], &asking("emb/2")).unwrap().embedder, 5);
        let several = "several models fit 'emb', ask for one of: emb/1, emb/2";
        assert_eq!(message(&manifests, &[], &asking("emb")), several);
        let several = "several models fit 'face-embedding', ask for one of: emb/1, emb/2";
        assert_eq!(message(&manifests, &[], &Choices::default()), several);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name_and_reason() {
        let manifests = [detector("det", "1"), embedder("emb", "1")];
        let unknown = "model 'emb/9' is unknown, there are: det/1, emb/1";
        assert_eq!(message(&manifests, &[], &asking("emb/9")), unknown);
        let wrong = "model det/1 is for face-detection, face-embedding was asked for";
        assert_eq!(message(&manifests, &[], &asking("det")), wrong);
        let missing = "no model is for face-mesh";
        assert_eq!(message(&manifests, &[], &Choices::default()), missing);
        let missing = "no model is for passive-liveness";
        assert_eq!(message(&models()[1..], &[], &Choices::default()), missing);
        let unknown = "model 'pair/2' is unknown, there are: det/1, emb/1, pair/1";
        let ensembles = [pair("1", ["live/1", "other/1"])];
        assert_eq!(message(&manifests, &ensembles, &judged_by("pair/2")), unknown);
    }

    #[test]
    fn an_ensemble_is_asked_for_like_a_model_and_brings_its_members_and_threshold() {
        let manifests = [models(), vec![liveness("other", "1"), liveness("other", "2")]].concat();
        let ensembles = [pair("1", ["other/1", "live/1"]), pair("2", ["live/1", "other/2"])];
        let liveness = chosen(&manifests, &ensembles, &judged_by("pair/2")).unwrap().liveness;
        let expected =
            LivenessEnsemble { members: vec![0, 6], fusion: Fusion::Mean, score_min: 0.8 };
        assert_eq!(liveness, expected);
        let several = "several models fit 'pair', ask for one of: pair/1, pair/2";
        assert_eq!(message(&manifests, &ensembles, &judged_by("pair")), several);
    }

    #[test]
    fn a_member_that_cannot_be_had_is_named_with_its_ensemble() {
        let ensembles = [pair("1", ["live/1", "live/9"])];
        let absent = "ensemble pair/1 is refused: model 'live/9' is unknown";
        let said = message(&models(), &ensembles, &judged_by("pair"));
        assert!(said.starts_with(absent), "{said}");
        let ensembles = [pair("1", ["live/1", "det/1"])];
        let wrong = "ensemble pair/1 is refused: model det/1 is for face-detection";
        let said = message(&models(), &ensembles, &judged_by("pair"));
        assert!(said.starts_with(wrong), "{said}");
    }
}
