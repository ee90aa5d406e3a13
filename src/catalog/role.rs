//! What the services need models for.

use std::fmt;

use crate::liveness::Fusion;
use crate::model::Task;

/// A part that live models play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Finds faces.
    Detector,
    /// Turns an aligned face into a vector.
    Embedder,
    /// Finds the points of a face.
    Mesh,
    /// Finds the lids of an eye.
    Iris,
    /// Tells a live face from a picture of one; the one part that several models may play.
    Liveness,
}

/// One value for the model of each [`Role`].
#[derive(Debug, Clone, PartialEq)]
pub struct ByRole<T> {
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

impl Role {
    /// Whether a model for `task` can play this part.
    pub fn fits(self, task: &Task) -> bool {
        match self {
            Self::Detector => matches!(task, Task::FaceDetection(_)),
            Self::Embedder => matches!(task, Task::FaceEmbedding { .. }),
            Self::Mesh => matches!(task, Task::FaceMesh { .. }),
            Self::Iris => matches!(task, Task::Iris { .. }),
            Self::Liveness => matches!(task, Task::PassiveLiveness(_)),
        }
    }
}

impl<T> ByRole<T> {
    /// Maps each value; the first error ends it.
    ///
    /// # Errors
    /// What `map` returns.
    pub fn try_map<U, E>(
        self,
        mut map: impl FnMut(Role, T) -> Result<U, E>,
    ) -> Result<ByRole<U>, E> {
        let LivenessEnsemble { members, fusion, score_min } = self.liveness;
        Ok(ByRole {
            detector: map(Role::Detector, self.detector)?,
            embedder: map(Role::Embedder, self.embedder)?,
            mesh: map(Role::Mesh, self.mesh)?,
            iris: map(Role::Iris, self.iris)?,
            liveness: LivenessEnsemble {
                members: members
                    .into_iter()
                    .map(|member| map(Role::Liveness, member))
                    .collect::<Result<_, _>>()?,
                fusion,
                score_min,
            },
        })
    }

    /// The values, with the roles in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &T)> {
        let single = [
            (Role::Detector, &self.detector),
            (Role::Embedder, &self.embedder),
            (Role::Mesh, &self.mesh),
            (Role::Iris, &self.iris),
        ];
        let members = self.liveness.members.iter().map(|member| (Role::Liveness, member));
        single.into_iter().chain(members)
    }
}

impl fmt::Display for Role {
    /// The task's name in manifests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detector => "face-detection",
            Self::Embedder => "face-embedding",
            Self::Mesh => "face-mesh",
            Self::Iris => "iris",
            Self::Liveness => "passive-liveness",
        })
    }
}
