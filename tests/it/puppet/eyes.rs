//! Closes the eyes: the skin above is stretched down over the eyeball and ends in lashes.

use super::picture::Picture;
use super::polyline::{Axes, Polyline, map_interval, pixels_around};
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
const SKIN_ABOVE: f32 = 0.36;
/// The mesh draws lids a little inside the white of the eye; this much further out, all of it is
/// covered.
const RIM_COVERED: f32 = 0.05;
/// Lashes above an eye: not skin, so they are not stretched.
const LASHES_ABOVE: f32 = 0.02;
/// Half thickness of the line of lashes, and how dark it is.
const LASHES_HALF: f32 = 0.11;
const LASHES_DARKNESS: f32 = 0.8;
/// How much a closed lid has the colour of the skin below the eye; the skin above lies in shadow.
const SKIN_BELOW_SHARE: f32 = 0.85;
/// Where that skin is, below the lower lid.
const SKIN_BELOW_AT: f32 = 0.2;

/// Draws lids over the eyes of `canvas`; 0 leaves an eye as it is, 1 closes it.
pub fn close(portrait: &Portrait, closed: [f32; 2], canvas: &mut Picture) {
    for (eye, closed) in EYES.iter().zip(closed) {
        if closed > 0.0 {
            close_one(portrait, eye, closed.min(1.0), canvas);
        }
    }
}

fn close_one(portrait: &Portrait, eye: &Eye, closed: f32, canvas: &mut Picture) {
    let points = &portrait.points;
    let axes = Axes::new(points[eye.corners[0]], points[eye.corners[1]]);
    let lids = Lids {
        upper: Polyline::new(&axes, points, &eye.upper),
        lower: Polyline::new(&axes, points, &eye.lower),
        width: axes.width,
        closed,
    };
    let middle = axes.axes_to_canvas([axes.width / 2.0, 0.0]);
    for [x, y] in pixels_around(middle, axes.width, [canvas.width, canvas.height]) {
        let [along, down] = axes.canvas_to_axes([x as f32, y as f32]);
        let Some(lid) = lids.pixel(along, down) else { continue };
        let sample = |down: f32| {
            let [u, v] = axes.axes_to_canvas([along, down]);
            portrait.canvas.sample(u, v)
        };
        let (own, skin) = (sample(lid.source), sample(lid.skin_below));
        let colour = std::array::from_fn(|channel| {
            lid.light * (own[channel] + (skin[channel] - own[channel]) * lid.skin_share)
        });
        canvas.put(x, y, colour);
    }
}

struct Lids {
    upper: Polyline,
    lower: Polyline,
    width: f32,
    /// 0 as in the portrait, 1 closed.
    closed: f32,
}

/// What is seen at a place once the lids have moved; heights are in the axes of the eye.
struct LidPixel {
    /// The height it comes from.
    source: f32,
    /// The height of the skin below the eye.
    skin_below: f32,
    /// How much of that skin's colour it takes.
    skin_share: f32,
    /// How much of its light is left.
    light: f32,
}

impl Lids {
    /// Nothing where the eye does not reach.
    fn pixel(&self, along: f32, down: f32) -> Option<LidPixel> {
        let width = self.width;
        // Thins out beyond the corners, where the lids have no edge.
        let fade = ((along + 0.12 * width).min(1.12 * width - along) / (0.2 * width)).min(1.0);
        if fade <= 0.0 {
            return None;
        }
        let rim = RIM_COVERED * width * fade;
        let (upper, lower) = (self.upper.height_at(along) - rim, self.lower.height_at(along) + rim);
        let top = upper - SKIN_ABOVE * width;
        if down <= top || down >= lower + LASHES_HALF * width {
            return None;
        }
        let closed = self.closed * fade;
        let edge = upper + self.closed * (lower - upper);
        let (source, skin_share) = if down < edge {
            let lid = smooth((down - top) / (upper - top));
            let skin = [top, upper - LASHES_ABOVE * width * closed];
            (map_interval(down, [top, edge], skin), SKIN_BELOW_SHARE * lid * closed)
        } else {
            (down, 0.0)
        };
        let near = 1.0 - ((down - edge).abs() / (LASHES_HALF * width)).min(1.0);
        let light = 1.0 - LASHES_DARKNESS * near * closed;
        let skin_below = lower + SKIN_BELOW_AT * width;
        Some(LidPixel { source, skin_below, skin_share, light })
    }
}
