//! The surface under the portrait: a head in front of its background, a flat print, or a print bent
//! around a cylinder. It is a grid of points, each with its position on the canvas.

use crate::portrait::{CANVAS, CHEEKS, CHIN, EYE_DISTANCE, EYE_MIDPOINT, FOREHEAD, NOSE_TIP};
use crate::portrait::{Point, Portrait};

/// Pixels from one grid point to the next; a nose is six steps wide.
pub(crate) const GRID_STEP: usize = 8;
pub(crate) const COLUMNS: usize = CANVAS[0] / GRID_STEP + 1;
pub(crate) const ROWS: usize = CANVAS[1] / GRID_STEP + 1;
/// Distance of a face at 45 cm, in pixels of the canvas; eyes are 6.3 cm apart. The perspective
/// depends on it.
pub(crate) const DISTANCE: f32 = 45.0 / 6.3 * EYE_DISTANCE;
/// Distance of the tip of the nose before the eyes, in eye distances. It gives `r = 1.27 tan(yaw)`,
/// as on the canonical head. The network's own depth is flatter and differs by portrait.
const NOSE_DEPTH: f32 = 0.635;
/// Distance of the head's axis behind the eyes, in eye distances.
const AXIS_DEPTH: f32 = 0.9;
/// Standard deviation of the bell curve that spreads the depth of mesh points, in pixels.
const BELL_WIDTH: f32 = 9.0;

/// One point of the grid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vertex {
    /// Position on the canvas, in pixels.
    pub(crate) texture: [f32; 2],
    /// Position in space at rest, relative to the camera's axis; the eyes have depth 0.
    pub(crate) position: Point,
    /// Share of the head's turn that the point follows: 1 on the head, 0 in the background.
    pub(crate) turn_weight: f32,
}

/// The points of the grid, line by line, and the point about which the grid turns.
#[derive(Debug, Clone)]
pub(crate) struct Surface {
    pub(crate) vertices: Vec<Vertex>,
    pub(crate) pivot: Point,
}

impl Surface {
    /// Creates the person, who turns before a background that stays.
    pub(crate) fn head(portrait: &Portrait) -> Self {
        let depth_map = DepthMap::new(portrait);
        let vertices = grid()
            .map(|texture| {
                let depth = depth_map.depth(texture);
                let turn_weight = depth_map.turn_weight(texture);
                Vertex { texture, position: unproject(texture, depth), turn_weight }
            })
            .collect();
        let [x, y, _] = unproject(depth_map.centre, 0.0);
        Self { vertices, pivot: [x, y, AXIS_DEPTH * EYE_DISTANCE] }
    }

    /// Creates a print of the whole canvas, held flat.
    pub(crate) fn flat_print() -> Self {
        let vertices = grid()
            .map(|texture| Vertex { texture, position: unproject(texture, 0.0), turn_weight: 1.0 })
            .collect();
        Self { vertices, pivot: unproject(EYE_MIDPOINT, 0.0) }
    }

    /// Creates a print bent around an upright cylinder, with the face at its front. The grid ends
    /// where the print would run behind the cylinder's edge.
    pub(crate) fn bent_print(radius_cm: f32) -> Self {
        let radius = radius_cm / 6.3 * EYE_DISTANCE;
        let vertices = grid()
            .map(|texture| {
                let [x, y, _] = unproject(texture, 0.0);
                // Less than a quarter turn, or the paper would hide itself.
                let angle = ((x - unproject(EYE_MIDPOINT, 0.0)[0]) / radius).clamp(-1.4, 1.4);
                let position = [radius * angle.sin(), y, radius * (1.0 - angle.cos())];
                Vertex { texture, position, turn_weight: 1.0 }
            })
            .collect();
        Self { vertices, pivot: [0.0, unproject(EYE_MIDPOINT, 0.0)[1], 0.0] }
    }

    /// Returns the surface between the grid points, at a position of the canvas inside the grid.
    pub(crate) fn at(&self, texture: [f32; 2]) -> Vertex {
        let [column, row] = texture.map(|coordinate| coordinate / GRID_STEP as f32);
        let first = row as usize * COLUMNS + column as usize;
        let (right, down) = (column.fract(), row.fract());
        let corners = [
            (self.vertices[first], (1.0 - right) * (1.0 - down)),
            (self.vertices[first + 1], right * (1.0 - down)),
            (self.vertices[first + COLUMNS], (1.0 - right) * down),
            (self.vertices[first + COLUMNS + 1], right * down),
        ];
        let mean = |value: &dyn Fn(&Vertex) -> f32| -> f32 {
            corners.iter().map(|(corner, weight)| weight * value(corner)).sum()
        };
        let position = std::array::from_fn(|axis| mean(&|vertex| vertex.position[axis]));
        Vertex { texture, position, turn_weight: mean(&|vertex| vertex.turn_weight) }
    }
}

fn grid() -> impl Iterator<Item = [f32; 2]> {
    (0..ROWS * COLUMNS)
        .map(|at| [(at % COLUMNS * GRID_STEP) as f32, (at / COLUMNS * GRID_STEP) as f32])
}

/// Returns the position in space at `depth` that the camera sees at `texture`.
fn unproject(texture: [f32; 2], depth: f32) -> Point {
    let near = (DISTANCE + depth) / DISTANCE;
    let x = texture[0] - CANVAS[0] as f32 / 2.0;
    let y = texture[1] - CANVAS[1] as f32 / 2.0;
    [x * near, y * near, depth]
}

/// Returns the position on the canvas at which the camera sees a position in space.
pub(crate) fn project(position: Point) -> [f32; 2] {
    let near = DISTANCE / (DISTANCE + position[2]);
    [position[0] * near + CANVAS[0] as f32 / 2.0, position[1] * near + CANVAS[1] as f32 / 2.0]
}

/// Depth of every position of the canvas, interpolated from the mesh points.
struct DepthMap<'a> {
    points: &'a [Point],
    /// Factor from the network's depth to pixels behind the eyes.
    gain: f32,
    eyes: f32,
    /// Centre and half axes of the ellipse around the head with its hair.
    centre: [f32; 2],
    axes: [f32; 2],
}

impl<'a> DepthMap<'a> {
    fn new(portrait: &'a Portrait) -> Self {
        let points = &portrait.points;
        let [right, left] = CHEEKS.map(|cheek| points[cheek]);
        // The crown is half an eye distance above the hairline.
        let top = points[FOREHEAD][1] - 0.5 * EYE_DISTANCE;
        let bottom = points[CHIN][1];
        let mut depth_map = Self {
            points,
            gain: 1.0,
            eyes: 0.0,
            centre: [(right[0] + left[0]) / 2.0, (top + bottom) / 2.0],
            axes: [(left[0] - right[0]) * 0.55, (bottom - top) / 2.0],
        };
        let [right, left] = portrait.eyes();
        depth_map.eyes = (depth_map.interpolate_depth([right[0], right[1]])
            + depth_map.interpolate_depth([left[0], left[1]]))
            / 2.0;
        let nose = points[NOSE_TIP];
        let nose_depth = depth_map.eyes - depth_map.interpolate_depth([nose[0], nose[1]]);
        depth_map.gain = NOSE_DEPTH * EYE_DISTANCE / nose_depth.max(0.2 * EYE_DISTANCE);
        depth_map
    }

    fn depth(&self, at: [f32; 2]) -> f32 {
        let outside = (self.relative_radius(at) - 1.0).clamp(0.0, 0.5);
        // Ears and hair lie further back than the edge of the mesh.
        (self.interpolate_depth(at) - self.eyes) * self.gain + outside * 0.8 * EYE_DISTANCE
    }

    /// Returns the mean depth of the mesh points, weighted by a bell curve of their distance.
    fn interpolate_depth(&self, at: [f32; 2]) -> f32 {
        let squares = self.points.iter().map(|p| (p[0] - at[0]).powi(2) + (p[1] - at[1]).powi(2));
        let nearest = squares.clone().fold(f32::INFINITY, f32::min);
        // Far from the mesh the bell widens, so that the nearest point does not decide alone.
        let width = 2.0 * BELL_WIDTH * BELL_WIDTH + nearest * 0.3;
        let (mut sum, mut weights) = (0.0, 0.0);
        for (point, square) in self.points.iter().zip(squares) {
            let weight = (-(square - nearest) / width).exp();
            sum += weight * point[2];
            weights += weight;
        }
        sum / weights
    }

    /// Returns the distance from the centre in units of the ellipse: 1 on the edge of the head.
    fn relative_radius(&self, at: [f32; 2]) -> f32 {
        let [x, y] = [0, 1].map(|axis| (at[axis] - self.centre[axis]) / self.axes[axis]);
        x.hypot(y)
    }

    fn turn_weight(&self, at: [f32; 2]) -> f32 {
        // Neck and background follow less and less over 0.9 of the head's half axes.
        1.0 - smooth((self.relative_radius(at) - 1.05) / 0.9)
    }
}

/// Returns the smoothstep of a fraction: 0 to 1 with level ends.
pub(crate) fn smooth(fraction: f32) -> f32 {
    let x = fraction.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}
