//! The machine that a device's thread runs batches on. A machine is opened on its thread and never
//! leaves it.

use std::fmt;
use std::num::NonZeroUsize;

#[cfg(feature = "cuda")]
use super::CudaSettings;
use super::cpu::CpuMachine;
#[cfg(feature = "cuda")]
use super::cuda::{CudaMachine, EnqueuedBatch, check_gpu};
#[cfg(test)]
use super::fixture::{Stage, StagedMachine};
use super::loaded::ModelKey;
use super::{DeviceError, LoadedModel, RowOutput};
use crate::engine::Precision;
use crate::engine::cpu::KernelChoice;
use crate::image::RgbImage;
use crate::model::Package;

/// A machine that is not open yet.
pub(super) enum MachineSpec {
    /// The CPU.
    Cpu {
        /// Threads that run networks.
        threads: usize,
        /// Kernels to use.
        kernels: KernelChoice,
        /// Text for [`DeviceDescription::chosen`].
        chosen: String,
    },
    /// A GPU.
    #[cfg(feature = "cuda")]
    Cuda {
        /// CUDA ordinal, as in `cuda:0`.
        number: usize,
        /// Settings of GPUs.
        settings: CudaSettings,
        /// Text for [`DeviceDescription::chosen`].
        chosen: &'static str,
    },
    /// A machine that stops at the points that a test chooses.
    #[cfg(test)]
    Staged(Stage),
}

/// An open machine. It holds one network per loaded model, under the key of the model.
pub(super) enum Machine {
    Cpu(CpuMachine),
    #[cfg(feature = "cuda")]
    Cuda(CudaMachine),
    #[cfg(test)]
    Staged(StagedMachine),
}

/// A batch that a machine has started.
pub(super) enum StartedBatch {
    /// The batch has run, because the CPU computes inside `start`; or the batch could not be
    /// started.
    Done(Result<Vec<RowOutput>, DeviceError>),
    /// A GPU runs the batch.
    #[cfg(feature = "cuda")]
    Cuda(EnqueuedBatch),
    /// The batch runs until a test lets [`Machine::finish`] return.
    #[cfg(test)]
    Staged(Result<Vec<RowOutput>, DeviceError>),
}

/// The description of a device, for the log and reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceDescription {
    /// Name, such as `cpu` or `cuda:0`.
    pub name: String,
    /// The kernels and the hardware or threads that run them.
    pub kernels: String,
    /// Why this device was chosen.
    pub chosen: String,
}

impl MachineSpec {
    /// Returns the name of the machine's device, such as `cpu` or `cuda:0`.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Cpu { .. } => "cpu".to_owned(),
            #[cfg(feature = "cuda")]
            Self::Cuda { number, .. } => format!("cuda:{number}"),
            #[cfg(test)]
            Self::Staged(stage) => stage.name.clone(),
        }
    }

    /// Returns the CUDA ordinal, by which settings place models; `None` for the CPU.
    pub(super) fn cuda_number(&self) -> Option<usize> {
        match self {
            Self::Cpu { .. } => None,
            #[cfg(feature = "cuda")]
            Self::Cuda { number, .. } => Some(*number),
            #[cfg(test)]
            Self::Staged(stage) => stage.cuda_number(),
        }
    }

    /// Returns whether the machine is the CPU.
    pub(super) fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu { .. })
    }

    /// Checks everything about the machine that can be checked without opening it.
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        match self {
            Self::Cpu { threads, kernels, chosen } => {
                CpuMachine::describe(*threads, *kernels, chosen).map(drop)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda { number, .. } => check_gpu(*number),
            #[cfg(test)]
            Self::Staged(_) => Ok(()),
        }
    }

    /// Returns whether work on this machine may never end and cannot be stopped. Work on the CPU
    /// runs on threads of this process and always ends.
    pub(super) fn can_hang(&self) -> bool {
        match self {
            Self::Cpu { .. } => false,
            #[cfg(feature = "cuda")]
            Self::Cuda { .. } => true,
            #[cfg(test)]
            Self::Staged(_) => true,
        }
    }

    /// Returns the number of slots if the settings give none. A GPU uploads the next batch while it
    /// computes the current one. On the CPU one slot lets every batch form at the last moment.
    pub(super) fn default_slots(&self) -> NonZeroUsize {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda { .. } => const { NonZeroUsize::new(2).expect("2 is not 0") },
            _ => NonZeroUsize::MIN,
        }
    }

    /// Opens the machine for `slots` batches at once, on the thread that will use it.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "only GPUs differ in this")
    )]
    pub(super) fn open(
        self,
        slots: NonZeroUsize,
    ) -> Result<(Machine, DeviceDescription), DeviceError> {
        match self {
            Self::Cpu { threads, kernels, chosen } => {
                let description = CpuMachine::describe(threads, kernels, &chosen)?;
                Ok((Machine::Cpu(CpuMachine::open(threads, kernels)?), description))
            }
            #[cfg(feature = "cuda")]
            Self::Cuda { number, settings, chosen } => {
                let (machine, description) =
                    CudaMachine::open(number, slots.get(), settings, chosen)?;
                Ok((Machine::Cuda(machine), description))
            }
            #[cfg(test)]
            Self::Staged(stage) => stage.open(),
        }
    }
}

impl Machine {
    /// Builds the network of `model` from its files and keeps it under the key of the model. The
    /// network is not checked here.
    pub(super) fn load(
        &mut self,
        model: &LoadedModel,
        package: &Package,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Cpu(cpu) => cpu.load(model, package),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => gpu.load(model, package),
            #[cfg(test)]
            Self::Staged(staged) => staged.cpu.load(model, package),
        }
    }

    /// Frees the network under `key`, if there is one.
    pub(super) fn unload(&mut self, key: ModelKey) {
        match self {
            Self::Cpu(cpu) => cpu.unload(key),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => gpu.unload(key),
            #[cfg(test)]
            Self::Staged(staged) => staged.unload(key),
        }
    }

    /// Starts rows in one pass, padded up to `bucket`, and returns as soon as the host's part is
    /// done. At most as many batches as the device has slots may be started and unfinished.
    pub(super) fn start(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> StartedBatch {
        match self {
            Self::Cpu(cpu) => StartedBatch::Done(cpu.run(model, rows, bucket)),
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => match gpu.start(model, rows, bucket) {
                Ok(batch) => StartedBatch::Cuda(batch),
                Err(error) => StartedBatch::Done(Err(error)),
            },
            #[cfg(test)]
            Self::Staged(staged) => staged.start(model, rows, bucket),
        }
    }

    /// Returns whether [`Machine::finish`] would return without waiting, as far as the machine can
    /// tell.
    pub(super) fn has_run(&self, started: &StartedBatch) -> bool {
        match started {
            #[cfg(feature = "cuda")]
            StartedBatch::Cuda(batch) => batch.has_run(),
            _ => true,
        }
    }

    /// Waits for a started batch and returns the outputs of its rows. Batches must be finished in
    /// the order they were started.
    ///
    /// # Errors
    /// The error of one row is the error of the whole batch. After [`DeviceError::Lost`] the
    /// machine cannot be used until [`Machine::reopen`].
    pub(super) fn finish(&mut self, started: StartedBatch) -> Result<Vec<RowOutput>, DeviceError> {
        match started {
            StartedBatch::Done(outputs) => outputs,
            #[cfg(feature = "cuda")]
            StartedBatch::Cuda(batch) => self.gpu().finish(batch),
            #[cfg(test)]
            StartedBatch::Staged(outputs) => self.staged().finish(outputs),
        }
    }

    /// Reopens a lost machine, without any network: all models must be loaded again.
    pub(super) fn reopen(&mut self) -> Result<(), DeviceError> {
        match self {
            Self::Cpu(cpu) => {
                cpu.reopen();
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(gpu) => gpu.reopen(),
            #[cfg(test)]
            Self::Staged(staged) => staged.reopen(),
        }
    }

    /// Returns the maximum difference between a row's outputs in two buckets, relative to the
    /// largest value of the output.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "only GPUs differ in this")
    )]
    pub(super) fn bucket_tolerance(&self, precision: Precision) -> f32 {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => CudaMachine::bucket_tolerance(precision),
            _ => CpuMachine::BUCKET_TOLERANCE,
        }
    }

    #[cfg(feature = "cuda")]
    fn gpu(&mut self) -> &mut CudaMachine {
        let Self::Cuda(gpu) = self else { unreachable!("only a GPU starts CUDA batches") };
        gpu
    }

    /// Runs rows in one pass and returns their outputs.
    pub(super) fn run_together(
        &mut self,
        model: &LoadedModel,
        rows: &[RgbImage],
        bucket: usize,
    ) -> Result<Vec<RowOutput>, DeviceError> {
        let started = self.start(model, rows, bucket);
        self.finish(started)
    }

    /// Runs one row in the model's smallest bucket and returns its outputs.
    pub(super) fn run_alone(
        &mut self,
        model: &LoadedModel,
        row: &RgbImage,
    ) -> Result<RowOutput, DeviceError> {
        let rows = std::slice::from_ref(row);
        let mut outputs = self.run_together(model, rows, model.smallest_bucket())?;
        Ok(outputs.pop().expect("a batch of one row gives one row"))
    }

    #[cfg(test)]
    fn staged(&mut self) -> &mut StagedMachine {
        let Self::Staged(staged) = self else {
            panic!("only a staged machine starts staged batches")
        };
        staged
    }
}

impl StartedBatch {
    /// Returns whether the batch needs no waiting.
    pub(super) fn is_done(&self) -> bool {
        match self {
            Self::Done(_) => true,
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => false,
            #[cfg(test)]
            Self::Staged(_) => false,
        }
    }
}

impl fmt::Display for DeviceDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; {})", self.name, self.kernels, self.chosen)
    }
}
