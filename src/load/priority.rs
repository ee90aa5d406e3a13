//! The threads of the generator: their priority and their processor time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use thread_priority::{ThreadPriority, ThreadPriorityValue};

/// Real-time priorities. They only have to be above zero, and the pacer's above the worker's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Urgency {
    Worker = 1,
    Pacer = 2,
}

/// Gives this thread a real-time priority, so that a busy machine does not delay its calls. Returns
/// false if the process may not: it needs root or `CAP_SYS_NICE`.
pub(super) fn raise_priority(urgency: Urgency) -> bool {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    let value = ThreadPriorityValue::try_from(urgency as u8);
    let priority = ThreadPriority::Crossplatform(value.expect("both are below 100"));
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

/// Returns the processor time of this thread.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
