//! Values along a horizontal axis: thinned to what can be seen, and drawn with gaps.

use menshen_evaluation::svg::Picture;

use super::axis::Axis;

/// A horizontal position in pixels, and a value if there is one.
pub(super) type Point = (f64, Option<f64>);

/// Keeps one point in each half pixel: `join` of the values there.
pub(super) fn thin(points: &[Point], join: fn(&[f64]) -> f64) -> Vec<Point> {
    let half_pixel = |point: &Point| (point.0 * 2.0).floor();
    points
        .chunk_by(|left, right| half_pixel(left) == half_pixel(right))
        .map(|near| {
            let values: Vec<f64> = near.iter().filter_map(|point| point.1).collect();
            (near[0].0, (!values.is_empty()).then(|| join(&values)))
        })
        .collect()
}

/// Returns the largest value, so that no peak is lost.
pub(super) fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN, f64::max)
}

/// Returns the mean, so that no call is counted twice.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().map(|value| value / values.len() as f64).sum()
}

/// Leaves out the points at 0 that are not beside a point above 0. A line then shows only where
/// there is something to see.
pub(super) fn rises(points: &[Point]) -> Vec<Point> {
    let is_above = |at: usize| points.get(at).is_some_and(|point| point.1 > Some(0.0));
    let is_near = |at: usize| is_above(at) || is_above(at + 1) || at > 0 && is_above(at - 1);
    let keep = |(at, point): (usize, &Point)| (point.0, point.1.filter(|_| is_near(at)));
    points.iter().enumerate().map(keep).collect()
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen {
    /// Class of the colour, and further attributes of lines.
    pub(super) class: &'static str,
    pub(super) style: &'static str,
    /// Radius of a lone point, in pixels.
    pub(super) radius: f64,
}

impl Pen {
    pub(super) const fn new(class: &'static str, style: &'static str) -> Self {
        Self { class, style, radius: 2.5 }
    }

    /// Draws a line through the points, interrupted where there is no value. A lone point is a dot.
    pub(super) fn draw(self, picture: &mut Picture, y: &Axis, points: &[Point]) {
        let at = |point: &Point| point.1.map(|value| [point.0, y.position(value)]);
        for piece in points.split(|point| point.1.is_none()) {
            let piece: Vec<[f64; 2]> = piece.iter().filter_map(at).collect();
            match piece[..] {
                [] => {}
                [only] => picture.dot(self.class, only, self.radius),
                _ => picture.polyline(&format!("{} curve", self.class), self.style, &piece),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_pixel_keeps_its_peak() {
        let points = [(1.0, Some(2.0)), (1.1, None), (1.4, Some(9.0)), (1.5, Some(1.0))];
        assert_eq!(thin(&points, largest), [(1.0, Some(9.0)), (1.5, Some(1.0))]);
        assert_eq!(thin(&points, mean)[0], (1.0, Some(5.5)));
        assert_eq!(thin(&[(1.0, None)], largest), [(1.0, None)]);
    }

    #[test]
    fn a_line_without_rises_is_not_seen() {
        let values = [0.0, 0.0, 3.0, 0.0, 0.0, 0.0].map(Some);
        let points: Vec<Point> = (0..6).map(f64::from).zip(values).collect();
        let kept: Vec<Option<f64>> = rises(&points).iter().map(|point| point.1).collect();
        assert_eq!(kept, [None, Some(0.0), Some(3.0), Some(0.0), None, None]);
    }

    #[test]
    fn a_line_is_interrupted_where_a_value_is_missing() {
        let y = Axis::counts(10.0, [100.0, 0.0]);
        let mut picture = Picture::new(10.0, 10.0);
        let values = [Some(1.0), Some(2.0), None, None, Some(3.0), None, Some(4.0), Some(5.0)];
        let points: Vec<Point> = (0..8).map(f64::from).zip(values).collect();
        Pen::new("trace", "").draw(&mut picture, &y, &points);
        let svg = picture.finish();
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
    }
}
