//! Admission: a ticket is granted once for each request and released on drop.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use super::resource::Resource;
use super::stats::SchedulerStats;
use crate::telemetry::CallTimes;

/// Time after which a refused caller should try again. A request takes tens of milliseconds, so by
/// then a ticket has most likely been released.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Grants at most `requests_max` tickets and `bytes_max` bytes at a time. Clones share the limits.
#[derive(Debug, Clone)]
pub struct Tickets {
    limits: Arc<TicketLimits>,
}

/// Permission to use the server, which a request holds from admission to its answer. Dropping the
/// ticket releases its place and its bytes.
///
/// Every row that was submitted shares the ticket of its request. A ticket is therefore in use
/// while a row still waits or runs, even after the caller has left, and the limits bound the memory
/// really in use.
#[derive(Debug)]
pub struct Ticket {
    limits: Arc<TicketLimits>,
    bytes: usize,
    deadline: Instant,
    store: Arc<str>,
    times: Arc<CallTimes>,
}

/// A request was refused because the server is full. Nothing was done for it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("all of {limit} {what} in flight are taken")]
pub struct Overloaded {
    /// The resource that is used up.
    pub what: Resource,
    /// The limit on that resource.
    pub limit: usize,
    /// Time after which the caller should try again.
    pub retry_after: Duration,
}

#[derive(Debug)]
struct TicketLimits {
    requests_max: usize,
    bytes_max: usize,
    in_use: Mutex<InUse>,
    stats: SchedulerStats,
}

#[derive(Debug, Default)]
struct InUse {
    requests: usize,
    bytes: usize,
}

impl Tickets {
    /// Makes the limits, with no ticket granted.
    pub fn new(requests_max: usize, bytes_max: usize, stats: SchedulerStats) -> Self {
        let in_use = Mutex::new(InUse::default());
        Self { limits: Arc::new(TicketLimits { requests_max, bytes_max, in_use, stats }) }
    }

    /// Grants a ticket for a request of `bytes`, or refuses the request. Never waits.
    ///
    /// A request of more than `bytes_max` is always refused, so `bytes_max` must be at least the
    /// largest message that the server accepts.
    ///
    /// # Errors
    /// [`Overloaded`] names the resource that is used up.
    pub fn admit(
        &self,
        bytes: usize,
        deadline: Instant,
        store: Arc<str>,
    ) -> Result<Ticket, Overloaded> {
        let granted = self.limits.acquire(bytes);
        match granted {
            Ok(()) => self.limits.stats.ticket_granted(bytes),
            Err(what) => self.limits.stats.ticket_refused(what),
        }
        granted.map_err(|what| self.limits.overloaded(what))?;
        let times = Arc::default();
        Ok(Ticket { limits: Arc::clone(&self.limits), bytes, deadline, store, times })
    }
}

impl TicketLimits {
    fn acquire(&self, bytes: usize) -> Result<(), Resource> {
        let mut in_use = self.in_use.lock();
        if in_use.requests >= self.requests_max {
            return Err(Resource::Requests);
        }
        if bytes > self.bytes_max - in_use.bytes {
            return Err(Resource::Bytes);
        }
        in_use.requests += 1;
        in_use.bytes += bytes;
        Ok(())
    }

    fn release(&self, bytes: usize) {
        let mut in_use = self.in_use.lock();
        in_use.requests -= 1;
        in_use.bytes -= bytes;
    }

    fn overloaded(&self, what: Resource) -> Overloaded {
        let limit = match what {
            Resource::Requests => self.requests_max,
            Resource::Bytes => self.bytes_max,
        };
        Overloaded { what, limit, retry_after: RETRY_AFTER }
    }
}

impl Ticket {
    /// Returns the store that the request belongs to.
    pub fn store(&self) -> &Arc<str> {
        &self.store
    }

    /// Returns the time after which the answer is of no use.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns the times that the request has spent in each stage so far.
    pub fn times(&self) -> &Arc<CallTimes> {
        &self.times
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.limits.release(self.bytes);
        self.limits.stats.ticket_released(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tickets(requests_max: usize, bytes_max: usize) -> Tickets {
        Tickets::new(requests_max, bytes_max, SchedulerStats::default())
    }

    fn admit(tickets: &Tickets, bytes: usize) -> Result<Ticket, Overloaded> {
        tickets.admit(bytes, Instant::now() + Duration::from_secs(1), "store".into())
    }

    #[test]
    fn a_dropped_ticket_frees_its_place_and_its_bytes() {
        let tickets = tickets(1, 100);
        let ticket = admit(&tickets, 100).unwrap();
        assert_eq!(admit(&tickets, 1).unwrap_err().what, Resource::Requests);
        drop(ticket);
        admit(&tickets, 100).unwrap();
    }

    #[test]
    fn bytes_are_bounded_and_the_refusal_names_the_limit() {
        let tickets = tickets(10, 100);
        let _held = admit(&tickets, 60).unwrap();
        let refusal = admit(&tickets, 41).unwrap_err();
        assert_eq!((refusal.what, refusal.limit), (Resource::Bytes, 100));
        assert_eq!(refusal.to_string(), "all of 100 bytes in flight are taken");
        admit(&tickets, 40).unwrap();
    }

    #[test]
    fn a_refusal_takes_nothing() {
        let tickets = tickets(1, 100);
        admit(&tickets, 101).unwrap_err();
        admit(&tickets, 100).unwrap();
    }

    #[test]
    fn a_ticket_comes_back_when_its_request_panics() {
        let tickets = tickets(1, 100);
        let ticket = admit(&tickets, 100).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = ticket;
            panic!("a bug in a request");
        }));
        panicked.unwrap_err();
        admit(&tickets, 100).unwrap();
    }

    #[test]
    fn a_ticket_shared_with_a_job_stays_taken_until_the_last_one_drops_it() {
        let tickets = tickets(1, 100);
        let ticket = Arc::new(admit(&tickets, 100).unwrap());
        let of_a_job = Arc::clone(&ticket);
        drop(ticket);
        admit(&tickets, 0).unwrap_err();
        drop(of_a_job);
        admit(&tickets, 0).unwrap();
    }

    proptest! {
        #[test]
        fn limits_hold_and_everything_comes_back(
            steps in prop::collection::vec((0_usize..40, any::<bool>(), 0_usize..8), 1..100),
        ) {
            let tickets = tickets(5, 100);
            let mut held: Vec<Ticket> = Vec::new();
            for (bytes, takes, which) in steps {
                if takes {
                    let taken: usize = held.iter().map(|ticket| ticket.bytes).sum();
                    let fits = held.len() < 5 && taken + bytes <= 100;
                    let granted = admit(&tickets, bytes);
                    prop_assert_eq!(granted.is_ok(), fits);
                    held.extend(granted.ok());
                } else if which < held.len() {
                    held.swap_remove(which);
                }
            }
            drop(held);
            let all: Result<Vec<_>, _> = (0..5).map(|_| admit(&tickets, 20)).collect();
            prop_assert!(all.is_ok());
        }
    }
}
