//! Latency by percentile, on the axis of HdrHistogram: 90, 99 and 99.9 % are equally far apart.

use menshen_evaluation::svg::Picture;

use super::axis::{Axis, depth, drawable};
use super::panel::{Frame, Legend};
use super::series::{Pen, Point, largest, thin};
use super::units::latency;
use super::{PercentileCurve, PlotData};

/// Classes of the curves: one distinct colour each. The missing `c6` marks failed calls.
const CLASSES: [&str; 7] = ["c0", "c1", "c2", "c3", "c4", "c5", "c7"];

/// Least and largest depth at which the axis ends: 90 % and 99.99999 %.
const DEPTHS: [f64; 2] = [1.0, 7.0];

/// Space right of the longest curve, as a factor.
const MARGIN: f64 = 1.03;

/// Radius of the dot at the end of a curve, in pixels.
const END_RADIUS: f64 = 3.5;

/// A curve by depth.
struct Curve<'a> {
    class: &'static str,
    name: &'a str,
    /// Pairs of a depth and a latency in milliseconds, all finite.
    points: Vec<[f64; 2]>,
    /// Whether the last point is the largest latency.
    has_largest: bool,
}

impl<'a> Curve<'a> {
    /// Returns a curve that ends where its data ends. A largest latency, of quantile 1, has no
    /// depth. It is drawn half way between the point before and 100 %, as in Hazen's plotting
    /// positions, which give the largest of n the quantile 1 - 0.5/n.
    fn new(class: &'static str, curve: &'a PercentileCurve) -> Self {
        let mut points: Vec<[f64; 2]> = Vec::new();
        let mut has_largest = false;
        for [quantile, ms] in curve.points.iter().copied() {
            let (Some(quantile), Some(ms)) = (drawable(quantile), drawable(ms)) else { continue };
            let before = points.last().map_or(0.0, |point| point[0]);
            let at = if quantile < 1.0 { depth(quantile) } else { before + depth(0.5) };
            points.push([at.clamp(before, DEPTHS[1]), ms]);
            has_largest = quantile >= 1.0;
        }
        Self { class, name: &curve.name, points, has_largest }
    }

    /// Returns the latency at a quantile, between the points beside it; `None` if the curve ends
    /// before.
    fn latency_at(&self, quantile: f64) -> Option<f64> {
        let at = depth(quantile);
        let Some(after) = self.points.iter().position(|point| point[0] >= at) else {
            return self.points.last().filter(|_| self.has_largest).map(|point| point[1]);
        };
        let [right, high] = self.points[after];
        let [left, low] = self.points[after.saturating_sub(1)];
        let share = if right > left { ((at - left) / (right - left)).max(0.0) } else { 1.0 };
        Some(low + (high - low) * share)
    }

    fn draw(&self, picture: &mut Picture, x: &Axis, y: &Axis) {
        let points: Vec<Point> =
            self.points.iter().map(|[depth, ms]| (x.position(*depth), Some(*ms))).collect();
        let points = thin(&points, largest);
        Pen::new(self.class, "").draw(picture, y, &points);
        if let Some((at, Some(ms))) = points.last() {
            picture.dot(self.class, [*at, y.position(*ms)], END_RADIUS);
        }
    }
}

/// Returns true if there is a latency to draw.
pub(super) fn has_data(data: &PlotData) -> bool {
    !curves(data).is_empty()
}

/// Draws the panel.
pub(super) fn draw(picture: &mut Picture, frame: Frame, data: &PlotData) {
    let curves = curves(data);
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let deepest = points().map(|point| point[0]).fold(DEPTHS[0], f64::max);
    let x = Axis::depths(deepest * MARGIN, frame.across());
    let y = Axis::latency(points().map(|point| point[1]).chain(data.limit_ms()), frame.up());
    frame.draw(picture, "Latency by percentile", &x, &y);
    frame.label_across(picture, &x, "percentile (%), logarithmic towards 100");
    frame.draw_limit(picture, &y, data.limit_ms());
    for curve in curves.iter().rev() {
        curve.draw(picture, &x, &y);
    }
    let mut legend = Legend::new(picture, frame, &["p50", "p99"]);
    for curve in &curves {
        let [p50, p99] = [0.5, 0.99].map(|quantile| curve.latency_at(quantile));
        let [p50, p99] = [p50, p99].map(|ms| ms.map_or("–".to_owned(), latency));
        legend.line(Pen::new(curve.class, ""), curve.name, &[&p50, &p99]);
    }
    legend.limit(data.limit_ms());
}

/// Returns the curves that have points.
fn curves(data: &PlotData) -> Vec<Curve<'_>> {
    let with_class = CLASSES.into_iter().zip(&data.curves);
    let curves = with_class.map(|(class, curve)| Curve::new(class, curve));
    curves.filter(|curve| !curve.points.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(points: &[[f64; 2]]) -> PercentileCurve {
        PercentileCurve { name: "verify".to_owned(), points: points.to_vec() }
    }

    #[test]
    fn depths_rise_along_a_curve_and_the_largest_latency_ends_it() {
        let curve = points(&[[0.0, 1.0], [0.9, 2.0], [0.99, 3.0], [1.0, 4.0]]);
        let curve = Curve::new("c0", &curve);
        let depths: Vec<f64> = curve.points.iter().map(|point| point[0]).collect();
        assert!(depths.is_sorted(), "{depths:?}");
        assert!((depths[3] - depth(0.995)).abs() < 1e-9, "{depths:?}");
    }

    #[test]
    fn latencies_lie_between_points() {
        let curve = points(&[[0.0, 1.0], [0.5, 2.0], [0.9, 4.0], [0.999, 8.0]]);
        let curve = Curve::new("c0", &curve);
        assert_eq!(curve.latency_at(0.5), Some(2.0));
        assert!((curve.latency_at(0.99).unwrap() - 6.0).abs() < 1e-9);
        assert_eq!(curve.latency_at(0.9999), None);
        let single = points(&[[0.0, 7.0], [1.0, 7.0]]);
        let single = Curve::new("c0", &single);
        assert_eq!([0.5, 0.99].map(|at| single.latency_at(at)), [Some(7.0); 2]);
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out() {
        let curve = points(&[[f64::NAN, 1.0], [0.5, f64::INFINITY], [2.0, 3.0]]);
        assert_eq!(Curve::new("c0", &curve).points, [[depth(0.5), 3.0]]);
    }
}
