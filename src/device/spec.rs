//! Machines that are not open yet. A group opens machines of different types, and the type of a
//! machine is known on its thread alone.

use std::num::NonZeroUsize;

use super::DeviceError;
use super::worker::DeviceThread;
use crate::engine::Precision;
use crate::engine::cpu::SelectError;

/// A machine that is not open yet.
pub(super) trait MachineSpec: Send {
    /// Returns the name of the machine's device, such as `cpu` or `cuda:0`.
    fn name(&self) -> String;

    /// Returns the CUDA ordinal, by which settings place models; `None` for the CPU.
    fn cuda_number(&self) -> Option<usize>;

    /// Checks everything about the machine that can be checked without opening it.
    fn check(&self) -> Result<(), DeviceError>;

    /// Checks that the machine has kernels for `precision`, if that can be checked without opening
    /// it.
    fn check_precision(&self, precision: Precision) -> Result<(), SelectError>;

    /// Returns whether work on this machine may never end and cannot be stopped.
    fn can_hang(&self) -> bool;

    /// Returns the number of slots if the settings give none.
    fn default_slots(&self) -> NonZeroUsize;

    /// Opens the machine on the calling thread, and runs `thread` with the open machine.
    fn run(self: Box<Self>, thread: DeviceThread);
}
