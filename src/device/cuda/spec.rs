//! A GPU that is not open yet.

use std::num::NonZeroUsize;

use super::{CudaMachine, check_gpu};
use crate::device::spec::MachineSpec;
use crate::device::worker::DeviceThread;
use crate::device::{CudaSettings, DeviceError};
use crate::engine::Precision;
use crate::engine::cpu::SelectError;

/// A GPU that is not open yet.
pub(in crate::device) struct CudaSpec {
    /// CUDA ordinal, as in `cuda:0`.
    pub(in crate::device) number: usize,
    pub(in crate::device) settings: CudaSettings,
    /// Text for [`crate::device::DeviceDescription::chosen`].
    pub(in crate::device) chosen: &'static str,
}

impl MachineSpec for CudaSpec {
    fn name(&self) -> String {
        format!("cuda:{}", self.number)
    }

    fn cuda_number(&self) -> Option<usize> {
        Some(self.number)
    }

    fn check(&self) -> Result<(), DeviceError> {
        check_gpu(self.number)
    }

    fn check_precision(&self, _: Precision) -> Result<(), SelectError> {
        Ok(())
    }

    fn can_hang(&self) -> bool {
        true
    }

    /// A GPU uploads the next batch while it computes the current one.
    fn default_slots(&self) -> NonZeroUsize {
        const { NonZeroUsize::new(2).expect("2 is not 0") }
    }

    fn run(self: Box<Self>, thread: DeviceThread) {
        let Self { number, settings, chosen } = *self;
        thread.run(|slots| CudaMachine::open(number, slots.get(), settings, chosen));
    }
}
