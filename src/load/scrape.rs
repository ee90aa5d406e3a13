//! What the server says of a run: the difference of its metrics before and after.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::LoadError;

/// Longest time to read the metrics.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of metrics that are read. Ours have some tens of kilobytes.
const BYTES_MAX: usize = 8 << 20;

/// The counters and gauges of a server at one moment: by name and labels, as printed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Metrics(BTreeMap<String, f64>);

/// The mean of the values that a histogram of the server took during a run.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMean {
    /// Name of the stage or model.
    pub name: String,
    /// Number of values.
    pub count: f64,
    /// Their mean.
    pub mean: f64,
}

/// What the server did during a run, by its own metrics.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerView {
    /// Milliseconds of one picture in each stage.
    pub stages_ms: Vec<ServerMean>,
    /// Milliseconds that a row waited for its batch, by model.
    pub queue_ms: Vec<ServerMean>,
    /// Rows of a batch, by model.
    pub batch_rows: Vec<ServerMean>,
    /// Milliseconds of a batch on the device, by model.
    pub batch_ms: Vec<ServerMean>,
    /// Calls that the server refused a ticket.
    pub refused: f64,
    /// Rows that the server dropped before launch, since their callers had left or their deadline
    /// had passed.
    pub rows_dropped: f64,
}

/// Reads `/metrics` at an address such as `127.0.0.1:9464`.
pub(super) async fn read_metrics(address: &str) -> Result<Metrics, LoadError> {
    let host = address.trim_start_matches("http://");
    let host = host.trim_end_matches("/metrics").trim_end_matches('/');
    let failed = |reason| LoadError::Metrics { address: address.to_owned(), reason };
    let text = tokio::time::timeout(TIMEOUT, get(host)).await;
    let text = text.map_err(|_| failed(format!("no answer within {} s", TIMEOUT.as_secs())))?;
    Ok(Metrics::parse(&text.map_err(|error| failed(error.to_string()))?))
}

async fn get(host: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(TcpStream::connect(host).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let serving = tokio::spawn(connection);
    let request = http::Request::get("/metrics").header(http::header::HOST, host);
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("HTTP status {}", answer.status()).into());
    }
    let body = Limited::new(answer.into_body(), BYTES_MAX).collect().await?.to_bytes();
    drop(sender);
    serving.abort();
    Ok(String::from_utf8(body.to_vec())?)
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let entry = |line: &str| {
            // An exemplar may follow the value after ` # `.
            let line = line.split(" # ").next()?;
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(entry).collect())
    }

    /// Returns how much a metric of this printed name and labels has grown since `before`.
    fn growth(&self, before: &Self, name: &str) -> f64 {
        let value = |of: &Self| of.0.get(name).copied().unwrap_or(0.0);
        value(self) - value(before)
    }

    /// Returns the growth of a metric, summed over its labels.
    fn growth_of_all(&self, before: &Self, name: &str) -> f64 {
        let has_name = |key: &&String| key.split('{').next() == Some(name);
        self.0.keys().filter(has_name).fold(0.0, |sum, key| sum + self.growth(before, key))
    }

    /// Returns the mean of each labelled histogram of this name, times `scale`.
    fn means(&self, before: &Self, name: &str, scale: f64) -> Vec<ServerMean> {
        let prefix = format!("{name}_count{{");
        let mean = |key: &String| {
            let labels = key.strip_prefix(&prefix)?;
            let count = self.growth(before, key);
            let sum = self.growth(before, &format!("{name}_sum{{{labels}"));
            let name = labels.split('"').nth(1)?.to_owned();
            (count > 0.0).then(|| ServerMean { name, count, mean: sum / count * scale })
        };
        self.0.keys().filter_map(mean).collect()
    }
}

impl ServerView {
    pub(super) fn between(before: &Metrics, after: &Metrics) -> Self {
        let ms = |name| after.means(before, name, 1000.0);
        Self {
            stages_ms: ms("menshen_stage_seconds"),
            queue_ms: ms("menshen_queue_wait_seconds"),
            batch_rows: after.means(before, "menshen_batch_rows", 1.0),
            batch_ms: ms("menshen_batch_run_seconds"),
            refused: after.growth_of_all(before, "menshen_tickets_refused_total"),
            rows_dropped: after.growth_of_all(before, "menshen_rows_dropped_total"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# HELP menshen_stage_seconds Time of one picture in one stage.
# TYPE menshen_stage_seconds histogram
menshen_stage_seconds_sum{stage=\"decode\"} 1.0
menshen_stage_seconds_count{stage=\"decode\"} 100
menshen_tickets_refused_total{what=\"requests\"} 2
";
    const AFTER: &str = "\
menshen_stage_seconds_sum{stage=\"decode\"} 1.5
menshen_stage_seconds_count{stage=\"decode\"} 200
menshen_stage_seconds_bucket{le=\"0.1\",stage=\"decode\"} 200 # {trace=\"a\"} 0.1
menshen_stage_seconds_sum{stage=\"align\"} 0.25
menshen_stage_seconds_count{stage=\"align\"} 50
menshen_batch_rows_sum{lane=\"yunet/2023mar\"} 30
menshen_batch_rows_count{lane=\"yunet/2023mar\"} 10
menshen_batch_rows_sum{lane=\"idle/1\"} 0
menshen_batch_rows_count{lane=\"idle/1\"} 0
menshen_tickets_refused_total{what=\"requests\"} 5
menshen_tickets_refused_total{what=\"bytes\"} 1
";

    #[test]
    fn only_what_happened_during_the_run_counts() {
        let (before, after) = (Metrics::parse(BEFORE), Metrics::parse(AFTER));
        let view = ServerView::between(&before, &after);
        let mean = |name: &str, count, mean| ServerMean { name: name.to_owned(), count, mean };
        assert_eq!(view.stages_ms, [mean("align", 50.0, 5.0), mean("decode", 100.0, 5.0)]);
        assert_eq!(view.batch_rows, [mean("yunet/2023mar", 10.0, 3.0)]);
        assert_eq!((view.refused, view.rows_dropped), (4.0, 0.0));
    }
}
