//! Models on disk: `models/<name>/<version>/{model.toml, *.onnx, golden.safetensors}`. An ensemble
//! of models has only the file `models/<name>/<version>/ensemble.toml`.
//!
//! ```text
//! scan → Listing → Package::open (hashes hold, licence allows) → graph, golden → catalog
//! ```
//!
//! No network is written by hand. [`Manifest`] states the inputs and outputs of a network and its
//! measured accuracy; [`Golden`] pins the outputs. A missing, unknown or wrong key is refused with
//! the key and the reason, so a parsed manifest needs no further check.

mod ensemble;
mod error;
mod golden;
mod input;
mod listing;
mod manifest;
mod output;
mod package;
mod space;
mod task;
mod values;

pub use ensemble::Ensemble;
pub use error::ModelError;
pub use golden::{Golden, GoldenMismatch};
pub use input::{ColourOrder, CropRule, FillError, InputContract, Layout};
pub use listing::{Listing, ModelFolder, find, scan, scan_ensembles, scan_folder};
pub use manifest::Manifest;
pub use output::OutputSpec;
pub use package::{LicencePolicy, Package};
pub use space::space_id;
pub use task::{Decoder, Detection, Liveness, Task, TaskKind};
