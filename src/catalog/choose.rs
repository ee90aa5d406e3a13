//! Chooses the model on disk for each task. Pure: takes manifests and returns indices.

use super::{CatalogError, LivenessEnsemble};
use crate::liveness::Fusion;
use crate::model::{Ensemble, Manifest, Task, TaskKind};

/// Returns the index in `manifests` of the model called `asked`, a `name` or `name/version`.
///
/// # Errors
/// [`CatalogError`] names the requested model and the models on disk.
pub fn choose_model(
    manifests: &[&Manifest],
    kind: TaskKind,
    asked: &str,
) -> Result<usize, CatalogError> {
    let fitting = manifests.iter().enumerate().filter(|(_, manifest)| is_called(manifest, asked));
    let indices: Vec<usize> = fitting.map(|(index, _)| index).collect();
    match indices[..] {
        [] => Err(unknown_model(asked, manifests.iter().map(|manifest| manifest.id()))),
        [index] if manifests[index].task.kind() == kind => Ok(index),
        [index] => Err(wrong_task(manifests[index], kind)),
        [..] => {
            let candidates: Vec<String> =
                indices.iter().map(|index| manifests[*index].id()).collect();
            let (asked, candidates) = (asked.to_owned(), candidates.join(", "));
            Err(CatalogError::Several { asked, candidates })
        }
    }
}

/// Returns the indices in `manifests` of the passive-liveness models: of the single model called
/// `asked`, or of the members of the ensemble called `asked`.
///
/// # Errors
/// [`CatalogError`] names the requested model and the models on disk.
pub fn choose_liveness(
    manifests: &[&Manifest],
    ensembles: &[Ensemble],
    asked: &str,
) -> Result<LivenessEnsemble<usize>, CatalogError> {
    match find_ensemble(manifests, ensembles, asked)? {
        Some(ensemble) => choose_members(manifests, ensemble),
        None => single_model(manifests, choose_model(manifests, TaskKind::PassiveLiveness, asked)?),
    }
}

/// Returns the ensemble called `asked`, or `None` if a model has that name.
///
/// # Errors
/// Nothing has that name, or more than one model or ensemble has it.
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
            Err(unknown_model(asked, models.chain(ensembles.iter().map(Ensemble::id))))
        }
        (1, Some(ensemble)) => Ok(Some(ensemble)),
        (_, None) => Ok(None),
        (_, Some(_)) => {
            Err(CatalogError::Several { asked: asked.to_owned(), candidates: ids.join(", ") })
        }
    }
}

/// Returns the indices in `manifests` of the members of an ensemble.
///
/// # Errors
/// [`CatalogError::Member`] for a member that is not on disk or has another task.
pub fn choose_members(
    manifests: &[&Manifest],
    ensemble: &Ensemble,
) -> Result<LivenessEnsemble<usize>, CatalogError> {
    let member = |asked: &String| choose_model(manifests, TaskKind::PassiveLiveness, asked);
    let members = ensemble.members.iter().map(member).collect::<Result<_, _>>();
    let members = members.map_err(|source| CatalogError::Member {
        ensemble: ensemble.id(),
        source: Box::new(source),
    })?;
    let (fusion, score_min) = (ensemble.fusion, ensemble.score_min);
    Ok(LivenessEnsemble { members, fusion, score_min })
}

/// Returns an ensemble of one model, with the threshold of that model. Every fusion of a single
/// score gives that score.
fn single_model(
    manifests: &[&Manifest],
    index: usize,
) -> Result<LivenessEnsemble<usize>, CatalogError> {
    let Task::PassiveLiveness(liveness) = &manifests[index].task else {
        return Err(wrong_task(manifests[index], TaskKind::PassiveLiveness));
    };
    let score_min = liveness.score_min;
    Ok(LivenessEnsemble { members: vec![index], fusion: Fusion::Min, score_min })
}

/// Returns true if `asked` is the `name` or the `name/version` of the model.
pub(super) fn is_called(manifest: &Manifest, asked: &str) -> bool {
    asked == manifest.name || asked == manifest.id()
}

pub(super) fn unknown_model(asked: &str, known: impl Iterator<Item = String>) -> CatalogError {
    let known: Vec<String> = known.collect();
    CatalogError::Unknown { asked: asked.to_owned(), known: known.join(", ") }
}

pub(super) fn wrong_task(manifest: &Manifest, wanted: TaskKind) -> CatalogError {
    let (model, task) = (manifest.id(), manifest.task.kind());
    CatalogError::WrongTask { model, task, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fixture::{detector, embedder, iris, liveness, mesh};
    use crate::telemetry::causes;

    /// One model for each task.
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

    fn model(manifests: &[Manifest], kind: TaskKind, asked: &str) -> Result<usize, String> {
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        choose_model(&manifests, kind, asked).map_err(|error| causes(&error))
    }

    fn judged_by(
        manifests: &[Manifest],
        ensembles: &[Ensemble],
        asked: &str,
    ) -> Result<LivenessEnsemble<usize>, String> {
        let manifests: Vec<&Manifest> = manifests.iter().collect();
        choose_liveness(&manifests, ensembles, asked).map_err(|error| causes(&error))
    }

    #[test]
    fn every_task_is_done_by_the_model_of_its_name() {
        let tasks = [
            (TaskKind::FaceDetection, "det", 1),
            (TaskKind::FaceEmbedding, "emb/1", 2),
            (TaskKind::FaceMesh, "mesh", 3),
            (TaskKind::Iris, "iris", 4),
        ];
        for (kind, asked, index) in tasks {
            assert_eq!(model(&models(), kind, asked), Ok(index), "{asked}");
        }
        let expected = LivenessEnsemble { members: vec![0], fusion: Fusion::Min, score_min: 0.5 };
        let unasked = [pair("1", ["live/1", "live/2"])];
        assert_eq!(judged_by(&models(), &unasked, "live"), Ok(expected));
    }

    #[test]
    fn a_version_is_chosen_by_its_full_name() {
        let manifests = [models(), vec![embedder("emb", "2")]].concat();
        assert_eq!(model(&manifests, TaskKind::FaceEmbedding, "emb/2"), Ok(5));
        let several = "several models fit 'emb', ask for one of: emb/1, emb/2";
        assert_eq!(model(&manifests, TaskKind::FaceEmbedding, "emb").unwrap_err(), several);
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name_and_reason() {
        let manifests = [detector("det", "1"), embedder("emb", "1")];
        let unknown = "model 'emb/9' is unknown, there are: det/1, emb/1";
        assert_eq!(model(&manifests, TaskKind::FaceEmbedding, "emb/9").unwrap_err(), unknown);
        let wrong = "model det/1 is for face-detection, face-embedding was asked for";
        assert_eq!(model(&manifests, TaskKind::FaceEmbedding, "det").unwrap_err(), wrong);
        let wrong = "model det/1 is for face-detection, passive-liveness was asked for";
        assert_eq!(judged_by(&manifests, &[], "det").unwrap_err(), wrong);
        let unknown = "model 'pair/2' is unknown, there are: det/1, emb/1, pair/1";
        let ensembles = [pair("1", ["live/1", "other/1"])];
        assert_eq!(judged_by(&manifests, &ensembles, "pair/2").unwrap_err(), unknown);
    }

    #[test]
    fn an_ensemble_is_asked_for_like_a_model_and_brings_its_members_and_threshold() {
        let manifests = [models(), vec![liveness("other", "1"), liveness("other", "2")]].concat();
        let ensembles = [pair("1", ["other/1", "live/1"]), pair("2", ["live/1", "other/2"])];
        let expected =
            LivenessEnsemble { members: vec![0, 6], fusion: Fusion::Mean, score_min: 0.8 };
        assert_eq!(judged_by(&manifests, &ensembles, "pair/2"), Ok(expected));
        let several = "several models fit 'pair', ask for one of: pair/1, pair/2";
        assert_eq!(judged_by(&manifests, &ensembles, "pair").unwrap_err(), several);
    }

    #[test]
    fn a_member_that_cannot_be_had_is_named_with_its_ensemble() {
        let ensembles = [pair("1", ["live/1", "live/9"])];
        let absent = "ensemble pair/1 is refused: model 'live/9' is unknown";
        let said = judged_by(&models(), &ensembles, "pair").unwrap_err();
        assert!(said.starts_with(absent), "{said}");
        let ensembles = [pair("1", ["live/1", "det/1"])];
        let wrong = "ensemble pair/1 is refused: model det/1 is for face-detection";
        let said = judged_by(&models(), &ensembles, "pair").unwrap_err();
        assert!(said.starts_with(wrong), "{said}");
    }
}
