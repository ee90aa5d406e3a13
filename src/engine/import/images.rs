//! Operators on images: `[1, channels, height, width]`.

use super::attributes::unsupported;
use super::context::{NodeContext, RuntimeValue};
use super::window::{PlacedWindow, Rounding, place_window, read_pair};
use crate::error::NodeError;
use crate::op::{AveragePool, Conv, Op, ResizeMode, Window};
use crate::shape::{VALUE_ELEMENTS_MAX, checked_element_count};

fn height_and_width(value: &RuntimeValue) -> [usize; 2] {
    [value.dims[2], value.dims[3]]
}

pub(super) fn conv(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(3)?;
    let x = node.image(0)?;
    let weight = node.constant(1)?;
    let bias = if node.has_input(2) { Some(node.constant(2)?) } else { None };
    let groups = node.attributes.int("group")?.unwrap_or(1);
    let is_divisible =
        |count: usize| usize::try_from(groups).is_ok_and(|g| g > 0 && count.is_multiple_of(g));
    let [out, group_channels, height, width] = *weight.shape() else {
        return Err(NodeError::Shape { input: 1, shape: weight.shape().to_vec() });
    };
    if !is_divisible(x.dims[1]) || !is_divisible(out) {
        return Err(unsupported("group", groups));
    }
    let groups = groups as usize;
    let empty = weight.data().is_empty();
    if empty || group_channels.checked_mul(groups) != Some(x.dims[1]) {
        return Err(NodeError::Shape { input: 1, shape: weight.shape().to_vec() });
    }
    if let Some(bias) = bias.as_ref().filter(|bias| bias.shape() != [out]) {
        return Err(NodeError::Shape { input: 2, shape: bias.shape().to_vec() });
    }
    if let Some(kernel) = read_pair(&mut node.attributes, "kernel_shape")?
        && kernel != [height, width]
    {
        return Err(unsupported("kernel_shape", kernel));
    }
    let dilations = read_pair(&mut node.attributes, "dilations")?.unwrap_or([1, 1]);
    let image = height_and_width(&x);
    let placed =
        place_window(&mut node.attributes, image, [height, width], dilations, Rounding::Down)?;
    let window = check_padded_size(&x, &placed)?;
    let conv =
        Conv { weight, bias, window, border_values: None, dilations, groups, activation: None };
    let y = node.emit(Op::Conv(conv), &[&x], image_dims(out, placed.size), Some(0))?;
    node.define(y)
}

pub(super) fn max_pool(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.attributes.require_int("storage_order", 0)?;
    let (x, placed) = read_pool(node)?;
    let y =
        node.emit(Op::MaxPool(placed.window), &[&x], image_dims(x.dims[1], placed.size), Some(0))?;
    node.define(y)
}

pub(super) fn average_pool(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let count_include_pad = node.attributes.flag("count_include_pad", false)?;
    let (x, placed) = read_pool(node)?;
    // Elements that ceil_mode adds at the end never count in the mean. A single flag for the whole
    // border cannot express that.
    if count_include_pad && placed.overhangs {
        return Err(unsupported("ceil_mode", 1));
    }
    let window = placed.window;
    let op = Op::AveragePool(AveragePool { window, count_include_pad });
    let y = node.emit(op, &[&x], image_dims(x.dims[1], placed.size), Some(0))?;
    node.define(y)
}

fn read_pool(node: &mut NodeContext<'_, '_>) -> Result<(RuntimeValue, PlacedWindow), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.image(0)?;
    let kernel = read_pair(&mut node.attributes, "kernel_shape")?
        .ok_or(NodeError::AttributeMissing("kernel_shape"))?;
    if let Some(dilations) = read_pair(&mut node.attributes, "dilations")?
        && dilations != [1, 1]
    {
        return Err(unsupported("dilations", dilations));
    }
    let ceil_mode = node.attributes.flag("ceil_mode", false)?;
    let rounding = if ceil_mode { Rounding::Up } else { Rounding::Down };
    let placed =
        place_window(&mut node.attributes, height_and_width(&x), kernel, [1, 1], rounding)?;
    // A window that lies entirely in the border has no largest element and no mean.
    let pads = placed.window.pads;
    if (0..4).any(|side| pads[side] >= kernel[side % 2]) {
        return Err(unsupported("pads", pads));
    }
    check_padded_size(&x, &placed)?;
    Ok((x, placed))
}

/// Checks the limit of elements on the padded image, since executors store the border.
fn check_padded_size(x: &RuntimeValue, placed: &PlacedWindow) -> Result<Window, NodeError> {
    let [top, left, bottom, right] = placed.window.pads;
    let padded = [x.dims[1], x.dims[2] + top + bottom, x.dims[3] + left + right];
    let fits = checked_element_count(&padded).is_some_and(|n| n <= VALUE_ELEMENTS_MAX);
    if fits { Ok(placed.window) } else { Err(NodeError::ResultSize(padded.to_vec())) }
}

fn image_dims(channels: usize, [height, width]: [usize; 2]) -> Vec<usize> {
    vec![1, channels, height, width]
}

pub(super) fn global_average_pool(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(1)?;
    let x = node.image(0)?;
    let y = node.emit(Op::GlobalAveragePool, &[&x], image_dims(x.dims[1], [1, 1]), Some(0))?;
    node.define(y)
}

/// Imports `Resize` of opset 10 and later.
pub(super) fn resize(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    let is_before_opset_11 = node.opset() < 11;
    node.check_inputs_max(if is_before_opset_11 { 2 } else { 4 })?;
    let x = node.image(0)?;
    let scales_input = if is_before_opset_11 { 1 } else { 2 };
    let size = match node.has_input(3) {
        true => target_from_sizes(node, &x)?,
        false => target_from_scales(node, &x, scales_input)?,
    };
    let default_coordinates = if is_before_opset_11 { "asymmetric" } else { "half_pixel" };
    let coordinates =
        node.attributes.string("coordinate_transformation_mode")?.unwrap_or(default_coordinates);
    let rounding = node.attributes.string("nearest_mode")?;
    let rounding =
        rounding.unwrap_or(if is_before_opset_11 { "floor" } else { "round_prefer_floor" });
    // These attributes matter only to unsupported modes.
    node.attributes.ignore_float("cubic_coeff_a")?;
    node.attributes.ignore_float("extrapolation_value")?;
    node.attributes.require_int("exclude_outside", 0)?;
    node.attributes.require_int("antialias", 0)?;
    if let Some(policy) = node.attributes.string("keep_aspect_ratio_policy")?
        && policy != "stretch"
    {
        return Err(unsupported("keep_aspect_ratio_policy", policy));
    }
    let mode = match node.attributes.string("mode")?.unwrap_or("nearest") {
        "nearest" => nearest_mode(&x, size, coordinates, rounding)?,
        "linear" => linear_mode(size, coordinates)?,
        mode => return Err(unsupported("mode", mode)),
    };
    let y = node.emit(Op::Resize(mode), &[&x], image_dims(x.dims[1], size), Some(0))?;
    node.define(y)
}

/// Imports `Upsample` of opset 7 to 9 with nearest neighbours. The scales are an attribute or an
/// input.
pub(super) fn upsample(node: &mut NodeContext<'_, '_>) -> Result<(), NodeError> {
    node.check_inputs_max(2)?;
    let x = node.image(0)?;
    let size = match node.attributes.floats("scales")? {
        Some(scales) => scaled_size(&x, scales, 1)?,
        None => target_from_scales(node, &x, 1)?,
    };
    match node.attributes.string("mode")?.unwrap_or("nearest") {
        "nearest" => {}
        mode => return Err(unsupported("mode", mode)),
    }
    let mode = nearest_mode(&x, size, "asymmetric", "floor")?;
    let y = node.emit(Op::Resize(mode), &[&x], image_dims(x.dims[1], size), Some(0))?;
    node.define(y)
}

fn target_from_sizes(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
) -> Result<[usize; 2], NodeError> {
    let sizes = node.ints(3)?;
    let refused = || NodeError::Value { input: 3, value: format!("{sizes:?}") };
    if node.has_input(2) && node.decoded_tensor(2)?.len() > 0 {
        return Err(NodeError::InputCount { count: 4, max: 3 });
    }
    let target = match sizes[..] {
        [1, channels, height, width] if usize::try_from(channels) == Ok(x.dims[1]) => {
            [height, width].map(|size| usize::try_from(size).unwrap_or(0))
        }
        _ => return Err(refused()),
    };
    let fits = target.iter().all(|size| (1..=VALUE_ELEMENTS_MAX).contains(size));
    if fits { Ok(target) } else { Err(refused()) }
}

fn target_from_scales(
    node: &mut NodeContext<'_, '_>,
    x: &RuntimeValue,
    input: usize,
) -> Result<[usize; 2], NodeError> {
    let scales = node.constant(input)?;
    scaled_size(x, scales.data(), input)
}

fn scaled_size(x: &RuntimeValue, scales: &[f32], input: usize) -> Result<[usize; 2], NodeError> {
    let refused = || NodeError::Value { input, value: format!("{scales:?}") };
    let &[1.0, 1.0, height, width] = scales else { return Err(refused()) };
    let mut target = [0; 2];
    for (axis, scale) in [height, width].into_iter().enumerate() {
        let exact = x.dims[axis + 2] as f64 * f64::from(scale);
        // The standard rounds a fractional size. The scale is then no longer the ratio of the
        // sizes, and the standard's formulas give different results.
        let is_size = exact.fract() == 0.0 && (1.0..=VALUE_ELEMENTS_MAX as f64).contains(&exact);
        target[axis] = if is_size { exact as usize } else { return Err(refused()) };
    }
    Ok(target)
}

/// Returns the nearest mode if the resize repeats each pixel a whole number of times. The standard
/// has many modes of coordinates and rounding. Those that repeat pixels are found by computing the
/// source of each pixel; the others are refused.
fn nearest_mode(
    x: &RuntimeValue,
    size: [usize; 2],
    coordinates: &str,
    rounding: &str,
) -> Result<ResizeMode, NodeError> {
    for axis in 0..2 {
        let (from, to) = (x.dims[axis + 2], size[axis]);
        if to % from != 0 {
            return Err(NodeError::ResultSize(size.to_vec()));
        }
        let factor = to / from;
        for index in 0..to {
            let source = source_coordinate(index, from, to, coordinates)?;
            if nearest_pixel(source, from, rounding)? != index / factor {
                return Err(unsupported("nearest_mode", format!("{rounding} of {coordinates}")));
            }
        }
    }
    Ok(ResizeMode::Nearest)
}

/// Returns the position of the result's pixel `index` in the image, as the standard defines it.
fn source_coordinate(index: usize, from: usize, to: usize, mode: &str) -> Result<f64, NodeError> {
    let index = index as f64;
    let from = from as f64;
    let to = to as f64;
    match mode {
        "asymmetric" => Ok(index * from / to),
        "half_pixel" => Ok((index + 0.5) * from / to - 0.5),
        "pytorch_half_pixel" if to > 1.0 => Ok((index + 0.5) * from / to - 0.5),
        "pytorch_half_pixel" => Ok(0.0),
        "align_corners" if to > 1.0 => Ok(index * (from - 1.0) / (to - 1.0)),
        "align_corners" => Ok(0.0),
        mode => Err(unsupported("coordinate_transformation_mode", mode)),
    }
}

fn nearest_pixel(source: f64, from: usize, rounding: &str) -> Result<usize, NodeError> {
    let rounded = match rounding {
        "floor" => source.floor(),
        "ceil" => source.ceil(),
        "round_prefer_floor" => (source - 0.5).ceil(),
        "round_prefer_ceil" => (source + 0.5).floor(),
        mode => return Err(unsupported("nearest_mode", mode)),
    };
    Ok((rounded.max(0.0) as usize).min(from - 1))
}

fn linear_mode(size: [usize; 2], coordinates: &str) -> Result<ResizeMode, NodeError> {
    match coordinates {
        "half_pixel" => Ok(ResizeMode::Linear),
        "pytorch_half_pixel" if size[0] > 1 && size[1] > 1 => Ok(ResizeMode::Linear),
        "align_corners" => Ok(ResizeMode::LinearAlignCorners),
        mode => Err(unsupported("coordinate_transformation_mode", mode)),
    }
}
