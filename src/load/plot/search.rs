//! The trials of a saturation search: latency by rate.

use menshen_evaluation::svg::Picture;

use super::axis::{Axis, drawable};
use super::panel::{Frame, Legend};
use super::series::{Pen, Point};
use super::units::count;
use super::{PlotData, TrialSample};

/// Radius of the dots and rings, in pixels.
const RADIUS: f64 = 4.0;

/// Share of the rate below which the answers a second are drawn, too.
const ACHIEVED_MIN: f64 = 0.98;

/// Space right of the highest rate, as a factor.
const MARGIN: f64 = 1.04;

/// The line through the trials, the marks of passed and failed trials, and of the found rate.
const MEDIANS: Pen = Pen::new("trace", "stroke-opacity=\".45\" style=\"stroke-width:1.5\"");
const SHORTFALL: Pen = Pen::new("c6", "style=\"stroke-width:1.5\" stroke-dasharray=\"1 4\"");
const FOUND: Pen = Pen::new("c0", "");
const PASSED: &str = "trace";
const FAILED: &str = "c6";

/// Returns true if there is a trial to draw.
pub(super) fn has_data(data: &PlotData) -> bool {
    !trials(data).is_empty()
}

/// Draws the panel.
pub(super) fn draw(picture: &mut Picture, frame: Frame, data: &PlotData) {
    let trials = trials(data);
    let found = data.saturation.and_then(drawable);
    let highest = trials.iter().map(|trial| trial.rate).chain(found).fold(0.0, f64::max);
    let x = Axis::from_zero(highest * MARGIN, frame.across());
    let latencies = trials.iter().filter_map(|trial| trial.p99_ms);
    let y = Axis::latency(latencies.chain(data.limit_ms()), frame.up());
    frame.draw(picture, "Search for saturation: p99 of the latency by rate", &x, &y);
    frame.label_across(picture, &x, "rate (calls a second)");
    frame.draw_limit(picture, &y, data.limit_ms());
    if let Some(rate) = found {
        let at = x.position(rate);
        let class = format!("{} curve", FOUND.class);
        picture.line(&class, [at, frame.bottom], [at, frame.top], FOUND.style);
    }
    MEDIANS.draw(picture, &y, &medians(&trials, &x));
    let has_shortfall = draw_trials(picture, frame, &trials, [&x, &y]);

    let mut legend = Legend::new(picture, frame, &[]);
    legend.dot(PASSED, RADIUS, "objective met");
    legend.ring(FAILED, RADIUS, "not met");
    if trials.iter().any(|trial| trial.p99_ms.is_none()) {
        legend.ring(FAILED, RADIUS, "at the upper edge: no answer");
    }
    if has_shortfall {
        legend.line(SHORTFALL, "answered a second, if fewer", &[]);
    }
    legend.line(MEDIANS, "median of equal rates", &[]);
    legend.limit(data.limit_ms());
    if let Some(rate) = found {
        legend.line(FOUND, "saturation", &[&format!("{}/s", count(rate))]);
    }
}

/// Draws the trials; those that failed lie in front. A trial without answers is at the upper edge.
/// Returns true if a trial had fewer answers a second than its rate.
fn draw_trials(
    picture: &mut Picture,
    frame: Frame,
    trials: &[TrialSample],
    [x, y]: [&Axis; 2],
) -> bool {
    let mut has_shortfall = false;
    let height = |trial: &TrialSample| trial.p99_ms.map_or(frame.top, |ms| y.position(ms));
    for trial in trials {
        if trial.achieved < trial.rate * ACHIEVED_MIN {
            let level = height(trial);
            let ends = [trial.achieved, trial.rate].map(|rate| [x.position(rate), level]);
            picture.polyline(&format!("{} curve", SHORTFALL.class), SHORTFALL.style, &ends);
            has_shortfall = true;
        }
    }
    for trial in trials.iter().filter(|trial| trial.passed) {
        picture.dot(PASSED, [x.position(trial.rate), height(trial)], RADIUS);
    }
    for trial in trials.iter().filter(|trial| !trial.passed) {
        picture.ring(FAILED, [x.position(trial.rate), height(trial)], RADIUS);
    }
    has_shortfall
}

/// Returns the trials by rate, with values that can be drawn.
fn trials(data: &PlotData) -> Vec<TrialSample> {
    let mut trials = Vec::new();
    for trial in &data.trials {
        if let Some(rate) = drawable(trial.rate) {
            let achieved = drawable(trial.achieved).unwrap_or(rate);
            let p99_ms = trial.p99_ms.and_then(drawable);
            trials.push(TrialSample { rate, achieved, p99_ms, passed: trial.passed });
        }
    }
    trials.sort_by(|left, right| left.rate.total_cmp(&right.rate));
    trials
}

/// Returns the median latency of each rate.
fn medians(trials: &[TrialSample], x: &Axis) -> Vec<Point> {
    let mut points = Vec::new();
    for equal in trials.chunk_by(|left, right| left.rate == right.rate) {
        let mut latencies: Vec<f64> = equal.iter().filter_map(|trial| trial.p99_ms).collect();
        latencies.sort_by(f64::total_cmp);
        if let Some(median) = latencies.get(latencies.len() / 2) {
            points.push((x.position(equal[0].rate), Some(*median)));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(rate: f64, p99_ms: Option<f64>, passed: bool) -> TrialSample {
        TrialSample { rate, achieved: rate.min(30.0), p99_ms, passed }
    }

    #[test]
    fn trials_are_dots_and_rings_at_rising_rates() {
        let data = PlotData {
            trials: vec![
                trial(40.0, Some(900.0), false),
                trial(20.0, Some(15.0), true),
                trial(20.0, Some(25.0), true),
                trial(20.0, Some(20.0), true),
                trial(80.0, None, false),
            ],
            saturation: Some(20.0),
            ..PlotData::default()
        };
        let mut picture = Picture::new(960.0, 400.0);
        draw(&mut picture, Frame { top: 100.0, bottom: 300.0 }, &data);
        let svg = picture.finish();
        assert_eq!(svg.matches("trace dot").count(), 3 + 1, "one is in the legend: {svg}");
        assert_eq!(svg.matches("c6 ring").count(), 2 + 2, "two are in the legend: {svg}");
        assert!(svg.contains(">20/s</text>"), "{svg}");
        let x = Axis::from_zero(100.0, [0.0, 100.0]);
        let medians = medians(&trials(&data), &x);
        assert_eq!(medians, [(20.0, Some(20.0)), (40.0, Some(900.0))]);
    }
}
