//! Histograms in the formats of HdrHistogram, which other tools read and plot.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::LoadError;
use super::run::RunResult;

/// Nanoseconds of a millisecond: the histograms hold nanoseconds, and people read milliseconds.
const NANOS_PER_MS: f64 = 1e6;

/// Writes the latencies of every second as an interval log (version 1.3, V2 histograms with
/// deflate, in nanoseconds). With several kinds of calls each line has its kind as tag, so that the
/// sum of all lines is the histogram of all calls.
///
/// # Errors
/// The file cannot be written.
pub fn write_hlog(path: &Path, result: &RunResult) -> Result<(), LoadError> {
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[Latencies in nanoseconds, from the intended time; answered calls only]")
        .with_start_time(result.started)
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(NANOS_PER_MS)
        .begin_log_with(&mut log, &mut serializer)
        .map_err(|error| LoadError::Histogram(error.to_string()))?;
    let since_base = result.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    let has_tags = result.total.kinds().count() > 1;
    let mut started = Duration::ZERO;
    for window in &result.windows {
        let length = window.ended.saturating_sub(started);
        for (kind, encoded) in &window.latencies {
            let latency: Histogram<u64> = Deserializer::new()
                .deserialize(&mut &encoded[..])
                .map_err(|error| LoadError::Histogram(format!("{error:?}")))?;
            let tag = Tag::new(kind.name()).filter(|_| has_tags);
            let written = writer.write_histogram(&latency, since_base + started, length, tag);
            written.map_err(|error| LoadError::Histogram(format!("{error:?}")))?;
        }
        started = window.ended;
    }
    std::fs::write(path, log).map_err(|source| LoadError::Write { path: path.to_owned(), source })
}

/// Encodes a histogram: some kilobytes instead of hundreds.
pub(super) fn encode(histogram: &Histogram<u64>) -> Vec<u8> {
    let mut encoded = Vec::new();
    let written = V2DeflateSerializer::new().serialize(histogram, &mut encoded);
    written.expect("a histogram of u64 fits its format, and writing to memory does not fail");
    encoded
}

/// Writes the latencies of all calls as a percentile distribution, in milliseconds.
///
/// # Errors
/// The file cannot be written.
pub fn write_hgrm(path: &Path, result: &RunResult) -> Result<(), LoadError> {
    let text = percentile_distribution(&result.total.all().latency);
    std::fs::write(path, text).map_err(|source| LoadError::Write { path: path.to_owned(), source })
}

/// Steps of a percentile distribution in each half of the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Returns the text that `outputPercentileDistribution` of HdrHistogram prints.
fn percentile_distribution(histogram: &Histogram<u64>) -> Vec<u8> {
    const MEMORY: &str = "writing to memory does not fail";
    let mut text = Vec::new();
    writeln!(text, "{:>12} {:>14} {:>10} {:>14}", "Value", "Percentile", "TotalCount", "1/(1-P)")
        .expect(MEMORY);
    writeln!(text).expect(MEMORY);
    let mut count = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        count += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NANOS_PER_MS;
        let quantile = step.quantile_iterated_to();
        write!(text, "{value:12.3} {quantile:2.12} {count:10}").expect(MEMORY);
        if quantile < 1.0 {
            write!(text, " {:14.2}", 1.0 / (1.0 - quantile)).expect(MEMORY);
        }
        writeln!(text).expect(MEMORY);
    }
    let ms = |value: f64| value / NANOS_PER_MS;
    writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        ms(histogram.mean()),
        ms(histogram.stdev())
    )
    .expect(MEMORY);
    writeln!(
        text,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        ms(histogram.max() as f64),
        histogram.len()
    )
    .expect(MEMORY);
    writeln!(text, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), 2048)
        .expect(MEMORY);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_distribution_ends_with_all_calls_at_the_largest_value() {
        let mut histogram = super::super::recorder::nanoseconds();
        (1..=1000).for_each(|ms| histogram.record(ms * 1_000_000).unwrap());
        let text = String::from_utf8(percentile_distribution(&histogram)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].contains("Percentile") && lines[1].is_empty(), "{text}");
        let rows: Vec<Vec<f64>> = lines[2..]
            .iter()
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|cell| cell.parse().unwrap()).collect())
            .collect();
        let last = rows.last().unwrap();
        assert!((last[0] - 1000.0).abs() <= 1.0 && last[1..] == [1.0, 1000.0], "{last:?}");
        let half = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((half[0] - 500.0).abs() <= 0.5 && half[3] == 2.0, "{half:?}");
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
