//! One value for each task that a live model has.

use crate::liveness::Fusion;
use crate::model::TaskKind;

/// One value for the live model of each [`TaskKind`].
#[derive(Debug, Clone, PartialEq)]
pub struct ByTask<T> {
    /// Of the model that finds faces.
    pub detector: T,
    /// Of the model that turns a face into a vector.
    pub embedder: T,
    /// Of the model that finds the points of a face.
    pub mesh: T,
    /// Of the model that finds the lids of an eye.
    pub iris: T,
    /// Of the models that tell a live face from a picture.
    pub liveness: LivenessEnsemble<T>,
}

/// One value for each model that tells a live face from a picture, and how they judge as one.
#[derive(Debug, Clone, PartialEq)]
pub struct LivenessEnsemble<T> {
    /// Of the models; at least one.
    pub members: Vec<T>,
    /// How their scores become one.
    pub fusion: Fusion,
    /// Least fused score of a live face.
    pub score_min: f64,
}

impl<T> ByTask<T> {
    /// Maps each value; the first error ends it.
    ///
    /// # Errors
    /// What `map` returns.
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

    /// The values, with the tasks in a fixed order.
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
