//! Closes the eyes: stretches the skin above each eye down over the eyeball and ends it with
//! lashes.

use crate::picture::Picture;
use crate::polyline::{Axes, Polyline, map_interval, pixels_around};
use crate::portrait::Portrait;
use crate::surface::smooth;

/// Mesh points of an eye: the corners and both lids. All lists run from image left to image right.
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

// All lengths are in widths of the eye. The values for lashes and colour were chosen so that the
// iris network reads every closed fixture as closed: openness below 0.15 and half of the open
// eye's.

/// Height of the skin that is stretched: up to the brow.
const SKIN_ABOVE: f32 = 0.36;
/// Distance by which the lids are moved outwards. The mesh draws them a little inside the white of
/// the eye, which would stay visible.
const RIM_COVERED: f32 = 0.05;
/// Height of the lashes above an open eye. Lashes are not stretched, since they are not skin.
const LASHES_ABOVE: f32 = 0.02;
/// Half the thickness of the line of lashes, and the share of light that it takes away.
const LASHES_HALF: f32 = 0.11;
const LASHES_DARKNESS: f32 = 0.8;
/// Share of the colour of the skin below the eye in a closed lid. The skin above lies in shadow.
const SKIN_BELOW_SHARE: f32 = 0.85;
/// Distance of the sampled skin below the lower lid.
const SKIN_BELOW_AT: f32 = 0.2;

/// Draws lids over the eyes of `canvas`; 0 leaves an eye as it is, 1 closes it.
pub(crate) fn close(portrait: &Portrait, closed: [f32; 2], canvas: &mut Picture) {
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

/// A pixel of a lid. Heights are in the axes of the eye.
struct LidPixel {
    /// Height from which the pixel is taken.
    source: f32,
    /// Height of the skin below the eye.
    skin_below: f32,
    /// Share of that skin's colour in the pixel.
    skin_share: f32,
    /// Share of light that is left.
    light: f32,
}

impl Lids {
    /// Returns `None` outside of the eye's region.
    fn pixel(&self, along: f32, down: f32) -> Option<LidPixel> {
        let width = self.width;
        // The effect fades out beyond the corners, where the lids have no edge.
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
