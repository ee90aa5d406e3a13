//! The priority of the networks' rows on a device.

use std::sync::Arc;

use crate::catalog::Snapshot;
use crate::device::LoadedModel;
use crate::model::TaskKind;
use crate::scheduler::{LaneSettings, SchedulerSettings};

/// Returns the lane of each live model. Rows of a higher priority run first on the device: the
/// rows of the networks that take a face before the detector's rows, and the iris network's rows
/// before the mesh network's.
pub fn lanes(settings: &SchedulerSettings, snapshot: &Snapshot) -> Vec<LaneSettings> {
    let lane = |(kind, model): (TaskKind, &Arc<LoadedModel>)| LaneSettings {
        model: Arc::clone(model),
        priority: priority(kind),
        rows_max: settings.lane_rows_max(),
        delay_max: settings.delay_max(),
    };
    snapshot.iter().map(lane).collect()
}

/// Returns how late in a request the model runs, from 0.
fn priority(task: TaskKind) -> u8 {
    match task {
        TaskKind::FaceDetection => 0,
        TaskKind::FaceEmbedding | TaskKind::FaceMesh | TaskKind::PassiveLiveness => 1,
        TaskKind::Iris => 2,
    }
}
