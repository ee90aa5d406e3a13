//! Closes the eyes: the skin above is stretched down over the eyeball and ends in lashes.

use super::curve::{Axes, Curve, pixels, stretch};
use super::picture::Picture;
use super::portrait::Portrait;
use super::surface::smooth;

/// Mesh points of an eye, corners first; both lists from image left to image right.
struct Eye {
    corners: [usize; 2],
    upper: [usize; 7],
    lower: [usize; 7],
}

/// The person's right eye, then the left one.
const EYES: [Eye; 2] = [
    Eye {
        corners: [33, 133],
        upper: [246, 161, 160, 159, 158, 157, 173],
        lower: [7, 163, 144, 145, 153, 154, 155],
    },
    Eye {
        corners: [362, 263],
        upper: [398, 384, 385, 386, 387, 388, 466],
        lower: [382, 381, 380, 374, 373, 390, 249],
    },
];

// All lengths here are in widths of the eye. Those of lashes and colour are what the iris network
// takes for a closed eye in every fixture: below 0.15 of openness, and half of what it was open.

/// Skin that stretches: up to the brow.
const SKIN: f32 = 0.36;
/// The mesh draws lids a little inside the white of the eye; this much further out, all of it is
/// covered.
const RIM: f32 = 0.05;
/// Lashes above an eye: not skin, so they are not stretched.
const LINER: f32 = 0.02;
/// Half thickness of the line of lashes, and how dark it is.
const LASHES: f32 = 0.11;
const LASHES_DARK: f32 = 0.8;
/// How much a closed lid has the colour of the skin below the eye; the skin above lies in shadow.
const PAINT: f32 = 0.85;
/// Where that skin is, below the lower lid.
const BELOW: f32 = 0.2;

/// Draws lids over the eyes of `canvas`; 0 leaves an eye as it is, 1 closes it.
pub fn close(portrait: &Portrait, closed: [f32; 2], canvas: &mut Picture) {
    for (eye, part) in EYES.iter().zip(closed) {
        if part > 0.0 {
            close_one(portrait, eye, part.min(1.0), canvas);
        }
    }
}

fn close_one(portrait: &Portrait, eye: &Eye, part: f32, canvas: &mut Picture) {
    let points = &portrait.points;
    let axes = Axes::new(points[eye.corners[0]], points[eye.corners[1]]);
    let lids = Lids {
        upper: Curve::new(&axes, points, &eye.upper),
        lower: Curve::new(&axes, points, &eye.lower),
        width: axes.width,
        part,
    };
    let middle = axes.outside([axes.width / 2.0, 0.0]);
    for [x, y] in pixels(middle, axes.width, [canvas.width, canvas.height]) {
        let [along, down] = axes.inside([x as f32, y as f32]);
        let Some(seen) = lids.source(along, down) else { continue };
        let sample = |down: f32| {
            let [u, v] = axes.outside([along, down]);
            portrait.canvas.sample(u, v)
        };
        let (own, skin) = (sample(seen.source), sample(seen.below));
        let colour = std::array::from_fn(|channel| {
            seen.light * (own[channel] + (skin[channel] - own[channel]) * seen.paint)
        });
        canvas.put(x, y, colour);
    }
}

struct Lids {
    upper: Curve,
    lower: Curve,
    width: f32,
    part: f32,
}

/// What is seen at a place once the lids have moved; heights are in the axes of the eye.
struct Seen {
    /// The height it comes from.
    source: f32,
    /// The height of the skin below the eye.
    below: f32,
    /// How much of that skin's colour it takes.
    paint: f32,
    /// How much of its light is left.
    light: f32,
}

impl Lids {
    /// Nothing where the eye does not reach.
    fn source(&self, along: f32, down: f32) -> Option<Seen> {
        let width = self.width;
        // Thins out beyond the corners, where the lids have no edge.
        let fade = ((along + 0.12 * width).min(1.12 * width - along) / (0.2 * width)).min(1.0);
        if fade <= 0.0 {
            return None;
        }
        let rim = RIM * width * fade;
        let (upper, lower) = (self.upper.down(along) - rim, self.lower.down(along) + rim);
        let top = upper - SKIN * width;
        if down <= top || down >= lower + LASHES * width {
            return None;
        }
        let part = self.part * fade;
        let edge = upper + self.part * (lower - upper);
        let (source, paint) = if down < edge {
            let lid = smooth((down - top) / (upper - top));
            let skin = [top, upper - LINER * width * part];
            (stretch(down, [top, edge], skin), PAINT * lid * part)
        } else {
            (down, 0.0)
        };
        let near = 1.0 - ((down - edge).abs() / (LASHES * width)).min(1.0);
        let light = 1.0 - LASHES_DARK * near * part;
        Some(Seen { source, below: lower + BELOW * width, paint, light })
    }
}
