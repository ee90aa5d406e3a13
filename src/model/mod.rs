//! Models on disk: `models/<name>/<version>/{model.toml, *.onnx, golden.safetensors}`, or
//! `models/<name>/<version>/ensemble.toml` for several of them that judge as one.
//!
//! ```text
//! scan → Listing → Package::open (hashes hold, licence allows) → graph, golden → catalog
//! ```
//!
//! No network is written by hand. [`Manifest`] states how a network is fed, what it answers and
//! what it was measured to be worth; [`Golden`] pins the answers. Whatever of this is missing,
//! unknown or wrong is refused by key and reason: a parsed manifest needs no further check.

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
