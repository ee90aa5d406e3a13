//! Axes: where a value lies, and the ticks.

use super::units::{count, latency};

/// Least and largest latency on an axis, in milliseconds: a microsecond, and more than a day.
const LATENCY_MS: [f64; 2] = [1e-3, 1e8];

/// Largest value that is drawn. No sum of such values overflows.
const VALUE_MAX: f64 = 1e15;

/// Space that is kept between the data and the ends of a logarithmic axis, as a factor.
const MARGIN: f64 = 1.1;

/// Space above the largest count, as a factor.
const HEADROOM: f64 = 1.05;

/// A tick that lies so little beyond the end of a linear axis moves the end: runs of 30 s end a
/// little earlier or later.
const STRETCH_MAX: f64 = 1.02;

/// Least distance of ticks on a vertical and on a horizontal axis, in pixels.
const VERTICAL_GAP: f64 = 18.0;
const HORIZONTAL_GAP: f64 = 52.0;

/// Maximum number of ticks of a linear axis: more than fit.
const TICKS_MAX: u32 = 50;

/// Ticks of a logarithmic axis in each decade, the most first, and their least distance in decades.
const DECADE_TICKS: [(&[f64], f64); 3] =
    [(&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0], 0.124), (&[1.0, 2.0, 5.0], 0.301), (&[1.0], 1.0)];

/// Quantiles with a tick, and their labels in per cent.
const QUANTILE_TICKS: [(f64, &str); 8] = [
    (0.0, "0"),
    (0.5, "50"),
    (0.9, "90"),
    (0.99, "99"),
    (0.999, "99.9"),
    (0.9999, "99.99"),
    (0.99999, "99.999"),
    (0.999999, "99.9999"),
];

/// A direction in the picture along which values lie.
#[derive(Debug)]
pub(super) struct Axis {
    scale: fn(f64) -> f64,
    /// Least and largest value.
    range: [f64; 2],
    /// Positions of these values.
    pixels: [f64; 2],
    pub(super) ticks: Vec<Tick>,
}

/// A value with a line across the panel.
#[derive(Debug, PartialEq)]
pub(super) struct Tick {
    /// Position on the axis, in pixels.
    pub(super) at: f64,
    pub(super) label: String,
}

impl Axis {
    /// Returns a logarithmic axis for these finite latencies. Its ends are round numbers.
    pub(super) fn latency(latencies_ms: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let [low, high] = LATENCY_MS;
        let (mut least, mut largest) = (high, low);
        for ms in latencies_ms {
            least = least.min(ms.clamp(low, high));
            largest = largest.max(ms.clamp(low, high));
        }
        let range = [
            round_down((least.min(largest) / MARGIN).max(low)),
            round_up((largest.max(least) * MARGIN).min(high)),
        ];
        Self::new(f64::log10, range, pixels).with_ticks(&decade_ticks(range, pixels), latency)
    }

    /// Returns a vertical linear axis from 0 to a round number above `largest`.
    pub(super) fn counts(largest: f64, pixels: [f64; 2]) -> Self {
        let largest = if largest > 0.0 { largest * HEADROOM } else { 1.0 };
        let step = round_up(largest / (length(pixels) / VERTICAL_GAP).floor());
        let end = step * (largest / step - 1e-9).ceil();
        Self::new(identity, [0.0, end], pixels).with_ticks(&multiples(step, end), count)
    }

    /// Returns a horizontal linear axis from 0 to `end`, or to a tick just beyond.
    pub(super) fn from_zero(end: f64, pixels: [f64; 2]) -> Self {
        let end = if end > 0.0 { end } else { 1.0 };
        let step = round_up(end * HORIZONTAL_GAP / length(pixels));
        let tick = step * (end / step).ceil();
        let end = if tick <= end * STRETCH_MAX { tick } else { end };
        Self::new(identity, [0.0, end], pixels).with_ticks(&multiples(step, end), count)
    }

    /// Returns an axis of depths from 0 to `largest`, with the ticks of [`QUANTILE_TICKS`].
    pub(super) fn depths(largest: f64, pixels: [f64; 2]) -> Self {
        let mut axis = Self::new(identity, [0.0, largest], pixels);
        for (quantile, label) in QUANTILE_TICKS {
            if depth(quantile) <= largest {
                let at = axis.position(depth(quantile));
                axis.ticks.push(Tick { at, label: label.to_owned() });
            }
        }
        axis
    }

    fn new(scale: fn(f64) -> f64, range: [f64; 2], pixels: [f64; 2]) -> Self {
        Self { scale, range, pixels, ticks: Vec::new() }
    }

    fn with_ticks(mut self, values: &[f64], label: fn(f64) -> String) -> Self {
        self.ticks = values
            .iter()
            .map(|value| Tick { at: self.position(*value), label: label(*value) })
            .collect();
        self
    }

    /// Returns the position of a value in pixels. Values beyond the axis are at its ends.
    pub(super) fn position(&self, value: f64) -> f64 {
        let [low, high] = self.range;
        let [from, to] = self.range.map(self.scale);
        let share = ((self.scale)(value.clamp(low, high)) - from) / (to - from);
        self.pixels[0] + (self.pixels[1] - self.pixels[0]) * share
    }
}

/// Returns a value as it is drawn, which is finite and not below 0; `None` for what is no number.
pub(super) fn drawable(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(0.0, VALUE_MAX))
}

/// Returns the depth of a quantile below 1: the number of its nines, so 1 for 0.9 and 2 for 0.99.
pub(super) fn depth(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn identity(value: f64) -> f64 {
    value
}

fn length(pixels: [f64; 2]) -> f64 {
    (pixels[1] - pixels[0]).abs()
}

/// Returns the ticks of a logarithmic axis, as many as fit.
fn decade_ticks(range: [f64; 2], pixels: [f64; 2]) -> Vec<f64> {
    let [low, high] = range.map(f64::log10);
    let decade = length(pixels) / (high - low);
    let fits = |(_, distance): &&(&[f64], f64)| decade * distance >= VERTICAL_GAP;
    let digits = DECADE_TICKS.iter().find(fits).map_or(&[1.0][..], |(digits, _)| digits);
    let every = (VERTICAL_GAP / decade).ceil();
    let mut ticks = Vec::new();
    let mut exponent = (low / every).floor() * every;
    while exponent <= high {
        ticks.extend(digits.iter().map(|digit| digit * 10_f64.powf(exponent)));
        exponent += every;
    }
    ticks.retain(|tick| *tick >= range[0] * (1.0 - 1e-9) && *tick <= range[1] * (1.0 + 1e-9));
    ticks
}

/// Returns the multiples of `step` from 0 to `end`.
fn multiples(step: f64, end: f64) -> Vec<f64> {
    let ticks = (0..TICKS_MAX).map(|index| step * f64::from(index));
    ticks.take_while(|tick| *tick <= end * (1.0 + 1e-9)).collect()
}

/// Returns the least of 1, 2 and 5 times a power of ten at or above `value`, which is above 0.
fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let digits = [1.0, 2.0, 5.0].into_iter().find(|digit| value <= digit * decade * (1.0 + 1e-9));
    digits.unwrap_or(10.0) * decade
}

/// Returns the largest of 1, 2 and 5 times a power of ten at or below `value`, which is above 0.
fn round_down(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let digits = [5.0, 2.0].into_iter().find(|digit| value >= digit * decade * (1.0 - 1e-9));
    digits.unwrap_or(1.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: [f64; 2] = [50.0, 650.0];
    const UP: [f64; 2] = [300.0, 100.0];

    fn assert_ticks(axis: &Axis, gap: f64) {
        let [from, to] = axis.pixels;
        let shares: Vec<f64> =
            axis.ticks.iter().map(|tick| (tick.at - from) / (to - from)).collect();
        assert!(shares.len() >= 2, "{axis:?}");
        assert!(shares[0] >= 0.0 && shares[shares.len() - 1] <= 1.0, "{axis:?}");
        let is_apart = |pair: &[f64]| (pair[1] - pair[0]) * (to - from).abs() > gap - 0.5;
        assert!(shares.windows(2).all(is_apart), "{axis:?}");
    }

    #[test]
    fn ticks_of_latencies_are_apart_and_cover_the_values() {
        let cases: [&[f64]; 9] = [
            &[10.0],
            &[10.0, 10.0],
            &[0.0],
            &[],
            &[0.05, 60_000.0],
            &[3.1, 4.2],
            &[1e-300, 1e300],
            &[999.0, 1_001.0],
            &[5.0, 50.0, 500.0],
        ];
        for values in cases {
            let axis = Axis::latency(values.iter().copied(), UP);
            assert_ticks(&axis, VERTICAL_GAP);
            for ms in values.iter().map(|ms| ms.clamp(LATENCY_MS[0], LATENCY_MS[1])) {
                assert!(axis.range[0] <= ms && ms <= axis.range[1], "{ms}: {axis:?}");
            }
        }
    }

    #[test]
    fn ticks_of_counts_start_at_0_and_end_at_or_above_the_largest() {
        for largest in [0.0, 0.03, 1.0, 7.0, 20.0, 101.0, 36_000.0, 1e12] {
            let axis = Axis::counts(largest, UP);
            assert_ticks(&axis, VERTICAL_GAP);
            assert!(axis.range[1] >= largest, "{axis:?}");
            let (first, last) = (&axis.ticks[0], axis.ticks.last().unwrap());
            assert_eq!((first.at, last.at), (UP[0], UP[1]), "{axis:?}");
        }
    }

    #[test]
    fn an_axis_from_0_ends_at_its_end_or_at_a_tick_just_beyond() {
        for (end, expected) in
            [(0.0, 1.0), (0.3, 0.3), (1.0, 1.0), (29.97, 30.0), (30.02, 30.02), (179.0, 180.0)]
        {
            let axis = Axis::from_zero(end, RIGHT);
            assert_ticks(&axis, HORIZONTAL_GAP);
            assert!((axis.range[1] - expected).abs() < 1e-9, "{end}: {axis:?}");
        }
    }

    #[test]
    fn larger_values_lie_further_along_and_values_beyond_at_the_ends() {
        let axes = [
            Axis::latency([1.0, 1e4].into_iter(), RIGHT),
            Axis::counts(1e4, RIGHT),
            Axis::from_zero(1e4, RIGHT),
        ];
        for axis in axes {
            let values = [0.0, 1.0, 2.0, 50.0, 700.0, 9_000.0, 1e9];
            let positions = values.map(|value| axis.position(value));
            assert!(positions.is_sorted(), "{positions:?}");
            assert_eq!([positions[0], positions[6]], RIGHT);
        }
    }

    #[test]
    fn nines_are_as_far_apart_as_decades() {
        for (quantile, expected) in [(0.0, 0.0), (0.75, 0.60206), (0.9, 1.0), (0.999, 3.0)] {
            assert!((depth(quantile) - expected).abs() < 1e-5, "{quantile}");
        }
        let axis = Axis::depths(3.1, RIGHT);
        let labels: Vec<&str> = axis.ticks.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(labels, ["0", "50", "90", "99", "99.9"]);
    }

    #[test]
    fn round_numbers_are_1_2_and_5_in_each_decade() {
        for (value, down, up) in [(1.0, 1.0, 1.0), (3.0, 2.0, 5.0), (70.0, 50.0, 100.0)] {
            assert_eq!((round_down(value), round_up(value)), (down, up), "{value}");
        }
    }
}
