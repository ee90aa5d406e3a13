//! Models and machines for tests: a manifest without files, networks that are closures, and
//! machines that stop where a test tells them to.
//!
//! The machines follow one metaphor. A staged machine reports what it does to its [`Director`], and
//! the director tells it the next step.

use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use candle_core::Tensor;

use super::cpu::{CpuMachine, CpuSpec};
use super::device_set::DEVICES_MAX;
use super::loaded::ModelKey;
use super::machine::{Machine, StartedBatch};
use super::spec::MachineSpec;
use super::watchdog::Timeouts;
use super::worker::DeviceThread;
use super::{
    DeviceDescription, DeviceError, DeviceGroup, DevicePlan, DeviceSet, DeviceSettings,
    LoadedModel, Loss, RowOutput,
};
use crate::engine::Precision;
use crate::engine::cpu::{KernelChoice, SelectError};
use crate::image::RgbImage;
use crate::model::{Manifest, Package};

/// Manifest of an embedder with 112×112 pixels as input, without scaling. Its one output is one
/// value.
const EMBEDDER: &str = r#"
name = "tiny"
version = "1"
task = "face-embedding"
file = "tiny.onnx"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
licence = "MIT"
precision = "f32"
buckets = [1]

[origin]
package = "none"
version = "1"
path = "none"
upstream = "this test"
training_data = "none"

[input]
tensor = "x"
width = 112
height = 112
layout = "nchw"
colour = "rgb"
mean = [0.0, 0.0, 0.0]
scale = [1.0, 1.0, 1.0]
crop = { rule = "align", template = "arcface112" }

[[outputs]]
tensor = "y"
shape = [1]
meaning = "embedding"

[golden]
file = "golden.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
tolerance = { kind = "cosine", limit = 0.9999 }
"#;

/// Grey value that makes [`grey_network`] panic.
pub(crate) const PANICS: u8 = 13;

/// Grey value that makes [`grey_network`] output an infinite value.
pub(crate) const OVERFLOWS: u8 = 14;

/// Returns the manifest of a tiny embedder.
pub(crate) fn manifest(name: &str, version: &str, buckets: &[usize]) -> Manifest {
    let manifest = Manifest::parse(EMBEDDER).expect("the text is a manifest");
    let (name, version) = (name.to_owned(), version.to_owned());
    Manifest { name, version, buckets: buckets.to_vec(), ..manifest }
}

/// Returns a set with every device of any group.
pub(crate) fn all_devices() -> DeviceSet {
    DeviceSet::of(0..DEVICES_MAX)
}

/// Returns a row in which every pixel has the grey value `value`.
pub(crate) fn grey(value: u8) -> RgbImage {
    let mut image = RgbImage::black(112, 112);
    image.pixels_mut().fill(value);
    image
}

/// Returns a model that outputs the grey value of each row.
pub(crate) fn reader(name: &str, buckets: &[usize]) -> Arc<LoadedModel> {
    reader_on(name, buckets, all_devices())
}

/// Returns a [`reader`] with a placement.
pub(crate) fn reader_on(name: &str, buckets: &[usize], on: DeviceSet) -> Arc<LoadedModel> {
    let manifest = manifest(name, "1", buckets);
    Arc::new(LoadedModel::with_test_network(manifest, on, Box::new(grey_network)))
}

/// Returns a [`reader`] that waits at a gate before each run.
pub(crate) fn gated(name: &str, buckets: &[usize]) -> (Arc<LoadedModel>, Gate) {
    let (enter, entered) = tokio::sync::mpsc::channel(64);
    let (open, opened) = mpsc::channel();
    let opened = parking_lot::Mutex::new(opened);
    let run = move |input: &Tensor| {
        let rows = grey_values(input)?;
        enter.try_send(rows).expect("the test looks at what enters");
        opened.lock().recv().expect("the test opens the gate");
        grey_network(input)
    };
    let manifest = manifest(name, "1", buckets);
    let model = LoadedModel::with_test_network(manifest, all_devices(), Box::new(run));
    (Arc::new(model), Gate { entered, open })
}

/// The gate of a [`gated`] model. Dropping the gate makes the waiting run panic.
pub(crate) struct Gate {
    entered: tokio::sync::mpsc::Receiver<Vec<u8>>,
    open: mpsc::Sender<()>,
}

impl Gate {
    /// Waits until a batch is at the gate, and returns the grey values of its rows, with 0 for
    /// padding.
    pub(crate) async fn entered(&mut self) -> Vec<u8> {
        self.entered.recv().await.expect("the model is alive")
    }

    /// Lets one batch pass: the one at the gate, or else the next one.
    pub(crate) fn open(&self) {
        self.open.send(()).expect("the model is alive");
    }

    /// Returns whether no further batch has reached the gate.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.entered.try_recv().is_err()
    }
}

/// A network that outputs the grey value of each row, except for [`PANICS`] and [`OVERFLOWS`].
pub(crate) fn grey_network(input: &Tensor) -> Result<Vec<Tensor>, DeviceError> {
    let values = grey_values(input)?;
    assert!(!values.contains(&PANICS), "a bug in a network");
    let answer = |value: u8| if value == OVERFLOWS { f32::INFINITY } else { f32::from(value) };
    let answers: Vec<f32> = values.into_iter().map(answer).collect();
    let count = answers.len();
    Ok(vec![Tensor::from_vec(answers, (count, 1), input.device())?])
}

fn grey_values(input: &Tensor) -> Result<Vec<u8>, DeviceError> {
    let first = input.flatten_from(1)?.narrow(1, 0, 1)?.flatten_all()?.to_vec1::<f32>()?;
    Ok(first.into_iter().map(|value| value as u8).collect())
}

/// A staged machine that is not open yet. It computes as the CPU does and reports to a
/// [`Director`].
pub(super) struct Stage {
    name: String,
    reports: tokio::sync::mpsc::Sender<Report>,
    steps: mpsc::Receiver<Step>,
    /// Whether the machine stops before it opens, without a report.
    pub(super) stops_before_opening: bool,
}

/// A report of a staged machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// The machine started rows of these grey values, and continues.
    Started(Vec<u8>),
    /// The machine stops before it finishes the oldest batch.
    Finishing,
    /// The machine stops before it is reopened.
    Reopening,
    /// The machine freed the network of a model, and continues.
    Freed,
}

/// The next step of a staged machine that has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Continue.
    Go,
    /// Fail with a loss.
    Lose,
}

/// An open staged machine.
struct StagedMachine {
    name: String,
    reports: tokio::sync::mpsc::Sender<Report>,
    steps: mpsc::Receiver<Step>,
    cpu: CpuMachine,
}

/// The test's control of a staged machine. Once it is dropped, the machine no longer stops.
pub(crate) struct Director {
    reports: tokio::sync::mpsc::Receiver<Report>,
    steps: mpsc::Sender<Step>,
}

/// Opens a group of staged machines `cuda:0`, `cuda:1`, … A lost machine is reopened at most twice.
pub(crate) async fn staged(count: usize, settings: DeviceSettings) -> (DeviceGroup, Vec<Director>) {
    let timeouts = Timeouts { reopen_delays: vec![Duration::ZERO; 2], ..Timeouts::default() };
    staged_with_timeouts(count, settings, &timeouts).await
}

/// Opens a group of [`staged`] machines with these timeouts.
pub(super) async fn staged_with_timeouts(
    count: usize,
    settings: DeviceSettings,
    timeouts: &Timeouts,
) -> (DeviceGroup, Vec<Director>) {
    let (stages, directors): (Vec<_>, Vec<_>) = (0..count).map(Stage::new).unzip();
    let spec = |stage: Stage| -> Box<dyn MachineSpec> { Box::new(stage) };
    let machines = stages.into_iter().map(spec).collect();
    (
        DevicePlan::from_machines(machines, &settings)
            .expect("the plan is valid")
            .open_with_timeouts(timeouts)
            .await
            .expect("it opens"),
        directors,
    )
}

impl Stage {
    pub(super) fn new(number: usize) -> (Self, Director) {
        let (report_sender, reports) = tokio::sync::mpsc::channel(64);
        let (step_sender, steps) = mpsc::channel();
        let name = format!("cuda:{number}");
        let stage = Self { name, reports: report_sender, steps, stops_before_opening: false };
        (stage, Director { reports, steps: step_sender })
    }

    fn open(self) -> Result<(StagedMachine, DeviceDescription), DeviceError> {
        let Self { name, reports, steps, stops_before_opening } = self;
        if stops_before_opening {
            // Returns an error, and the machine continues, once the director is dropped.
            steps.recv().ok();
        }
        let chosen = "staged".to_owned();
        let cpu = CpuSpec { threads: 1, kernels: KernelChoice::Auto, chosen };
        let (cpu, description) = cpu.open()?;
        let description = DeviceDescription { name: name.clone(), ..description };
        Ok((StagedMachine { name, reports, steps, cpu }, description))
    }
}

impl MachineSpec for Stage {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cuda_number(&self) -> Option<usize> {
        self.name.strip_prefix("cuda:")?.parse().ok()
    }

    fn check(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn check_precision(&self, _: Precision) -> Result<(), SelectError> {
        Ok(())
    }

    fn can_hang(&self) -> bool {
        true
    }

    fn default_slots(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn run(self: Box<Self>, thread: DeviceThread) {
        thread.run(|_| self.open());
    }
}

impl Machine for StagedMachine {
    /// The outputs, which are computed when the batch is started.
    type Running = Result<Vec<RowOutput>, DeviceError>;

    fn load(&mut self, model: &LoadedModel, package: &Package) -> Result<(), DeviceError> {
        self.cpu.load(model, package)
    }

    fn unload(&mut self, key: ModelKey) {
        self.cpu.unload(key);
        if key != ModelKey::Trial {
            self.report(Report::Freed);
        }
    }

    fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> StartedBatch<Self::Running> {
        let outputs = self.cpu.run(model, rows, bucket);
        self.report(Report::Started(rows.iter().map(|row| row.pixels()[0]).collect()));
        StartedBatch::Running(outputs)
    }

    fn has_run(&self, _: &Self::Running) -> bool {
        true
    }

    fn finish(&mut self, outputs: Self::Running) -> Result<Vec<RowOutput>, DeviceError> {
        self.wait_for_step(Report::Finishing)?;
        outputs
    }

    fn reopen(&mut self) -> Result<(), DeviceError> {
        self.wait_for_step(Report::Reopening)?;
        self.cpu.reopen()
    }

    fn bucket_tolerance(&self, precision: Precision) -> f32 {
        self.cpu.bucket_tolerance(precision)
    }
}

impl StagedMachine {
    fn wait_for_step(&mut self, at: Report) -> Result<(), DeviceError> {
        self.report(at);
        match self.steps.recv() {
            Ok(Step::Lose) => {
                let source = Arc::new(std::io::Error::other("an illegal address"));
                Err(DeviceError::Lost(Loss { device: self.name.clone(), source }))
            }
            Ok(Step::Go) | Err(_) => Ok(()),
        }
    }

    fn report(&self, report: Report) {
        // A test that reads no more reports has dropped its end.
        drop(self.reports.try_send(report));
    }
}

impl Director {
    /// Waits for the next report of the machine.
    pub(crate) async fn report(&mut self) -> Report {
        self.reports.recv().await.expect("the machine is open")
    }

    /// Returns whether there is no further report.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.reports.try_recv().is_err()
    }

    /// Sends the step that the machine takes at its current or next stop.
    pub(crate) fn send(&self, step: Step) {
        self.steps.send(step).expect("the machine is open");
    }

    /// Sends a step at each of the next stops, after checking that the machine reports that stop.
    pub(crate) async fn direct(&mut self, stops: impl IntoIterator<Item = (Report, Step)>) {
        for (stop, step) in stops {
            assert_eq!(self.report().await, stop);
            self.send(step);
        }
    }
}
