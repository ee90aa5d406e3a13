//! Opens the mouth: the upper lip rises a little, the lower lip and the jaw sink, and the gap is
//! dark.

use crate::picture::Picture;
use crate::polyline::{Axes, Polyline, map_interval, pixels_around};
use crate::portrait::{CHIN, Portrait};
use crate::surface::smooth;

/// Mesh points of the mouth: corners, and the inner edges of the lips from image left to right.
const CORNERS: [usize; 2] = [61, 291];
const UPPER: [usize; 9] = [191, 80, 81, 82, 13, 312, 311, 310, 415];
const LOWER: [usize; 9] = [95, 88, 178, 87, 14, 317, 402, 318, 324];

/// Gap between the lips, in widths of the mouth: wide open, and the widest gap at rest. The mouth
/// of a smile with visible teeth is closed to the latter, since people do not smile through a
/// session.
const GAP_OPEN: f32 = 0.62;
const GAP_REST_MAX: f32 = 0.06;
/// Share of the opening that the upper lip makes.
const UPPER_SHARE: f32 = 0.15;
/// Height of the skin that stretches above the lips and below the chin, in widths of the mouth.
const SKIN_ABOVE: f32 = 0.35;
const SKIN_BELOW: f32 = 1.1;
const MOUTH_COLOUR: [f32; 3] = [42.0, 16.0, 16.0];

/// Draws the mouth on `canvas`; 0 is at rest, 1 wide open.
pub(crate) fn open(portrait: &Portrait, opened: f32, canvas: &mut Picture) {
    let lips = Lips::new(portrait, opened.clamp(0.0, 1.0));
    if lips.widening().abs() < 0.5 {
        return;
    }
    let middle = lips.axes.axes_to_canvas([lips.axes.width / 2.0, lips.chin / 2.0]);
    for [x, y] in pixels_around(middle, 2.2 * lips.axes.width, [canvas.width, canvas.height]) {
        let [along, down] = lips.axes.canvas_to_axes([x as f32, y as f32]);
        match lips.source(along, down) {
            Source::Unchanged => {}
            Source::MouthInside => canvas.put(x, y, MOUTH_COLOUR),
            Source::PortraitAt(source) => {
                let [u, v] = lips.axes.axes_to_canvas([along, source]);
                canvas.put(x, y, portrait.canvas.sample(u, v));
            }
        }
    }
}

enum Source {
    Unchanged,
    /// The dark inside of the mouth.
    MouthInside,
    /// The height in the portrait from which the pixel is taken.
    PortraitAt(f32),
}

struct Lips {
    axes: Axes,
    upper: Polyline,
    lower: Polyline,
    chin: f32,
    /// Gap in the middle of the mouth: in the portrait, and as drawn.
    gap_before: f32,
    gap_after: f32,
}

impl Lips {
    fn new(portrait: &Portrait, opened: f32) -> Self {
        let points = &portrait.points;
        let axes = Axes::new(points[CORNERS[0]], points[CORNERS[1]]);
        let (upper, lower) =
            (Polyline::new(&axes, points, &UPPER), Polyline::new(&axes, points, &LOWER));
        let middle = axes.width / 2.0;
        let gap_before = (lower.height_at(middle) - upper.height_at(middle)).max(0.0);
        let rest = gap_before.min(GAP_REST_MAX * axes.width);
        let gap_after = rest + opened * (GAP_OPEN * axes.width - rest);
        let chin = axes.canvas_to_axes([points[CHIN][0], points[CHIN][1]])[1];
        Self { axes, upper, lower, chin, gap_before, gap_after }
    }

    /// Returns by how much the gap in the middle grows.
    fn widening(&self) -> f32 {
        self.gap_after - self.gap_before
    }

    fn source(&self, along: f32, down: f32) -> Source {
        let width = self.axes.width;
        let (upper, lower) = (self.upper.height_at(along), self.lower.height_at(along));
        let gap = (lower - upper).max(0.0);
        let wider = self.opening_profile(along) * self.gap_after - gap;
        let lip = upper - UPPER_SHARE * wider;
        let under = lip + gap + wider;
        // The jaw is wider than the mouth and moves as one.
        let jaw = (1.0 - UPPER_SHARE) * self.widening() * self.jaw_profile(along);
        let (top, neck) = (upper - SKIN_ABOVE * width, self.chin + SKIN_BELOW * width);
        let chin = self.chin + jaw;
        if down <= top || down >= neck {
            Source::Unchanged
        } else if down < lip {
            Source::PortraitAt(map_interval(down, [top, lip], [top, upper]))
        } else if down < under {
            if down - lip < gap {
                Source::PortraitAt(upper + down - lip)
            } else {
                Source::MouthInside
            }
        } else if down < chin {
            Source::PortraitAt(map_interval(down, [under, chin], [lower, self.chin]))
        } else {
            Source::PortraitAt(map_interval(down, [chin, neck], [self.chin, neck]))
        }
    }

    /// Returns 1 in the middle of the mouth and 0 at and beyond its corners.
    fn opening_profile(&self, along: f32) -> f32 {
        let off = 2.0 * along / self.axes.width - 1.0;
        (1.0 - off * off).max(0.0).powf(0.7)
    }

    /// Returns 1 under the mouth, falling to 0 at the corners of the jaw.
    fn jaw_profile(&self, along: f32) -> f32 {
        let off = (2.0 * along / self.axes.width - 1.0).abs();
        1.0 - smooth((off - 0.2) / 1.9)
    }
}
