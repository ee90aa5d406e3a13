//! In which order the rows of a request go through the networks.

use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::device::LoadedModel;
use crate::model::TaskKind;
use crate::scheduler::{LaneSettings, SchedulerSettings};

/// The lane of each live model. What comes later in a request goes first on the device: the rows
/// of the networks that look at a face come before the detector's, and those of the eyes that the
/// mesh finds before the mesh's.
pub fn lanes(settings: &SchedulerSettings, snapshot: &Snapshot) -> Vec<LaneSettings> {
    let lane = |(kind, model): (TaskKind, &Arc<LoadedModel>)| LaneSettings {
        model: Arc::clone(model),
        stage: stage(kind),
        rows_max: settings.lane_rows_max(),
        delay_max: settings.delay_max(),
    };
    snapshot.iter().map(lane).collect()
}

/// How far into a request the model runs, from 0.
fn stage(kind: TaskKind) -> u8 {
    match kind {
        TaskKind::FaceDetection => 0,
        TaskKind::FaceEmbedding | TaskKind::FaceMesh | TaskKind::PassiveLiveness => 1,
        TaskKind::Iris => 2,
    }
}
