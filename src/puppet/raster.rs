//! Draws a turned surface: triangles with a depth buffer; the canvas is their texture.

use crate::picture::Picture;
use crate::portrait::{CANVAS, FRAME, Point};
use crate::surface::{COLUMNS, ROWS, Surface, Vertex, project};

/// Rotation, scale and shift of the surface before the camera.
#[derive(Debug, Clone, Copy)]
pub struct Transform {
    /// Degrees; positive to the person's own left, which is image right.
    pub yaw: f32,
    /// Degrees; positive when looking down.
    pub pitch: f32,
    /// Degrees in the image plane, clockwise.
    pub roll: f32,
    /// Factor on the size.
    pub scale: f32,
    /// Pixels in the frame.
    pub shift: [f32; 2],
}

/// A grid point as the camera sees it.
#[derive(Debug, Clone, Copy)]
struct ProjectedVertex {
    at: [f32; 2],
    depth: f32,
    texture: [f32; 2],
}

/// Returns the frame that shows `surface` with `texture`. Uncovered pixels have the colour
/// `behind`.
pub(crate) fn draw(
    surface: &Surface,
    texture: &Picture,
    transform: &Transform,
    behind: [u8; 3],
) -> Picture {
    let projected: Vec<ProjectedVertex> = surface
        .vertices
        .iter()
        .map(|vertex| project_vertex(vertex, surface.pivot, transform))
        .collect();
    let mut buffer = DepthBuffer {
        frame: Picture::filled(FRAME[0], FRAME[1], behind),
        depths: vec![f32::INFINITY; FRAME[0] * FRAME[1]],
    };
    for row in 0..ROWS - 1 {
        for column in 0..COLUMNS - 1 {
            let at = row * COLUMNS + column;
            let [a, b, c, d] = [at, at + 1, at + COLUMNS, at + COLUMNS + 1].map(|k| projected[k]);
            buffer.draw_triangle([a, b, c], texture);
            buffer.draw_triangle([b, d, c], texture);
        }
    }
    buffer.frame
}

/// Returns the position in the frame of a position on the canvas.
pub(crate) fn locate(surface: &Surface, texture: [f32; 2], transform: &Transform) -> [f32; 2] {
    project_vertex(&surface.at(texture), surface.pivot, transform).at
}

fn project_vertex(vertex: &Vertex, pivot: Point, transform: &Transform) -> ProjectedVertex {
    let turned = rotate(vertex.position, pivot, transform);
    let rest = vertex.position;
    let position: Point =
        std::array::from_fn(|axis| rest[axis] + (turned[axis] - rest[axis]) * vertex.turn_weight);
    let [x, y] = project(position);
    let (x, y) = (x - CANVAS[0] as f32 / 2.0, y - CANVAS[1] as f32 / 2.0);
    let (sin, cos) = transform.roll.to_radians().sin_cos();
    let at = [
        (x * cos - y * sin) * transform.scale + FRAME[0] as f32 / 2.0 + transform.shift[0],
        (x * sin + y * cos) * transform.scale + FRAME[1] as f32 / 2.0 + transform.shift[1],
    ];
    ProjectedVertex { at, depth: position[2], texture: vertex.texture }
}

/// Rotates a position about the pivot: pitch first, then yaw.
fn rotate(position: Point, pivot: Point, transform: &Transform) -> Point {
    let [x, y, z]: Point = std::array::from_fn(|axis| position[axis] - pivot[axis]);
    let (sin, cos) = transform.pitch.to_radians().sin_cos();
    let (y, z) = (y * cos - z * sin, z * cos + y * sin);
    let (sin, cos) = transform.yaw.to_radians().sin_cos();
    let (x, z) = (x * cos - z * sin, z * cos + x * sin);
    [x + pivot[0], y + pivot[1], z + pivot[2]]
}

struct DepthBuffer {
    frame: Picture,
    depths: Vec<f32>,
}

impl DepthBuffer {
    fn draw_triangle(&mut self, corners: [ProjectedVertex; 3], texture: &Picture) {
        let [a, b, c] = corners.map(|corner| corner.at);
        let area = cross(a, b, c);
        // A triangle thinner than a thousandth of a pixel is invisible, and a division by its area
        // would be one by nearly 0.
        if area.abs() < 1e-3 {
            return;
        }
        let [columns, rows] = [0, 1].map(|axis| {
            let places = [a[axis], b[axis], c[axis]];
            let low = places.into_iter().fold(f32::INFINITY, f32::min).ceil().max(0.0);
            let high = places.into_iter().fold(f32::NEG_INFINITY, f32::max).floor();
            low as usize..FRAME[axis].min((high + 1.0).max(0.0) as usize)
        });
        // The barycentric share of each corner changes by the same step from pixel to pixel.
        let steps = [(b, c), (c, a), (a, b)].map(|(from, to)| (from[1] - to[1]) / area);
        for y in rows {
            let at = [columns.start as f32, y as f32];
            let mut shares = [(b, c), (c, a), (a, b)].map(|(from, to)| cross(from, to, at) / area);
            for x in columns.clone() {
                if shares[0] >= -1e-4 && shares[1] >= -1e-4 && shares[2] >= -1e-4 {
                    self.draw_pixel([x, y], shares, &corners, texture);
                }
                for corner in 0..3 {
                    shares[corner] += steps[corner];
                }
            }
        }
    }

    fn draw_pixel(
        &mut self,
        [x, y]: [usize; 2],
        shares: [f32; 3],
        corners: &[ProjectedVertex; 3],
        texture: &Picture,
    ) {
        let [a, b, c] = corners;
        let mix = |of: [f32; 3]| shares[0] * of[0] + shares[1] * of[1] + shares[2] * of[2];
        let depth = mix([a.depth, b.depth, c.depth]);
        let nearest = &mut self.depths[y * FRAME[0] + x];
        if depth < *nearest {
            *nearest = depth;
            let u = mix([a.texture[0], b.texture[0], c.texture[0]]);
            let v = mix([a.texture[1], b.texture[1], c.texture[1]]);
            self.frame.put(x, y, texture.sample(u, v));
        }
    }
}

/// Returns twice the signed area of a triangle.
fn cross(a: [f32; 2], b: [f32; 2], c: [f32; 2]) -> f32 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}
