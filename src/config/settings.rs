//! Every setting, its default, and the range it must keep.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ConfigError, LivenessSettings, QualityLimits};

/// All settings of the server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Listeners, limits on requests, stopping.
    pub server: ServerSettings,
    /// Where networks run.
    pub device: DeviceSettings,
    /// Which models are live.
    pub models: ModelSettings,
    /// Queues and batches.
    pub scheduler: SchedulerSettings,
    /// Thresholds and calibration.
    pub verify: VerifySettings,
    /// Liveness sessions.
    pub liveness: LivenessSettings,
    /// Limits on pictures.
    pub image: ImageSettings,
    /// Quality limits per image source.
    pub quality: QualityLimits,
    /// Logs.
    pub log: LogSettings,
}

/// Listeners, limits on requests, stopping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// Address of the gRPC listener; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of the HTTP listener with `/metrics`, `/livez` and `/readyz`.
    pub http_listen: SocketAddr,
    /// Requests in flight; one more is refused with `RESOURCE_EXHAUSTED`.
    pub requests_max: usize,
    /// Bytes of request messages in flight.
    pub bytes_max: usize,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams_per_connection_max: u32,
    /// Deadline of a request that brings none, in milliseconds.
    pub timeout_default_ms: u64,
    /// Longest deadline a caller may ask for, in milliseconds.
    pub timeout_max_ms: u64,
    /// After SIGTERM: how long health says NOT_SERVING before the listener closes, in
    /// milliseconds, so that load balancers look away first.
    pub drain_grace_ms: u64,
    /// After the listener closed: how long requests in flight may take, in milliseconds.
    pub drain_timeout_ms: u64,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            requests_max: 256,
            bytes_max: 1 << 30,
            streams_per_connection_max: 256,
            timeout_default_ms: 30_000,
            timeout_max_ms: 120_000,
            drain_grace_ms: 0,
            drain_timeout_ms: 30_000,
        }
    }
}

impl ServerSettings {
    /// Deadline of a request that brings none.
    pub fn timeout_default(&self) -> Duration {
        Duration::from_millis(self.timeout_default_ms)
    }

    /// Longest deadline a caller may ask for.
    pub fn timeout_max(&self) -> Duration {
        Duration::from_millis(self.timeout_max_ms)
    }
}

/// Where networks run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceSettings {
    /// `cpu`, `auto` or `cuda:0,1`.
    pub device: String,
    /// Batches each device may hold: formed and running. 1 forms every batch at the last moment; 0
    /// takes 1 on the CPU and 2 on GPUs, which fetch the next batch while they compute.
    pub slots: usize,
    /// Threads that decode, resize and align; 0 takes one per core.
    pub cpu_pool_threads: usize,
    /// Threads that run networks on the CPU; 0 takes one per core.
    pub threads: usize,
    /// Instructions that networks use on the CPU: `auto`, `amx`, `avx512`, `avx2`, `neon` or `portable`.
    pub kernels: String,
    /// What all models are computed in: `f32`, `bf16` on the CPU, `tf32` or `f16` on GPUs. Left out, each
    /// manifest decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<String>,
    /// CUDA devices by the name of the model that is to run there and nowhere else, such as
    /// `sface = [0, 1]`. A model that is not listed runs on all devices.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub placement: BTreeMap<String, Vec<usize>>,
    /// How GPUs run networks.
    pub cuda: CudaSettings,
}

/// How GPUs run networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CudaSettings {
    /// Whether each batch size is captured as a CUDA graph once and replayed as a whole. Off, its
    /// steps are launched one by one, which is slower and easier to profile.
    pub graphs: bool,
}

impl Default for CudaSettings {
    fn default() -> Self {
        Self { graphs: true }
    }
}

impl Default for DeviceSettings {
    fn default() -> Self {
        Self {
            device: "cpu".to_owned(),
            slots: 0,
            cpu_pool_threads: 0,
            threads: 0,
            kernels: "auto".to_owned(),
            precision: None,
            cuda: CudaSettings::default(),
            placement: BTreeMap::new(),
        }
    }
}

/// Which models are live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// Folder with `<name>/<version>/model.toml` or `…/ensemble.toml`.
    pub dir: PathBuf,
    /// Face detection model, `name` or `name/version`.
    pub detector: String,
    /// Face embedding model.
    pub embedder: String,
    /// Face mesh model.
    pub mesh: String,
    /// Iris model.
    pub iris: String,
    /// Passive liveness model, or an ensemble of such models.
    pub liveness: String,
    /// Load models whose licence forbids commercial use.
    pub accept_noncommercial: bool,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("models"),
            detector: "yunet".to_owned(),
            embedder: "sface".to_owned(),
            mesh: "facemesh".to_owned(),
            iris: "iris".to_owned(),
            liveness: "fr_liveness".to_owned(),
            accept_noncommercial: false,
        }
    }
}

/// Queues and batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerSettings {
    /// Rows one lane may hold; a request whose row finds no place waits.
    pub lane_rows_max: usize,
    /// How long a batch that is not full may wait for more rows, in milliseconds. 0 is greedy.
    pub delay_max_ms: u64,
}

impl Default for SchedulerSettings {
    fn default() -> Self {
        // A row of the detector is 1.2 MB of pixels at side 640: 256 rows are 315 MB.
        Self { lane_rows_max: 256, delay_max_ms: 0 }
    }
}

/// Thresholds and calibration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VerifySettings {
    /// False-match rate to decide at when the request names none. 1e-4 is the level NIST
    /// SP 800-63A asks of identity proofing.
    pub policy_fmr: f64,
    /// Similarities that would pass at `review_factor × policy_fmr` go to a person. 1 turns the
    /// band off.
    pub review_factor: f64,
    /// Decide only on a calibration row measured on pairs of the request's own kind; the generic
    /// row then counts as none.
    pub own_pair_type_required: bool,
    /// Calibration file of this deployment; its rows go before the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<PathBuf>,
}

impl Default for VerifySettings {
    fn default() -> Self {
        Self {
            policy_fmr: 1e-4,
            review_factor: 10.0,
            own_pair_type_required: false,
            calibration: None,
        }
    }
}

/// Limits on pictures; all are read from the header before memory is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// Largest file in bytes.
    pub bytes_max: usize,
    /// Longest side in pixels.
    pub side_max: usize,
    /// Most pixels.
    pub pixels_max: usize,
    /// Live photographs in one `Verify`.
    pub live_photos_max: usize,
    /// Photographs that are in memory as pixels at one time; further ones wait as files. The
    /// largest that `pixels_max` allows takes 36 MiB.
    pub decoded_max: usize,
}

impl Default for ImageSettings {
    fn default() -> Self {
        // A 12-megapixel photograph of a phone is 4032 × 3024 and rarely over 6 MB.
        Self {
            bytes_max: 8 << 20,
            side_max: 4_096,
            pixels_max: 4_096 * 3_072,
            live_photos_max: 8,
            decoded_max: 64,
        }
    }
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// `auto` is `pretty` on a terminal and `json` elsewhere.
    pub format: LogFormat,
    /// A `tracing` filter such as `info` or `menshen=debug,info`.
    pub filter: String,
    /// Fraction (0..=1) of the answered and cancelled calls that get a line; all others get one.
    pub calls_sampled: f64,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned(), calls_sampled: 1.0 }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Most live photographs any deployment may allow in one request.
const LIVE_PHOTOS_MAX: usize = 32;

/// What a session sends beside the bytes of its portrait and its frames, at most: 64 KiB of
/// identifiers, and 100 bytes for each of 1350 frames.
pub const SESSION_ENVELOPE_BYTES_MAX: usize = 192 << 10;

impl Config {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting outside its range, with the rule it breaks.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        let image = &self.image;
        let verify = &self.verify;
        at_least_one("server.requests_max", server.requests_max)?;
        at_least_one("server.bytes_max", server.bytes_max)?;
        at_least_one("server.streams_per_connection_max", server.streams_per_connection_max)?;
        at_least_one("server.timeout_default_ms", server.timeout_default_ms)?;
        at_least_one("scheduler.lane_rows_max", self.scheduler.lane_rows_max)?;
        at_least_one("image.bytes_max", image.bytes_max)?;
        at_least_one("image.side_max", image.side_max)?;
        at_least_one("image.pixels_max", image.pixels_max)?;
        at_least_one("image.live_photos_max", image.live_photos_max)?;
        at_least_one("image.decoded_max", image.decoded_max)?;
        check(
            image.live_photos_max <= LIVE_PHOTOS_MAX,
            "image.live_photos_max",
            image.live_photos_max,
            "at most 32",
        )?;
        // Otherwise a large `Verify` would be told to try again for ever.
        check(
            server.bytes_max >= image.bytes_max.saturating_mul(1 + image.live_photos_max),
            "server.bytes_max",
            server.bytes_max,
            "at least image.bytes_max for the portrait and each of image.live_photos_max",
        )?;
        // A session that keeps its own limit must not be told so either.
        let session = image.bytes_max.saturating_add(self.liveness.session_bytes_max);
        check(
            server.bytes_max >= session.saturating_add(SESSION_ENVELOPE_BYTES_MAX),
            "server.bytes_max",
            server.bytes_max,
            "at least image.bytes_max and liveness.session_bytes_max together, and 192 KiB more",
        )?;
        check(
            server.timeout_max_ms >= server.timeout_default_ms,
            "server.timeout_max_ms",
            server.timeout_max_ms,
            "at least server.timeout_default_ms",
        )?;
        check(
            verify.policy_fmr > 0.0 && verify.policy_fmr < 1.0,
            "verify.policy_fmr",
            verify.policy_fmr,
            "between 0 and 1",
        )?;
        check(
            (1.0..=1000.0).contains(&verify.review_factor),
            "verify.review_factor",
            verify.review_factor,
            "from 1 to 1000",
        )?;
        check(
            (0.0..=1.0).contains(&self.log.calls_sampled),
            "log.calls_sampled",
            self.log.calls_sampled,
            "from 0 to 1",
        )?;
        self.liveness.validate()
    }
}

pub(super) fn at_least_one<N>(key: &'static str, value: N) -> Result<(), ConfigError>
where
    N: PartialOrd + From<u8> + ToString,
{
    check(value >= N::from(1), key, value, "at least 1")
}

pub(super) fn check(
    holds: bool,
    key: &'static str,
    value: impl ToString,
    must: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Range { key, value: value.to_string(), must }) }
}
