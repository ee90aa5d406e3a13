//! The response stream of a streaming call, and the task that produces its events.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::Status;

use super::status;
use crate::pipeline::Error;

/// Yields the events of a task, then the task's error if the task fails. A stream that ends without
/// an error is complete. Dropping the stream aborts the task; tonic drops the stream when the
/// client leaves.
#[derive(Debug)]
pub struct EventStream<T> {
    events: mpsc::Receiver<Result<T, Status>>,
    /// `None` once the task has ended.
    task: Option<JoinHandle<Result<(), Error>>>,
}

impl<T> EventStream<T> {
    pub(super) fn new(
        events: mpsc::Receiver<Result<T, Status>>,
        task: JoinHandle<Result<(), Error>>,
    ) -> Self {
        Self { events, task: Some(task) }
    }
}

impl<T> Stream for EventStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            return Poll::Ready(Some(event));
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        // A task that panicked has sent no error.
        let ended = ready!(Pin::new(task).poll(cx)).unwrap_or_else(|e| Err(Error::internal(e)));
        self.task = None;
        Poll::Ready(ended.err().map(|error| Err(status::from_error(&error))))
    }
}

impl<T> Drop for EventStream<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;
    use tonic::Code;

    use super::*;

    /// Collects the events and codes of a stream whose task sends 1 and then ends with `end`.
    async fn collect_stream(
        end: impl FnOnce() -> Result<(), Error> + Send + 'static,
    ) -> Vec<Result<i32, Code>> {
        let (events, queued) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            events.send(Ok(1)).await.unwrap();
            end()
        });
        let stream = EventStream::new(queued, task);
        stream.map(|event| event.map_err(|status| status.code())).collect().await
    }

    #[tokio::test]
    async fn a_stream_whose_task_breaks_off_ends_with_an_error() {
        assert_eq!(collect_stream(|| Ok(())).await, [Ok(1)]);
        assert_eq!(collect_stream(|| Err(Error::Cancelled)).await, [Ok(1), Err(Code::Cancelled)]);
        assert_eq!(collect_stream(|| panic!("a defect")).await, [Ok(1), Err(Code::Internal)]);
    }
}
