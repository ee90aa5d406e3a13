//! Opens the mouth: the upper lip rises a little, lower lip and jaw sink, the gap is dark.

use super::curve::{Axes, Curve, pixels, stretch};
use super::picture::Picture;
use super::portrait::{CHIN, Portrait};
use super::surface::smooth;

/// Mesh points of the mouth: corners, and the inner edges of the lips from image left to right.
const CORNERS: [usize; 2] = [61, 291];
const UPPER: [usize; 9] = [191, 80, 81, 82, 13, 312, 311, 310, 415];
const LOWER: [usize; 9] = [95, 88, 178, 87, 14, 317, 402, 318, 324];

/// Gaps of the lips over the width of the mouth: wide open, and the widest that a resting mouth
/// may show. A smile that shows teeth is closed to it: people do not smile through a session.
const OPEN: f32 = 0.62;
const REST: f32 = 0.06;
/// Part of an opening that the upper lip makes.
const UPPER_SHARE: f32 = 0.15;
/// Skin that gives way above the lips and below the chin, in widths of the mouth.
const ABOVE: f32 = 0.35;
const BELOW: f32 = 1.1;
const DARK: [f32; 3] = [42.0, 16.0, 16.0];

/// Draws the mouth on `canvas`, 0 at rest and 1 wide open.
pub fn open(portrait: &Portrait, part: f32, canvas: &mut Picture) {
    let lips = Lips::new(portrait, part.clamp(0.0, 1.0));
    if lips.moves().abs() < 0.5 {
        return;
    }
    let middle = lips.axes.outside([lips.axes.width / 2.0, lips.chin / 2.0]);
    for [x, y] in pixels(middle, 2.2 * lips.axes.width, [canvas.width, canvas.height]) {
        let [along, down] = lips.axes.inside([x as f32, y as f32]);
        match lips.source(along, down) {
            Source::Same => {}
            Source::Inside => canvas.put(x, y, DARK),
            Source::At(source) => {
                let [u, v] = lips.axes.outside([along, source]);
                canvas.put(x, y, portrait.canvas.sample(u, v));
            }
        }
    }
}

enum Source {
    Same,
    /// The dark of the mouth.
    Inside,
    /// The height in the portrait.
    At(f32),
}

struct Lips {
    axes: Axes,
    upper: Curve,
    lower: Curve,
    chin: f32,
    /// Gap in the middle in the portrait, and as it shall be.
    had: f32,
    gap: f32,
}

impl Lips {
    fn new(portrait: &Portrait, part: f32) -> Self {
        let points = &portrait.points;
        let axes = Axes::new(points[CORNERS[0]], points[CORNERS[1]]);
        let (upper, lower) = (Curve::new(&axes, points, &UPPER), Curve::new(&axes, points, &LOWER));
        let middle = axes.width / 2.0;
        let had = (lower.down(middle) - upper.down(middle)).max(0.0);
        let rest = had.min(REST * axes.width);
        let gap = rest + part * (OPEN * axes.width - rest);
        let chin = axes.inside([points[CHIN][0], points[CHIN][1]])[1];
        Self { axes, upper, lower, chin, had, gap }
    }

    /// How much wider the gap becomes in the middle.
    fn moves(&self) -> f32 {
        self.gap - self.had
    }

    fn source(&self, along: f32, down: f32) -> Source {
        let width = self.axes.width;
        let (upper, lower) = (self.upper.down(along), self.lower.down(along));
        let had = (lower - upper).max(0.0);
        let wider = self.lens(along) * self.gap - had;
        let lip = upper - UPPER_SHARE * wider;
        let under = lip + had + wider;
        // The jaw is wider than the mouth and moves as one.
        let jaw = (1.0 - UPPER_SHARE) * self.moves() * self.jaw(along);
        let (top, neck) = (upper - ABOVE * width, self.chin + BELOW * width);
        let chin = self.chin + jaw;
        if down <= top || down >= neck {
            Source::Same
        } else if down < lip {
            Source::At(stretch(down, [top, lip], [top, upper]))
        } else if down < under {
            if down - lip < had { Source::At(upper + down - lip) } else { Source::Inside }
        } else if down < chin {
            Source::At(stretch(down, [under, chin], [lower, self.chin]))
        } else {
            Source::At(stretch(down, [chin, neck], [self.chin, neck]))
        }
    }

    /// 1 in the middle of the mouth, 0 at and beyond its corners.
    fn lens(&self, along: f32) -> f32 {
        let off = 2.0 * along / self.axes.width - 1.0;
        (1.0 - off * off).max(0.0).powf(0.7)
    }

    /// 1 under the mouth, falling to 0 at the corners of the jaw.
    fn jaw(&self, along: f32) -> f32 {
        let off = (2.0 * along / self.axes.width - 1.0).abs();
        1.0 - smooth((off - 0.2) / 1.9)
    }
}
