//! Why a run cannot be made.

use std::path::PathBuf;

use super::CallKind;

/// Why a run cannot be made. A call that fails is no such error: it is part of the result.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A call that does not exist.
    #[error("'{name}' is no call, there are: {known}")]
    UnknownCall {
        /// What was given.
        name: String,
        /// The names of all calls.
        known: String,
    },
    /// A weight that is not a number above zero.
    #[error("the weight of '{part}' must be from 0.000001 to 1000000")]
    Weight {
        /// The part of the mix.
        part: String,
    },
    /// A call that occurs twice in a mix.
    #[error("'{kind}' occurs twice in the mix")]
    RepeatedCall {
        /// The call.
        kind: CallKind,
    },
    /// A condition that cannot be read.
    #[error("'{condition}' is no condition such as p99<150ms, error<0.1% or verify.p50<50ms")]
    Condition {
        /// What was given.
        condition: String,
    },
    /// A condition on a kind of call that is not in the mix.
    #[error("the condition '{condition}' is on a call that is not in the mix")]
    ConditionKind {
        /// What was given.
        condition: String,
    },
    /// A file or folder that cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A line of a trace file that is not a time.
    #[error("{}, line {line}: no seconds, or fewer than the line before", path.display())]
    Trace {
        /// The trace file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
    },
    /// A folder without pictures.
    #[error("{} holds no .jpg, .jpeg or .png file", path.display())]
    NoPictures {
        /// The folder.
        path: PathBuf,
    },
    /// More bytes of pictures than the generator keeps in memory.
    #[error("the pictures in {} are larger than {limit} bytes together", path.display())]
    PictureBytes {
        /// The folder.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A folder of frames whose files are not all JPEG.
    #[error("{} is no JPEG file", path.display())]
    NoJpeg {
        /// The file.
        path: PathBuf,
    },
    /// A value that is out of range.
    #[error("{name} is {value}, it must be {range}")]
    Range {
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// An address that is none.
    #[error("'{address}' is no address such as 127.0.0.1:50051 or http://host:50051")]
    Address {
        /// What was given.
        address: String,
    },
    /// No server answers.
    #[error("no server answers at {address}: {reason}")]
    Connect {
        /// The address.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The metrics of the server cannot be read.
    #[error("cannot read the metrics at {address}: {reason}")]
    Metrics {
        /// The address of the HTTP listener.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread of the load generator")]
    Thread(#[source] std::io::Error),
    /// A histogram cannot be written.
    #[error("cannot encode a histogram: {0}")]
    Histogram(String),
    /// A rate so low that the server already misses the objective at the first trial.
    #[error("the objective is already missed at {rate} calls a second, the rate to start from")]
    MissedAtStart {
        /// Calls a second.
        rate: f64,
    },
    /// A search that found no rate that the server cannot sustain.
    #[error("the objective still holds at {rate} calls a second, the highest rate to try")]
    NeverSaturated {
        /// Calls a second.
        rate: f64,
    },
    /// A search that does not come to an end, since equal trials end differently.
    #[error("after {trials} trials the search has not ended, at {rate} calls a second")]
    TooManyTrials {
        /// Number of trials.
        trials: usize,
        /// Calls a second of the last one.
        rate: f64,
    },
    /// A search whose generator was too slow to judge the server.
    #[error("at {rate} calls a second the generator itself was late: {reason}")]
    GeneratorLate {
        /// Calls a second.
        rate: f64,
        /// What made the trial invalid.
        reason: String,
    },
}
