//! The devices that run networks: one CPU or several GPUs, opened as one [`DeviceGroup`].
//!
//! ```text
//! reserve(among) → Slot of one device → launch(Batch) → inbox
//!     → thread of the device: start, finish → BatchOutcome
//! ```
//!
//! Each device has one thread. Only that thread opens the machine and runs work on it. Work in an
//! inbox holds one of the inbox's places, so sending never waits; a slot is a reserved place, free
//! again when its work is done. The caller reserves a slot first and forms the batch after that, so
//! the batch holds everything that is in the queue at the last moment. A GPU with two or more slots
//! starts the next batch while it computes the current one.
//!
//! A model has one handle, [`LoadedModel`], and a placement: the [`DeviceSet`] that holds its
//! network.
//!
//! A device that is lost answers its work with the loss and goes out of service. It is reopened,
//! loads its models again from their files, and is back in service; [`DeviceGroup::health`] shows
//! each step. A GPU that never ends a batch or a load has hung. It cannot be stopped and its memory
//! cannot be freed, so no task waits for it any more, not even when the group is closed.

mod batch;
mod choice;
mod compare;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod cuda_survey;
mod device_set;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod health;
mod inbox;
mod load;
mod loaded;
mod machine;
mod placement;
mod plan;
mod running;
mod settings;
mod spec;
mod survey;
#[cfg(test)]
mod tests;
mod watchdog;
mod worker;

use std::cmp::Reverse;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use futures_util::future::{select_all, try_join_all};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use crate::engine::Precision;
use crate::model::Package;

pub use batch::{Batch, BatchOutcome, RowOutput};
pub use choice::DeviceChoice;
pub use compare::compare;
#[cfg(feature = "cuda")]
pub use cuda::open_gpu_alone;
pub use cuda_survey::{CudaSurvey, GpuSurvey};
pub use device_set::DeviceSet;
pub use error::{DeviceError, Loss};
pub use health::{DeviceHealth, DeviceState, GroupHealth};
pub use loaded::{LoadTiming, LoadedModel};
pub use machine::DeviceDescription;
pub use plan::DevicePlan;
pub use settings::{CudaSettings, DeviceSettings};
pub use survey::{CpuSurvey, KernelSurvey, survey};

use health::StateReporter;
use inbox::{Inbox, Work};
use placement::Placements;
use plan::in_precision;
use spec::MachineSpec;
use watchdog::{Heartbeat, Timeouts, Watchdog};
use worker::DeviceThread;

/// An open group of devices.
///
/// Dropping the group finishes every launched batch and then ends the threads. The drop blocks for
/// at most one batch per slot. It does not wait for a GPU that has hung.
pub struct DeviceGroup {
    /// Placements and slots name a device by its index here.
    devices: Vec<DeviceHandle>,
    health: Arc<watch::Sender<GroupHealth>>,
    placements: Placements,
    /// The precision of all models; `None` leaves the choice to each manifest.
    precision: Option<Precision>,
    next_key: Mutex<u64>,
}

/// The group's handle of one device.
struct DeviceHandle {
    description: DeviceDescription,
    slots: Arc<Semaphore>,
    /// `None` only while the group is dropped: closing the inbox ends the thread.
    inbox: Option<Arc<Inbox>>,
    /// The device's thread, or its watchdog's thread. The watchdog's thread ends when the device's
    /// thread has ended or hung.
    thread: Option<JoinHandle<()>>,
}

/// A device whose thread is opening its machine.
struct OpeningDevice {
    inbox: Inbox,
    thread: JoinHandle<()>,
    opened: oneshot::Receiver<Result<DeviceDescription, DeviceError>>,
}

/// A reserved place in one device's inbox.
#[derive(Debug)]
pub struct Slot<'group> {
    group: &'group DeviceGroup,
    device: usize,
    permit: OwnedSemaphorePermit,
}

impl DeviceGroup {
    /// Opens the devices of `settings` and starts their threads.
    ///
    /// # Errors
    /// Returns the errors of [`DevicePlan::new`] and [`DevicePlan::open`].
    pub async fn open(settings: &DeviceSettings) -> Result<Self, DeviceError> {
        DevicePlan::new(settings)?.open().await
    }

    async fn open_plan(plan: DevicePlan, timeouts: &Timeouts) -> Result<Self, DeviceError> {
        let DevicePlan { machines, placements, slots, precision } = plan;
        let names = machines.iter().map(|machine| machine.name());
        let health = Arc::new(watch::Sender::new(GroupHealth::all_in_service(names)));
        let mut opening = Vec::with_capacity(machines.len());
        for (device, machine) in machines.into_iter().enumerate() {
            let reporter = StateReporter { health: Arc::clone(&health), device };
            let final_loss = wait_for_final_loss(health.subscribe(), device);
            let started = OpeningDevice::start(machine, reporter, slots, timeouts.clone())?;
            opening.push((started, final_loss));
        }
        let mut devices = Vec::with_capacity(opening.len());
        for (device, final_loss) in opening {
            devices.push(device.wait_until_open(slots, final_loss).await?);
        }
        Ok(Self { devices, health, placements, precision, next_key: Mutex::new(0) })
    }

    /// Returns the description of each device.
    pub fn describe(&self) -> impl Iterator<Item = &DeviceDescription> {
        self.devices.iter().map(|device| &device.description)
    }

    /// Returns a receiver of the state of all devices.
    pub fn health(&self) -> watch::Receiver<GroupHealth> {
        self.health.subscribe()
    }

    /// Loads a model onto every device of its placement: builds the network, checks its golden
    /// alone and in a larger bucket, and warms every bucket. Loading takes a slot of each device,
    /// so batches wait meanwhile.
    ///
    /// # Errors
    /// [`DeviceError`] names the model and the step that failed. No device keeps the model then.
    pub async fn load(&self, package: Package) -> Result<Arc<LoadedModel>, DeviceError> {
        let package = Arc::new(in_precision(package, self.precision)?);
        let placement = self.placements.of_model(&package.manifest.name);
        let inboxes = placement.iter().filter_map(|device| self.devices[device].inbox.as_ref());
        let signals = inboxes.map(Inbox::drop_signal).collect();
        let model = Arc::new(LoadedModel::new(self.fresh_key(), &package, placement, signals));
        let loads = placement.iter().map(|device| self.load_on(device, &model, &package));
        let timings = try_join_all(loads).await?;
        let slowest = timings.into_iter().max_by_key(LoadTiming::total);
        model.set_timing(slowest.unwrap_or_default());
        Ok(model)
    }

    async fn load_on(
        &self,
        device: usize,
        model: &Arc<LoadedModel>,
        package: &Arc<Package>,
    ) -> Result<LoadTiming, DeviceError> {
        let slot = self.reserve(DeviceSet::of([device])).await?;
        let (reply, loaded) = oneshot::channel();
        let (model, package) = (Arc::clone(model), Arc::clone(package));
        slot.send(|permit| Work::Load { model, package, reply, permit });
        tokio::select! {
            biased;
            Ok(loaded) = loaded => loaded,
            Some(loss) = wait_for_final_loss(self.health.subscribe(), device) => {
                Err(DeviceError::Lost(loss))
            }
            else => Err(DeviceError::Stopped),
        }
    }

    /// Waits for a free slot of a device in `among` that is in service. If several devices have
    /// one, the device with the most free slots is chosen.
    ///
    /// # Errors
    /// Returns [`DeviceError::OutOfService`] if no device of `among` is in service.
    pub async fn reserve(&self, among: DeviceSet) -> Result<Slot<'_>, DeviceError> {
        let mut health = self.health.subscribe();
        loop {
            let in_service = health.borrow_and_update().in_service();
            let mut devices: Vec<usize> = among.intersection(in_service).iter().collect();
            if devices.is_empty() {
                return Err(DeviceError::OutOfService);
            }
            devices.sort_by_key(|device| Reverse(self.devices[*device].slots.available_permits()));
            let slots = devices.into_iter().map(|device| Box::pin(self.reserve_on(device)));
            tokio::select! {
                biased;
                _ = health.changed() => {}
                (slot, ..) = select_all(slots) => return Ok(slot),
            }
        }
    }

    async fn reserve_on(&self, device: usize) -> Slot<'_> {
        let permit = Arc::clone(&self.devices[device].slots).acquire_owned().await;
        Slot { group: self, device, permit: permit.expect("the semaphore is never closed") }
    }

    fn fresh_key(&self) -> u64 {
        let mut next = self.next_key.lock();
        *next += 1;
        *next
    }
}

/// Waits until a device has failed or hung, and returns the loss to answer its work with. A thread
/// that hangs cannot answer. Returns `None` if the group is closed first.
async fn wait_for_final_loss(
    mut health: watch::Receiver<GroupHealth>,
    device: usize,
) -> Option<Loss> {
    let is_final = move |now: &GroupHealth| now.devices[device].final_loss().is_some();
    let found = health.wait_for(is_final).await.ok()?;
    found.devices[device].final_loss()
}

impl OpeningDevice {
    fn start(
        machine: Box<dyn MachineSpec>,
        reporter: StateReporter,
        slots: NonZeroUsize,
        timeouts: Timeouts,
    ) -> Result<Self, DeviceError> {
        let (sender, inbox) = sync_channel(slots.get() + Inbox::SWEEP_PLACES);
        let (reply, opened) = oneshot::channel();
        let (alive, thread_alive) = channel();
        let (name, can_hang) = (machine.name(), machine.can_hang());
        let heartbeat = Arc::new(Heartbeat::default());
        let poll_interval = timeouts.poll_interval;
        let (watched_heartbeat, watchdog_reporter) = (Arc::clone(&heartbeat), reporter.clone());
        let device = DeviceThread { inbox, slots, reporter, heartbeat, timeouts, opened: reply };
        let mut thread = spawn(format!("device-{name}"), move || {
            // Closes the channel when this thread ends.
            let _alive: Sender<()> = alive;
            machine.run(device);
        })?;
        if can_hang {
            let watchdog = Watchdog {
                heartbeat: watched_heartbeat,
                reporter: watchdog_reporter,
                poll_interval,
                thread_alive,
                thread,
            };
            thread = spawn(format!("watch-{name}"), move || watchdog.watch())?;
        }
        Ok(Self { inbox: Inbox::new(sender), thread, opened })
    }

    /// Returns the device when it has opened, or an error if it fails or hangs first.
    async fn wait_until_open(
        self,
        slots: NonZeroUsize,
        final_loss: impl Future<Output = Option<Loss>>,
    ) -> Result<DeviceHandle, DeviceError> {
        let description = tokio::select! {
            biased;
            Ok(opened) = self.opened => opened?,
            Some(loss) = final_loss => return Err(DeviceError::Lost(loss)),
            else => return Err(DeviceError::Stopped),
        };
        Ok(DeviceHandle {
            description,
            slots: Arc::new(Semaphore::new(slots.get())),
            inbox: Some(Arc::new(self.inbox)),
            thread: Some(self.thread),
        })
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, DeviceError> {
    thread::Builder::new().name(name).spawn(run).map_err(DeviceError::Thread)
}

impl Slot<'_> {
    /// Returns the device's index in the group.
    pub fn device(&self) -> usize {
        self.device
    }

    /// Hands the batch to the device. The future resolves when the batch has run, with one result
    /// per row, or when the device has failed or hung.
    ///
    /// # Errors
    /// Returns [`DeviceError::Stopped`] if the device's thread has ended without an answer.
    pub fn launch(
        self,
        batch: Batch,
    ) -> impl Future<Output = Result<BatchOutcome, DeviceError>> + use<> {
        let (reply, outcome) = oneshot::channel();
        let (rows, launched) = (batch.rows.len(), Instant::now());
        let lost = move |loss: Loss| BatchOutcome::lost(&loss, rows, launched.elapsed());
        let final_loss = wait_for_final_loss(self.group.health.subscribe(), self.device);
        self.send(|permit| Work::Run { batch, reply, permit });
        // A thread that ends drops the reply channel. Then the device has failed or hung, or the
        // group is being closed.
        async move {
            tokio::select! {
                biased;
                Ok(outcome) = outcome => Ok(outcome),
                Some(loss) = final_loss => Ok(lost(loss)),
                else => Err(DeviceError::Stopped),
            }
        }
    }

    fn send(self, work: impl FnOnce(OwnedSemaphorePermit) -> Work) {
        if let Some(inbox) = &self.group.devices[self.device].inbox {
            inbox.send(work(self.permit));
        }
    }
}

impl Drop for DeviceGroup {
    fn drop(&mut self) {
        self.devices.iter_mut().for_each(|device| device.inbox = None);
        for thread in self.devices.iter_mut().filter_map(|device| device.thread.take()) {
            // The thread catches panics of networks. A panic of the thread itself was reported
            // there.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for DeviceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.describe().map(|description| &description.name)).finish()
    }
}
