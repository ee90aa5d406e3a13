//! A line of mesh points along an eye or a mouth, in axes along the feature.

use crate::portrait::Point;

/// Axes of a feature: `along` runs from the first corner to the second, `down` across. Unit:
/// pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes {
    origin: [f32; 2],
    along: [f32; 2],
    /// Distance of the corners in pixels.
    pub(crate) width: f32,
}

impl Axes {
    /// Creates axes from the corner at image left to the corner at image right.
    pub(crate) fn new(left: Point, right: Point) -> Self {
        let line = [right[0] - left[0], right[1] - left[1]];
        let width = line[0].hypot(line[1]);
        Self { origin: [left[0], left[1]], along: line.map(|component| component / width), width }
    }

    pub(crate) fn canvas_to_axes(&self, at: [f32; 2]) -> [f32; 2] {
        let (x, y) = (at[0] - self.origin[0], at[1] - self.origin[1]);
        let [c, s] = self.along;
        [c * x + s * y, c * y - s * x]
    }

    pub(crate) fn axes_to_canvas(&self, [along, down]: [f32; 2]) -> [f32; 2] {
        let [c, s] = self.along;
        [self.origin[0] + c * along - s * down, self.origin[1] + s * along + c * down]
    }
}

/// The height of a line along the axes. Beyond the corners the height is 0.
#[derive(Debug, Clone)]
pub(crate) struct Polyline(Vec<[f32; 2]>);

impl Polyline {
    /// Creates the line through the numbered mesh points and both corners.
    pub(crate) fn new(axes: &Axes, points: &[Point], numbers: &[usize]) -> Self {
        let inner = numbers
            .iter()
            .map(|number| axes.canvas_to_axes([points[*number][0], points[*number][1]]));
        let mut knots: Vec<[f32; 2]> = inner.collect();
        knots.push([0.0, 0.0]);
        knots.push([axes.width, 0.0]);
        knots.sort_by(|a, b| a[0].total_cmp(&b[0]));
        knots.retain(|knot| (0.0..=axes.width).contains(&knot[0]));
        Self(knots)
    }

    pub(crate) fn height_at(&self, along: f32) -> f32 {
        let after = self.0.partition_point(|knot| knot[0] <= along);
        if after == 0 || after == self.0.len() {
            return 0.0;
        }
        let ([a, low], [b, high]) = (self.0[after - 1], self.0[after]);
        low + (high - low) * (along - a) / (b - a).max(1e-3)
    }
}

/// Returns the pixels of a square with half side `reach` around `middle`, cut off at the picture's
/// edges.
pub(crate) fn pixels_around(
    middle: [f32; 2],
    reach: f32,
    size: [usize; 2],
) -> impl Iterator<Item = [usize; 2]> {
    let [columns, rows] = [0, 1].map(|axis| {
        let low = (middle[axis] - reach).max(0.0) as usize;
        low..size[axis].min((middle[axis] + reach).max(0.0) as usize)
    });
    rows.flat_map(move |y| columns.clone().map(move |x| [x, y]))
}

/// Returns the position in the interval `source` that appears at `at` once `source` is stretched to
/// the interval `stretched`.
pub(crate) fn map_interval(at: f32, stretched: [f32; 2], source: [f32; 2]) -> f32 {
    let fraction = (at - stretched[0]) / (stretched[1] - stretched[0]).max(1e-3);
    source[0] + fraction * (source[1] - source[0])
}
