//! The answers of a stream, and the task that makes them.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tonic::Status;

/// Events as a task makes them. Dropping it, as tonic does when the client leaves, ends the task.
#[derive(Debug)]
pub struct EventStream<T> {
    events: mpsc::Receiver<Result<T, Status>>,
    task: JoinHandle<()>,
}

impl<T> EventStream<T> {
    pub(super) fn new(events: mpsc::Receiver<Result<T, Status>>, task: JoinHandle<()>) -> Self {
        Self { events, task }
    }
}

impl<T> Stream for EventStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(cx)
    }
}

impl<T> Drop for EventStream<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
