//! Containers with one value for each task of the live models.

use crate::liveness::Fusion;
use crate::model::TaskKind;

/// One value for the live model of each [`TaskKind`].
#[derive(Debug, Clone, PartialEq)]
pub struct ByTask<T> {
    /// Value of the face detector.
    pub detector: T,
    /// Value of the face embedder.
    pub embedder: T,
    /// Value of the face mesh model.
    pub mesh: T,
    /// Value of the iris model.
    pub iris: T,
    /// Values of the passive-liveness models.
    pub liveness: LivenessEnsemble<T>,
}

/// One value for each passive-liveness model, and how the models decide together.
#[derive(Debug, Clone, PartialEq)]
pub struct LivenessEnsemble<T> {
    /// Values of the models; at least one.
    pub members: Vec<T>,
    /// How the scores are fused into one.
    pub fusion: Fusion,
    /// Least fused score of a live face.
    pub score_min: f64,
}

impl<T> ByTask<T> {
    /// Applies `map` to each value, and stops at the first error.
    ///
    /// # Errors
    /// The first error of `map`.
    pub fn try_map<U, E>(
        self,
        mut map: impl FnMut(TaskKind, T) -> Result<U, E>,
    ) -> Result<ByTask<U>, E> {
        let LivenessEnsemble { members, fusion, score_min } = self.liveness;
        Ok(ByTask {
            detector: map(TaskKind::FaceDetection, self.detector)?,
            embedder: map(TaskKind::FaceEmbedding, self.embedder)?,
            mesh: map(TaskKind::FaceMesh, self.mesh)?,
            iris: map(TaskKind::Iris, self.iris)?,
            liveness: LivenessEnsemble {
                members: members
                    .into_iter()
                    .map(|member| map(TaskKind::PassiveLiveness, member))
                    .collect::<Result<_, _>>()?,
                fusion,
                score_min,
            },
        })
    }

    /// Iterates over the values with their tasks, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (TaskKind, &T)> {
        let single = [
            (TaskKind::FaceDetection, &self.detector),
            (TaskKind::FaceEmbedding, &self.embedder),
            (TaskKind::FaceMesh, &self.mesh),
            (TaskKind::Iris, &self.iris),
        ];
        let members =
            self.liveness.members.iter().map(|member| (TaskKind::PassiveLiveness, member));
        single.into_iter().chain(members)
    }
}
