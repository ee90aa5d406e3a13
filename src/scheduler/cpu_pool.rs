//! The bounded thread pool for decoding, resizing and aligning, so that no async task computes. A
//! job of the pool is a function to run; it is no row.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use thiserror::Error;
use tokio::sync::{Semaphore, oneshot};

/// A fixed number of threads, and a limit on the jobs that wait for a thread or run.
///
/// Clones share the pool. After the last clone is dropped, jobs already submitted still run, and
/// then the threads end.
#[derive(Debug, Clone)]
pub struct CpuPool {
    threads: Arc<ThreadPool>,
    places: Arc<Semaphore>,
}

/// Why the pool could not start, or why a job returned no value.
#[derive(Debug, Error)]
pub enum PoolError {
    /// A thread could not be started.
    #[error("the cpu pool of {threads} threads could not be started")]
    Start {
        /// The number of threads requested.
        threads: usize,
        /// The error of the operating system.
        #[source]
        source: ThreadPoolBuildError,
    },
    /// The job panicked. The pool goes on.
    #[error("a job on the cpu pool panicked")]
    Panicked,
    /// The pool dropped the job without running it.
    #[error("the cpu pool has stopped")]
    Stopped,
}

impl CpuPool {
    /// Starts `threads` threads. At most `jobs_max` jobs wait or run at a time.
    ///
    /// # Errors
    /// [`PoolError::Start`] if a thread cannot be started.
    pub fn new(threads: NonZeroUsize, jobs_max: NonZeroUsize) -> Result<Self, PoolError> {
        let count = threads.get();
        let pool = ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(|source| PoolError::Start { threads: count, source })?;
        let places = Arc::new(Semaphore::new(jobs_max.get()));
        Ok(Self { threads: Arc::new(pool), places })
    }

    /// Runs `job` on the pool and returns its value. While the pool holds `jobs_max` jobs, the call
    /// waits for a place.
    ///
    /// If the future is dropped before the job starts, the job never runs. A running job is not
    /// interrupted.
    ///
    /// # Errors
    /// [`PoolError::Panicked`] or [`PoolError::Stopped`].
    pub async fn run<T, F>(&self, job: F) -> Result<T, PoolError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| PoolError::Stopped)?;
        let (reply, answer) = oneshot::channel();
        // The span of the call, so that log lines of the job and of a panic belong to the call.
        let span = tracing::Span::current();
        self.threads.spawn(move || {
            // Released only after the pool has dropped the inputs and the result of the job.
            let _place = place;
            if reply.is_closed() {
                return;
            }
            // Unwind-safe: a panic consumes the job, so no half-changed state is visible.
            let value = span.in_scope(|| catch_unwind(AssertUnwindSafe(job)));
            let value = value.map_err(|_| PoolError::Panicked);
            // The caller may have left, which closes the channel.
            drop(reply.send(value));
        });
        answer.await.map_err(|_| PoolError::Stopped)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize, jobs_max: usize) -> CpuPool {
        CpuPool::new(threads.try_into().unwrap(), jobs_max.try_into().unwrap()).unwrap()
    }

    /// Occupies a thread until the returned sender is dropped. Returns once the thread is busy.
    async fn occupy(pool: &CpuPool) -> mpsc::Sender<()> {
        let (release, gate) = mpsc::channel::<()>();
        let (started, is_started) = oneshot::channel();
        let pool = pool.clone();
        tokio::spawn(async move {
            let job = move || {
                started.send(()).unwrap();
                gate.recv().unwrap_err();
            };
            pool.run(job).await
        });
        is_started.await.unwrap();
        release
    }

    #[tokio::test]
    async fn a_job_runs_on_a_thread_of_the_pool() {
        let name = pool(1, 1).run(|| std::thread::current().name().map(str::to_owned)).await;
        assert_eq!(name.unwrap().as_deref(), Some("cpu-0"));
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_pool_lives_on() {
        let pool = pool(1, 1);
        let panicked = pool.run(|| panic!("a bug in a job")).await;
        assert!(matches!(panicked, Err::<(), _>(PoolError::Panicked)));
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_job_whose_caller_left_is_skipped() {
        let pool = pool(1, 3);
        let release = occupy(&pool).await;
        let (ran, has_run) = mpsc::channel();
        {
            let mut left = Box::pin(pool.run(move || ran.send(()).unwrap()));
            assert!(poll_once(&mut left).await.is_pending());
        }
        drop(release);
        pool.run(|| ()).await.unwrap();
        has_run.recv().expect_err("the job was dropped without running");
    }

    #[tokio::test]
    async fn no_more_than_the_allowed_jobs_are_in_the_pool() {
        let pool = pool(1, 1);
        let release = occupy(&pool).await;
        let (here, dropped) = mpsc::channel::<()>();
        let mut waiting = Box::pin(pool.run(move || drop(here)));
        assert!(poll_once(&mut waiting).await.is_pending());
        assert_eq!(pool.places.available_permits(), 0);
        drop(waiting);
        dropped.try_recv().expect_err("the waiting job was with its caller, not in the pool");
        drop(release);
        pool.run(|| ()).await.unwrap();
    }

    async fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
        std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx)))
            .await
    }
}
