//! One thread per device. It alone opens the device, and everything that runs on it runs there.
//!
//! ```text
//! reserve → Slot → launch(Batch) → inbox → thread: stage, run, split → BatchOutcome
//! ```
//!
//! Whatever is in the inbox holds a slot, so the inbox is as long as there are slots, and a slot is
//! free again when its work is done. Who forms batches reserves first and forms then: the batch is
//! as full as the queue is at the last moment.

mod choice;
mod compare;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod load;
mod loaded;
mod run;

use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::config::DeviceSettings;
use crate::engine::Precision;
use crate::engine::cpu::{Crew, KernelChoice};
use crate::model::Package;

pub use choice::{DeviceChoice, DeviceDescription};
pub use compare::{CompareError, OutputComparison, compare};
pub use error::DeviceError;
pub use loaded::{LoadTiming, LoadedModel, RowOutput, RunNetwork};
pub use run::{Batch, BatchOutcome};

use run::Runner;

/// What to open, and how to run networks on it.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Which device.
    pub choice: DeviceChoice,
    /// How many batches may be launched and not finished. One makes every batch form at the last
    /// moment; two keep a device busy whose host takes long between batches.
    pub slots: NonZeroUsize,
    /// How the CPU runs networks.
    pub cpu: CpuOptions,
}

/// How the CPU runs networks.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuOptions {
    /// Threads; `None` takes one per core.
    pub threads: Option<NonZeroUsize>,
    /// Instructions to use.
    pub kernels: KernelChoice,
    /// What all models are computed in; `None` leaves it to each manifest.
    pub precision: Option<Precision>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        let (choice, slots) = (DeviceChoice::Cpu, NonZeroUsize::MIN);
        Self { choice, slots, cpu: CpuOptions::default() }
    }
}

/// Most threads that run networks; the largest machines have 512 cores.
const THREADS_MAX: usize = 1024;

impl DeviceOptions {
    /// What the settings ask for.
    ///
    /// # Errors
    /// A setting that names nothing known.
    pub fn of(settings: &DeviceSettings) -> Result<Self, DeviceError> {
        if settings.threads > THREADS_MAX {
            return Err(DeviceError::Threads { given: settings.threads, max: THREADS_MAX });
        }
        Ok(Self {
            choice: settings.device.parse()?,
            slots: NonZeroUsize::new(settings.slots).unwrap_or(NonZeroUsize::MIN),
            cpu: CpuOptions {
                threads: NonZeroUsize::new(settings.threads),
                kernels: settings.kernels.parse()?,
                precision: settings.precision.as_deref().map(str::parse).transpose()?,
            },
        })
    }
}

impl CpuOptions {
    fn threads(&self) -> usize {
        let cores = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(cores).get()
    }
}

/// An open device.
///
/// Dropping it finishes what was launched and then ends the thread; the drop waits for that, which
/// takes at most one batch per slot.
pub struct Device {
    description: DeviceDescription,
    slots: Arc<Semaphore>,
    /// `None` only while dropping: closing the inbox ends the thread.
    inbox: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

/// A place in a device's inbox, free again when its batch has finished or when it is dropped.
#[derive(Debug)]
pub struct Slot<'device> {
    device: &'device Device,
    permit: OwnedSemaphorePermit,
}

/// What a device's thread is asked to do. The permit is the slot it holds.
enum Work {
    Load {
        package: Box<Package>,
        reply: oneshot::Sender<Result<LoadedModel, DeviceError>>,
        permit: OwnedSemaphorePermit,
    },
    Run {
        batch: Batch,
        reply: oneshot::Sender<BatchOutcome>,
        permit: OwnedSemaphorePermit,
    },
}

impl Device {
    /// Opens a device and starts its threads.
    ///
    /// # Errors
    /// [`DeviceError::CudaNotBuilt`], [`DeviceError::Kernels`] or [`DeviceError::Thread`].
    pub fn open(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let DeviceOptions { choice, slots, cpu } = options;
        let threads = cpu.threads();
        let description = choice.resolve(cpu.kernels, threads)?;
        let crew = Arc::new(Crew::new(threads).map_err(DeviceError::Thread)?);
        let runner = Runner::new(crew, *cpu);
        let (inbox, work) = sync_channel(slots.get());
        let thread = thread::Builder::new()
            .name(format!("device-{}", description.name))
            .spawn(move || serve(runner, &work))
            .map_err(DeviceError::Thread)?;
        let slots = Arc::new(Semaphore::new(slots.get()));
        Ok(Self { description, slots, inbox: Some(inbox), thread: Some(thread) })
    }

    /// What the device is and how it came to be chosen.
    pub fn describe(&self) -> &DeviceDescription {
        &self.description
    }

    /// Loads a model: builds the network, checks its golden alone and in a larger bucket, and warms
    /// every bucket. It takes a slot, so batches wait meanwhile.
    ///
    /// # Errors
    /// [`DeviceError`] names the model and what it fails.
    pub async fn load(&self, package: Package) -> Result<Arc<LoadedModel>, DeviceError> {
        let Slot { permit, .. } = self.reserve().await?;
        let (reply, loaded) = oneshot::channel();
        self.send(Work::Load { package: Box::new(package), reply, permit });
        let model = loaded.await.map_err(|_| DeviceError::Stopped)??;
        Ok(Arc::new(model))
    }

    /// Waits for a free slot.
    ///
    /// # Errors
    /// [`DeviceError::Stopped`] when the thread has ended.
    pub async fn reserve(&self) -> Result<Slot<'_>, DeviceError> {
        let permit = Arc::clone(&self.slots).acquire_owned().await;
        let permit = permit.map_err(|_| DeviceError::Stopped)?;
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(DeviceError::Stopped);
        }
        Ok(Slot { device: self, permit })
    }

    /// Never waits, because whoever sends holds one of the inbox's places. Work for a thread that
    /// has ended is dropped, and with it its reply channel.
    fn send(&self, work: Work) {
        if let Some(inbox) = &self.inbox {
            drop(inbox.try_send(work));
        }
    }
}

impl Slot<'_> {
    /// Hands the batch to the device. The outcome comes when it has run, with one result per row;
    /// the channel closes without one only when the device's thread has ended.
    pub fn launch(self, batch: Batch) -> oneshot::Receiver<BatchOutcome> {
        let (reply, outcome) = oneshot::channel();
        self.device.send(Work::Run { batch, reply, permit: self.permit });
        outcome
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // Panics of networks are caught on the thread; one of its own has been reported there.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Device").field(&self.description.name).finish()
    }
}

/// The device's thread: runs what comes until the inbox is closed and empty.
fn serve(runner: Runner, work: &Receiver<Work>) {
    for work in work {
        match work {
            Work::Load { package, reply, permit } => {
                let load = AssertUnwindSafe(|| load::load(&runner, *package));
                let model = catch_unwind(load).unwrap_or(Err(DeviceError::Panicked));
                drop(permit);
                // Who asked may have left; then the model is not needed.
                drop(reply.send(model));
            }
            Work::Run { batch, reply, permit } => {
                let outcome = runner.run(&batch);
                // First, so that the next batch is formed while this one's rows are wiped.
                drop(permit);
                // Who launched may have left; then the outputs are wiped here.
                drop(reply.send(outcome));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixture::{OVERFLOWS, PANICS, gated, grey, reader};
    use super::*;
    use crate::image::RgbImage;

    fn open(slots: usize) -> Device {
        let slots = slots.try_into().unwrap();
        Device::open(&DeviceOptions { slots, ..DeviceOptions::default() }).unwrap()
    }

    fn batch(model: &Arc<LoadedModel>, values: &[u8], bucket: usize) -> Batch {
        let rows = values.iter().copied().map(grey).collect();
        Batch { model: Arc::clone(model), rows, bucket }
    }

    async fn run(device: &Device, batch: Batch) -> BatchOutcome {
        device.reserve().await.unwrap().launch(batch).await.unwrap()
    }

    fn values(outcome: &BatchOutcome) -> Vec<Option<f32>> {
        let value = |row: &RowOutput| row.slices()[0][0];
        outcome.rows.iter().map(|row| row.as_ref().ok().map(value)).collect()
    }

    #[test]
    fn more_threads_than_any_machine_has_cores_are_refused() {
        let settings = DeviceSettings { threads: 1025, ..DeviceSettings::default() };
        let error = DeviceOptions::of(&settings).unwrap_err();
        assert_eq!(error.to_string(), "device.threads is 1025, at most 1024 are allowed");
    }

    #[tokio::test]
    async fn a_batch_answers_each_row_in_order_without_the_padding() {
        let (device, model) = (open(1), reader("reader", &[1, 4]));
        let outcome = run(&device, batch(&model, &[7, 8, 9], 4)).await;
        assert_eq!(values(&outcome), [Some(7.0), Some(8.0), Some(9.0)]);
        assert_eq!((outcome.bucket, outcome.panics), (4, 0));
    }

    #[tokio::test]
    async fn a_panic_is_caught_and_counted_and_the_thread_lives_on() {
        let (device, model) = (open(1), reader("reader", &[1, 4]));
        let outcome = run(&device, batch(&model, &[PANICS], 1)).await;
        assert!(matches!(outcome.rows[..], [Err(DeviceError::Panicked)]));
        assert_eq!(outcome.panics, 1);
        assert_eq!(values(&run(&device, batch(&model, &[5], 1)).await), [Some(5.0)]);
    }

    #[tokio::test]
    async fn only_the_bad_rows_of_a_batch_fail() {
        let (device, model) = (open(1), reader("reader", &[1, 4]));
        let outcome = run(&device, batch(&model, &[1, PANICS, 3, OVERFLOWS], 4)).await;
        assert_eq!(values(&outcome), [Some(1.0), None, Some(3.0), None]);
        assert!(matches!(outcome.rows[1], Err(DeviceError::Panicked)));
        assert!(matches!(outcome.rows[3], Err(DeviceError::NotFinite { output: 0 })));
        assert_eq!(outcome.panics, 2, "once together, once alone");

        let mut mixed = batch(&model, &[1, 2], 4);
        mixed.rows.push(RgbImage::black(1, 1));
        let outcome = run(&device, mixed).await;
        assert_eq!(values(&outcome), [Some(1.0), Some(2.0), None]);
        assert!(matches!(outcome.rows[2], Err(DeviceError::Fill(_))));
    }

    #[tokio::test]
    async fn a_bucket_the_model_does_not_have_never_runs() {
        let (device, (model, mut gate)) = (open(1), gated("reader", &[2]));
        let outcome = run(&device, batch(&model, &[1], 3)).await;
        assert!(matches!(outcome.rows[..], [Err(DeviceError::Bucket { rows: 1, bucket: 3 })]));
        assert!(gate.is_quiet());
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_its_batch_has_finished() {
        let (device, (model, mut gate)) = (open(1), gated("reader", &[1]));
        let outcome = device.reserve().await.unwrap().launch(batch(&model, &[1], 1));
        gate.entered().await;
        assert_eq!(device.slots.available_permits(), 0);
        gate.open();
        outcome.await.unwrap();
        assert_eq!(device.slots.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_dropped_slot_is_free_again() {
        let device = open(1);
        drop(device.reserve().await.unwrap());
        device.reserve().await.unwrap();
    }

    #[tokio::test]
    async fn a_dropped_device_finishes_what_was_launched() {
        let (device, (model, gate)) = (open(2), gated("reader", &[1]));
        let first = device.reserve().await.unwrap().launch(batch(&model, &[1], 1));
        let second = device.reserve().await.unwrap().launch(batch(&model, &[2], 1));
        (0..2).for_each(|_| gate.open());
        drop(device);
        assert_eq!(values(&first.await.unwrap()), [Some(1.0)]);
        assert_eq!(values(&second.await.unwrap()), [Some(2.0)]);
    }

    #[tokio::test]
    async fn a_device_says_what_it_is() {
        assert_eq!(open(1).describe().name, "cpu");
    }
}
