//! What the services need models for.

use std::fmt;

use crate::model::Task;

/// A part that exactly one live model plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Finds faces.
    Detector,
    /// Turns an aligned face into a vector.
    Embedder,
    /// Tells a live face from a picture of one.
    Liveness,
}

/// One value for each [`Role`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByRole<T> {
    /// Of the model that finds faces.
    pub detector: T,
    /// Of the model that turns a face into a vector.
    pub embedder: T,
    /// Of the model that tells a live face from a picture.
    pub liveness: T,
}

impl Role {
    /// Whether a model for `task` can play this part.
    pub fn fits(self, task: &Task) -> bool {
        match self {
            Self::Detector => matches!(task, Task::FaceDetection(_)),
            Self::Embedder => matches!(task, Task::FaceEmbedding { .. }),
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
        Ok(ByRole {
            detector: map(Role::Detector, self.detector)?,
            embedder: map(Role::Embedder, self.embedder)?,
            liveness: map(Role::Liveness, self.liveness)?,
        })
    }

    /// The values, with the roles in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &T)> {
        [
            (Role::Detector, &self.detector),
            (Role::Embedder, &self.embedder),
            (Role::Liveness, &self.liveness),
        ]
        .into_iter()
    }
}

impl fmt::Display for Role {
    /// The task's name in manifests.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Detector => "face-detection",
            Self::Embedder => "face-embedding",
            Self::Liveness => "passive-liveness",
        })
    }
}
