//! Windows that slide over height and width: kernel, strides, borders and output size.

use super::attributes::{Attributes, unsupported};
use crate::error::NodeError;
use crate::op::Window;
use crate::shape::VALUE_ELEMENTS_MAX;

/// The rounding of the output size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rounding {
    /// Only windows inside image and border count.
    Down,
    /// A last window may reach beyond the border, if it starts before the border after the image.
    Up,
}

/// A window and the output size that it has on an image.
pub(super) struct PlacedWindow {
    pub(super) window: Window,
    /// Height and width of the result.
    pub(super) size: [usize; 2],
    /// True if a last window reaches beyond the requested border. `window.pads` includes the
    /// additional elements.
    pub(super) overhangs: bool,
}

/// Reads strides, pads and auto_pad of a node, and places the window on `image` (height, width).
pub(super) fn place_window(
    attributes: &mut Attributes<'_>,
    image: [usize; 2],
    kernel: [usize; 2],
    dilations: [usize; 2],
    rounding: Rounding,
) -> Result<PlacedWindow, NodeError> {
    let strides = read_pair(attributes, "strides")?.unwrap_or([1, 1]);
    let explicit_pads = read_pads(attributes)?;
    let mode = attributes.string("auto_pad")?.unwrap_or("NOTSET");
    let extents = [dilated_size(kernel[0], dilations[0])?, dilated_size(kernel[1], dilations[1])?];
    let same_padding = |axis: usize| {
        let windows = image[axis].div_ceil(strides[axis]);
        ((windows - 1) * strides[axis] + extents[axis]).saturating_sub(image[axis])
    };
    let mut pads = match (mode, explicit_pads) {
        ("NOTSET", pads) => pads.unwrap_or_default(),
        ("VALID", None | Some([0, 0, 0, 0])) => [0; 4],
        ("SAME_UPPER", None | Some([0, 0, 0, 0])) => {
            split_pads([same_padding(0), same_padding(1)], |all| all / 2)
        }
        ("SAME_LOWER", None | Some([0, 0, 0, 0])) => {
            split_pads([same_padding(0), same_padding(1)], |all| all.div_ceil(2))
        }
        (mode, _) => return Err(unsupported("auto_pad", mode)),
    };
    let mut size = [0; 2];
    let mut overhangs = false;
    for axis in 0..2 {
        let before = pads[axis];
        let padded = image[axis] + before + pads[axis + 2];
        let windows =
            window_count(padded, extents[axis], strides[axis], rounding, image[axis] + before);
        size[axis] = windows.ok_or_else(|| unsupported("kernel_shape", kernel))?;
        let used = (size[axis] - 1) * strides[axis] + extents[axis];
        pads[axis + 2] += used.saturating_sub(padded);
        overhangs |= used > padded;
    }
    Ok(PlacedWindow { window: Window { kernel, strides, pads }, size, overhangs })
}

/// Reads two positive numbers for height and width.
pub(super) fn read_pair(
    attributes: &mut Attributes<'_>,
    name: &'static str,
) -> Result<Option<[usize; 2]>, NodeError> {
    let Some(values) = attributes.ints(name)? else { return Ok(None) };
    match values {
        [a, b] if *a > 0 && *b > 0 => Ok(Some([checked_size(name, *a)?, checked_size(name, *b)?])),
        _ => Err(unsupported(name, values)),
    }
}

fn read_pads(attributes: &mut Attributes<'_>) -> Result<Option<[usize; 4]>, NodeError> {
    let Some(values) = attributes.ints("pads")? else { return Ok(None) };
    let [top, left, bottom, right] = *values else { return Err(unsupported("pads", values)) };
    let mut pads = [0; 4];
    for (pad, value) in pads.iter_mut().zip([top, left, bottom, right]) {
        *pad = checked_size("pads", value)?;
    }
    Ok(Some(pads))
}

/// Converts a size that cannot overflow when it is added to or multiplied with another.
fn checked_size(name: &'static str, value: i64) -> Result<usize, NodeError> {
    let size = usize::try_from(value).ok().filter(|&size| size <= VALUE_ELEMENTS_MAX);
    size.ok_or_else(|| unsupported(name, value))
}

/// Returns the number of elements from the first to the last tap of a kernel.
fn dilated_size(kernel: usize, dilation: usize) -> Result<usize, NodeError> {
    let size = (kernel - 1).checked_mul(dilation).map(|last| last + 1);
    let size = size.filter(|&size| size <= VALUE_ELEMENTS_MAX);
    size.ok_or_else(|| unsupported("dilations", dilation))
}

fn split_pads(totals: [usize; 2], first: impl Fn(usize) -> usize) -> [usize; 4] {
    let [h, w] = totals;
    [first(h), first(w), h - first(h), w - first(w)]
}

/// Returns the number of windows along an axis of `padded` elements, or `None` if the kernel does
/// not fit. `end` is the index at which the border after the image starts.
fn window_count(
    padded: usize,
    extent: usize,
    stride: usize,
    rounding: Rounding,
    end: usize,
) -> Option<usize> {
    let room = padded.checked_sub(extent)?;
    let windows = match rounding {
        Rounding::Down => room / stride + 1,
        Rounding::Up => room.div_ceil(stride) + 1,
    };
    let last_starts_inside = (windows - 1) * stride < end;
    Some(if last_starts_inside || rounding == Rounding::Down { windows } else { windows - 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{ints, string};

    fn placed_on(
        image: [usize; 2],
        kernel: [usize; 2],
        rounding: Rounding,
        attributes: &[crate::onnx::AttributeProto],
    ) -> Result<PlacedWindow, NodeError> {
        place_window(&mut Attributes::new(attributes), image, kernel, [1, 1], rounding)
    }

    #[test]
    fn same_upper_pads_the_odd_element_behind_and_same_lower_in_front() {
        let strides = ints("strides", &[2, 2]);
        let upper = [strides.clone(), string("auto_pad", "SAME_UPPER")];
        let placed = placed_on([192, 7], [3, 4], Rounding::Down, &upper).unwrap();
        assert_eq!(placed.size, [96, 4]);
        assert_eq!(placed.window.pads, [0, 1, 1, 2]);
        let lower = [strides, string("auto_pad", "SAME_LOWER")];
        let placed = placed_on([192, 7], [3, 4], Rounding::Down, &lower).unwrap();
        assert_eq!(placed.window.pads, [1, 2, 0, 1]);
    }

    #[test]
    fn rounding_up_adds_a_window_that_starts_inside() {
        let strides = [ints("strides", &[2, 2])];
        let down = placed_on([5, 4], [2, 2], Rounding::Down, &strides).unwrap();
        assert_eq!((down.size, down.window.pads), ([2, 2], [0; 4]));
        let up = placed_on([5, 4], [2, 2], Rounding::Up, &strides).unwrap();
        assert_eq!((up.size, up.window.pads), ([3, 2], [0, 0, 1, 0]));
    }

    #[test]
    fn a_window_that_starts_in_the_border_behind_does_not_count() {
        let attributes = [ints("strides", &[3, 3]), ints("pads", &[1, 1, 1, 1])];
        let up = placed_on([4, 4], [2, 2], Rounding::Up, &attributes).unwrap();
        assert_eq!(up.size, [2, 2]);
    }

    #[test]
    fn a_kernel_larger_than_its_image_is_refused() {
        assert!(placed_on([2, 2], [3, 3], Rounding::Down, &[]).is_err());
    }

    #[test]
    fn unknown_padding_modes_and_negative_borders_are_refused() {
        let error = placed_on([4, 4], [2, 2], Rounding::Down, &[string("auto_pad", "SAME")]).err();
        let message = error.map(|e| e.to_string());
        assert_eq!(
            message.as_deref(),
            Some("attribute 'auto_pad' has the unsupported value \"SAME\"")
        );
        assert!(
            placed_on([4, 4], [2, 2], Rounding::Down, &[ints("pads", &[0, -1, 0, 0])]).is_err()
        );
    }
}
