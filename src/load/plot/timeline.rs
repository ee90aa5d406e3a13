//! Latency and throughput over time.

use menshen_evaluation::svg::Picture;

use super::SecondSample;
use super::axis::{Axis, drawable};
use super::panel::{Frame, Legend};
use super::series::{Pen, Point, largest, mean, rises, thin};
use super::units::{count, latency, time_unit};

/// A last sample shorter than this, in seconds, counts as a part of the one before. A run ends a
/// little after its last second, and the rate of so few calls says nothing.
const SPAN_MIN: f64 = 0.5;

/// Least length of the time axis, in seconds.
const LENGTH_MIN: f64 = 1.0;

/// Least width of a shade, in pixels.
const SHADE_WIDTH_MIN: f64 = 1.5;

/// A line over time: its name, how it is drawn, and its value in a span.
type Line<Value> = (&'static str, Pen, fn(&Span) -> Value);

/// Latencies over time. They never cross, so they share one colour.
const LATENCIES: [Line<Option<f64>>; 3] = [
    ("max", Pen::new("trace", "stroke-opacity=\".38\" style=\"stroke-width:1\""), |span| {
        span.max_ms
    }),
    ("p99", Pen::new("trace", "stroke-opacity=\".62\" style=\"stroke-width:1.5\""), |span| {
        span.p99_ms
    }),
    ("p50", Pen::new("trace", ""), |span| span.p50_ms),
];

/// Calls over time. Answers follow the middle of the broad line of what was due.
const CALLS: [Line<f64>; 3] = [
    ("offered", Pen { class: "band", style: "style=\"stroke-width:7\"", radius: 5.5 }, |span| {
        span.offered
    }),
    ("answered", Pen::new("trace", ""), |span| span.answered),
    ("failed", Pen::new("c6", ""), |span| span.failed),
];

/// Calls that ended or were due in a part of the run, about a second.
#[derive(Debug, Clone, PartialEq)]
struct Span {
    /// Start and end, in seconds.
    from: f64,
    to: f64,
    offered: f64,
    answered: f64,
    failed: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
}

impl Span {
    fn new([from, to]: [f64; 2], sample: &SecondSample) -> Self {
        let calls = |calls: f64| drawable(calls).unwrap_or(0.0);
        Self {
            from,
            to,
            offered: calls(sample.offered),
            answered: calls(sample.answered),
            failed: calls(sample.failed),
            p50_ms: sample.p50_ms.and_then(drawable),
            p99_ms: sample.p99_ms.and_then(drawable),
            max_ms: sample.max_ms.and_then(drawable),
        }
    }

    /// Returns calls of this span as calls a second.
    fn per_second(&self, calls: f64) -> f64 {
        let seconds = self.to - self.from;
        if seconds < SPAN_MIN { calls } else { calls / seconds }
    }

    /// Returns true if calls were due and none was answered.
    fn is_silent(&self) -> bool {
        self.offered > 0.0 && self.max_ms.is_none() && self.answered == 0.0
    }

    /// Takes in what happened in the span after this one.
    fn absorb(&mut self, next: &Self) {
        self.to = next.to;
        self.offered += next.offered;
        self.answered += next.answered;
        self.failed += next.failed;
        // Medians cannot be added. That of the longer span is kept.
        self.p50_ms = self.p50_ms.or(next.p50_ms);
        self.p99_ms = largest_of(self.p99_ms, next.p99_ms);
        self.max_ms = largest_of(self.max_ms, next.max_ms);
    }
}

/// A run over time.
pub(super) struct Timeline {
    spans: Vec<Span>,
    /// Unit of the time axis, in seconds, and its name.
    unit: (f64, &'static str),
}

impl Timeline {
    pub(super) fn new(seconds: &[SecondSample]) -> Self {
        let mut spans: Vec<Span> = Vec::new();
        for sample in seconds {
            let Some(to) = drawable(sample.second) else { continue };
            let from = spans.last().map_or((to - 1.0).max(0.0), |span| span.to);
            spans.push(Span::new([from, to.max(from)], sample));
        }
        if let [.., before, last] = &mut spans[..]
            && last.to - last.from < SPAN_MIN
        {
            before.absorb(last);
            spans.pop();
        }
        let end = spans.last().map_or(0.0, |span| span.to);
        Self { spans, unit: time_unit(end) }
    }

    /// Returns true if the run has any length.
    pub(super) fn has_time(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Returns true if there is a latency to draw.
    pub(super) fn has_answers(&self) -> bool {
        self.latencies().next().is_some()
    }

    /// Draws latency over time. The labels of the time axis belong to the panel below.
    pub(super) fn draw_latency(&self, picture: &mut Picture, frame: Frame, limit_ms: Option<f64>) {
        let x = self.axis(frame);
        let y = Axis::latency(self.latencies().chain(limit_ms), frame.up());
        let has_shade = self.shade_silence(picture, frame, &x);
        frame.draw(picture, "Latency over time", &x, &y);
        frame.draw_limit(picture, &y, limit_ms);
        for (_, pen, value) in LATENCIES {
            let points = self.spans.iter().map(|span| (self.middle(&x, span), value(span)));
            pen.draw(picture, &y, &thin(&points.collect::<Vec<Point>>(), largest));
        }
        let mut legend = Legend::new(picture, frame, &["worst second"]);
        for (name, pen, value) in LATENCIES {
            let worst = self.spans.iter().filter_map(value).reduce(f64::max);
            legend.line(pen, name, &[&worst.map_or("–".to_owned(), latency)]);
        }
        legend.limit(limit_ms);
        if has_shade {
            legend.shade("calls due, none answered");
        }
    }

    /// Draws throughput over time, and the time axis.
    pub(super) fn draw_throughput(&self, picture: &mut Picture, frame: Frame) {
        let x = self.axis(frame);
        let rates = |value: fn(&Span) -> f64| -> Vec<Point> {
            let rate = |span: &Span| span.per_second(value(span));
            let points: Vec<Point> =
                self.spans.iter().map(|span| (self.middle(&x, span), Some(rate(span)))).collect();
            thin(&points, mean)
        };
        let [offered, answered, failed] = CALLS.map(|(_, _, value)| rates(value));
        let lines = [offered, answered, rises(&failed)];
        let highest = lines.iter().flatten().filter_map(|point| point.1).fold(0.0, f64::max);
        let y = Axis::counts(highest, frame.up());
        self.shade_silence(picture, frame, &x);
        frame.draw(picture, "Throughput (calls a second)", &x, &y);
        frame.label_across(picture, &x, &format!("time ({})", self.unit.1));
        for ((_, pen, _), points) in CALLS.iter().zip(&lines) {
            pen.draw(picture, &y, points);
        }
        let mut legend = Legend::new(picture, frame, &["calls"]);
        for (name, pen, value) in CALLS {
            let calls: f64 = self.spans.iter().map(value).sum();
            legend.line(pen, name, &[&count(calls)]);
        }
    }

    /// Shades the times in which calls were due and none was answered. Returns true if there are
    /// any.
    fn shade_silence(&self, picture: &mut Picture, frame: Frame, x: &Axis) -> bool {
        let mut shades: Vec<[f64; 2]> = Vec::new();
        for span in self.spans.iter().filter(|span| span.is_silent()) {
            let [from, to] = [span.from, span.to].map(|second| self.position(x, second));
            match shades.last_mut() {
                Some(shade) if from <= shade[1] => shade[1] = shade[1].max(to),
                _ => shades.push([from, to.max(from + SHADE_WIDTH_MIN)]),
            }
        }
        for [from, to] in &shades {
            picture.rect("shade", [*from, frame.top], [to - from, frame.bottom - frame.top]);
        }
        !shades.is_empty()
    }

    fn axis(&self, frame: Frame) -> Axis {
        let end = self.spans.last().map_or(0.0, |span| span.to);
        Axis::from_zero(end.max(LENGTH_MIN) / self.unit.0, frame.across())
    }

    fn position(&self, x: &Axis, second: f64) -> f64 {
        x.position(second / self.unit.0)
    }

    fn middle(&self, x: &Axis, span: &Span) -> f64 {
        self.position(x, (span.from + span.to) / 2.0)
    }

    fn latencies(&self) -> impl Iterator<Item = f64> {
        self.spans.iter().flat_map(|span| [span.p50_ms, span.p99_ms, span.max_ms]).flatten()
    }
}

fn largest_of(left: Option<f64>, right: Option<f64>) -> Option<f64> {
    left.into_iter().chain(right).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: f64, answered: f64, latency_ms: Option<f64>) -> SecondSample {
        SecondSample {
            second,
            answered,
            failed: 1.0,
            offered: 20.0,
            p50_ms: latency_ms,
            p99_ms: latency_ms,
            max_ms: latency_ms,
        }
    }

    fn latency_panel(seconds: &[SecondSample]) -> String {
        let mut picture = Picture::new(960.0, 400.0);
        let frame = Frame { top: 100.0, bottom: 300.0 };
        Timeline::new(seconds).draw_latency(&mut picture, frame, None);
        picture.finish()
    }

    #[test]
    fn a_pause_of_the_server_is_a_gap_with_a_shade() {
        let answer = |at: f64| second(at, 20.0, Some(10.0));
        let seconds = [answer(1.0), answer(2.0), second(3.0, 0.0, None), answer(4.0), answer(5.0)];
        let svg = latency_panel(&seconds);
        assert_eq!(svg.matches("<polyline").count(), 2 * LATENCIES.len(), "{svg}");
        assert_eq!(svg.matches("<rect class=\"shade\"").count(), 2, "one is in the legend: {svg}");
        let svg = latency_panel(&[answer(1.0), answer(2.0)]);
        assert!(!svg.contains("<rect class=\"shade\""), "{svg}");
    }

    #[test]
    fn a_short_end_counts_to_the_second_before() {
        let seconds = [
            second(1.0, 20.0, Some(10.0)),
            second(2.0, 18.0, Some(10.0)),
            second(2.02, 2.0, Some(30.0)),
        ];
        let timeline = Timeline::new(&seconds);
        assert_eq!(timeline.spans.len(), 2);
        let last = &timeline.spans[1];
        assert_eq!((last.to, last.answered), (2.02, 20.0));
        assert_eq!((last.p50_ms, last.max_ms), (Some(10.0), Some(30.0)));
    }

    #[test]
    fn calls_of_a_long_span_are_a_rate() {
        let seconds = [second(1.0, 20.0, None), second(5.0, 20.0, None)];
        let spans = Timeline::new(&seconds).spans;
        assert_eq!(spans.iter().map(|span| span.per_second(span.answered)).sum::<f64>(), 25.0);
    }

    #[test]
    fn an_hour_is_drawn_with_at_most_two_points_a_pixel() {
        let seconds: Vec<SecondSample> =
            (1..=3_600).map(|at| second(f64::from(at), 20.0, Some(f64::from(at % 60)))).collect();
        let svg = latency_panel(&seconds);
        let points = svg
            .lines()
            .filter(|line| line.starts_with("<polyline"))
            .map(|line| line.matches(',').count());
        let across = Frame { top: 0.0, bottom: 0.0 }.across();
        assert!(points.max().unwrap() as f64 <= 2.0 * (across[1] - across[0]) + 1.0);
    }
}
