//! Decides who runs next: tickets, lanes, batches, and the thread pool for work on the CPU.
//!
//! ```text
//! Tickets::admit → Ticket ─┬─ CpuPool::run (decode, align)
//!                          └─ Scheduler::submit → lane → reserve a slot → form a batch → device
//! ```
//!
//! [`Tickets`] refuses a request for load; the intake of the services may have refused it before,
//! and no other part does. After admission a row waits for a place in its lane, and then for its
//! batch. `core` and `lane` decide: they are pure and take the time as an argument. `shell` waits:
//! it is one task for all devices of a group.
//!
//! A lane is placed on the devices that hold its model. A batch is formed for the device whose slot
//! was reserved. A row that no device in service can run is refused at once.

mod answer;
mod core;
mod cpu_pool;
mod handle;
mod lane;
mod resource;
mod settings;
mod shell;
mod stats;
mod tickets;

pub use answer::{RowAnswer, RowError};
pub use cpu_pool::{CpuPool, PoolError};
pub use handle::{LaneSettings, Scheduler};
pub use resource::Resource;
pub use settings::SchedulerSettings;
pub use stats::SchedulerStats;
pub use tickets::{Overloaded, Ticket, Tickets};
