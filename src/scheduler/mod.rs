//! Who runs next.

mod core;
mod cpu_pool;
mod lane;
mod stats;
mod tickets;

pub use cpu_pool::{CpuPool, PoolError};
pub use stats::SchedulerStats;
pub use tickets::{Overloaded, Resource, Ticket, Tickets};
