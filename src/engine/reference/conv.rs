//! Convolution followed by bias, residual and activation.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig};

use super::activation::LoadedActivation;
use super::depthwise::Depthwise;
use super::loaded_op::upload;
use super::pool::pad_window;
use crate::constant::Constant;
use crate::op::{Conv, Window};

/// A convolution whose constants are on the device.
pub(super) struct Convolution {
    algorithm: Algorithm,
    activation: Option<LoadedActivation>,
}

/// The ways to compute a convolution with its bias.
enum Algorithm {
    /// One kernel per channel, on the CPU. The bias is `[1, out, 1, 1]`.
    Depthwise { convolution: Depthwise, bias: Option<Tensor> },
    /// The layer of candle-nn.
    General(ConvolutionLayer),
}

impl Convolution {
    pub(super) fn load(conv: &Conv, device: &Device) -> Result<Self> {
        let bias = conv.bias.as_ref().map(|bias| upload(bias, device)).transpose()?;
        let algorithm = if conv.is_depthwise() && device.is_cpu() {
            // candle runs one convolution per group, which takes a hundred times as long here.
            // Other devices use this grouped convolution of candle nevertheless.
            let bias = bias.map(|bias| bias.reshape((1, (), 1, 1))).transpose()?;
            Algorithm::Depthwise { convolution: Depthwise::new(conv), bias }
        } else {
            Algorithm::General(ConvolutionLayer::load(conv, bias, device)?)
        };
        let activation =
            conv.activation.as_ref().map(|activation| LoadedActivation::load(activation, device));
        Ok(Self { algorithm, activation: activation.transpose()? })
    }

    /// Runs the convolution. `x` is `[batch, in, height, width]`; `residual` has the shape of the
    /// result.
    pub(super) fn run(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let mut y = match &self.algorithm {
            Algorithm::Depthwise { convolution, bias } => {
                let y = x.contiguous()?.apply_op1_no_bwd(convolution)?;
                bias.as_ref().map_or(Ok(y.clone()), |bias| y.broadcast_add(bias))?
            }
            Algorithm::General(layer) => layer.run(x)?,
        };
        if let Some(residual) = residual {
            y = (y + residual)?;
        }
        self.activation.as_ref().map_or(Ok(y.clone()), |activation| activation.run(&y))
    }
}

/// The layer of candle-nn. It supports one stride, one dilation and one border width for both axes;
/// other cases are reduced to that.
struct ConvolutionLayer {
    layer: Conv2d,
    window: Window,
    /// Value of the border: one number, or `[in, 1, 1]`. `None` if the layer can add the border
    /// itself, with equal widths on all sides and zeros.
    border_value: Option<Tensor>,
}

impl ConvolutionLayer {
    fn load(conv: &Conv, bias: Option<Tensor>, device: &Device) -> Result<Self> {
        let [dh, dw] = conv.dilations;
        let (weight, dilation) = match dh == dw {
            true => (conv.weight.clone(), dh),
            false => (dilate(conv), 1),
        };
        let [top, left, bottom, right] = conv.window.pads;
        let is_even = [left, bottom, right] == [top; 3];
        let border_value = match &conv.border_values {
            Some(values) => Some(upload(values, device)?.reshape(((), 1, 1))?),
            None if is_even => None,
            None => Some(Tensor::new(0.0_f32, device)?),
        };
        let padding = if border_value.is_none() { top } else { 0 };
        let [sh, sw] = conv.window.strides;
        let stride = if sh == sw { sh } else { 1 };
        let groups = conv.groups;
        let config = Conv2dConfig { padding, stride, dilation, groups, cudnn_fwd_algo: None };
        let layer = Conv2d::new(upload(&weight, device)?, bias, config);
        Ok(Self { layer, window: conv.window, border_value })
    }

    fn run(&self, x: &Tensor) -> Result<Tensor> {
        let x = match &self.border_value {
            Some(value) => &pad_window(x, &self.window, value)?,
            None => x,
        };
        let y = self.layer.forward(&x.contiguous()?)?;
        let [sh, sw] = self.window.strides;
        if sh == sw { Ok(y) } else { select_every(&select_every(&y, 2, sh)?, 3, sw) }
    }
}

/// Returns every `step`th index of an axis.
fn select_every(x: &Tensor, axis: usize, step: usize) -> Result<Tensor> {
    let indices = (0..x.dim(axis)? as u32).step_by(step);
    x.index_select(&Tensor::from_iter(indices, x.device())?, axis)
}

/// Returns the weight of a kernel with zeros between its taps, which needs no dilation.
fn dilate(conv: &Conv) -> Constant {
    let ([kh, kw], [dh, dw]) = (conv.window.kernel, conv.dilations);
    let (height, width) = ((kh - 1) * dh + 1, (kw - 1) * dw + 1);
    let kernels = conv.out_channels() * conv.group_channels();
    let mut data = vec![0.0; kernels * height * width];
    let weights = conv.weight.data().chunks_exact(conv.taps());
    for (kernel, taps) in data.chunks_exact_mut(height * width).zip(weights) {
        for (tap, &value) in taps.iter().enumerate() {
            kernel[tap / kw * dh * width + tap % kw * dw] = value;
        }
    }
    Constant::new(vec![conv.out_channels(), conv.group_channels(), height, width], data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{difference, noise};

    /// Computes a convolution directly from its definition.
    fn naive_convolution(x: &[f32], [c, h, w]: [usize; 3], conv: &Conv) -> Vec<f32> {
        let (out, group_channels) = (conv.out_channels(), conv.group_channels());
        let [kh, kw] = conv.window.kernel;
        let [top, left, bottom, right] = conv.window.pads;
        let ([sh, sw], [dh, dw]) = (conv.window.strides, conv.dilations);
        let height = (h + top + bottom - (kh - 1) * dh - 1) / sh + 1;
        let width = (w + left + right - (kw - 1) * dw - 1) / sw + 1;
        let per_group = out / conv.groups;
        let mut y = Vec::new();
        for (o, row, column) in
            (0..out).flat_map(|o| (0..height).flat_map(move |r| (0..width).map(move |q| (o, r, q))))
        {
            let mut sum = conv.bias.as_ref().map_or(0.0, |bias| bias.data()[o]);
            for (i, ky, kx) in (0..group_channels)
                .flat_map(|i| (0..kh).flat_map(move |ky| (0..kw).map(move |kx| (i, ky, kx))))
            {
                let (yy, xx) = (row * sh + ky * dh, column * sw + kx * dw);
                let channel = o / per_group * (c / conv.groups) + i;
                let is_inside = (top..top + h).contains(&yy) && (left..left + w).contains(&xx);
                let pixel = match is_inside {
                    true => x[(channel * h + yy - top) * w + xx - left],
                    false => {
                        conv.border_values.as_ref().map_or(0.0, |values| values.data()[channel])
                    }
                };
                let weight = ((o * group_channels + i) * kh + ky) * kw + kx;
                sum += pixel * conv.weight.data()[weight];
            }
            y.push(sum);
        }
        y
    }

    fn conv(weight: [usize; 4], window: [[usize; 2]; 2], pads: [usize; 4], groups: usize) -> Conv {
        let [kernel, strides] = [[weight[2], weight[3]], window[0]];
        Conv {
            weight: Constant::new(weight.to_vec(), noise(3, weight.iter().product())),
            bias: Some(Constant::new(vec![weight[0]], noise(4, weight[0]))),
            window: Window { kernel, strides, pads },
            border_values: None,
            dilations: window[1],
            groups,
            activation: None,
        }
    }

    /// Returns the same convolution with noise as border values.
    fn with_border_values(conv: Conv) -> Conv {
        Conv { border_values: Some(Constant::new(vec![4], noise(6, 4))), ..conv }
    }

    #[test]
    fn every_kind_of_convolution_equals_its_definition() {
        let cases = [
            ("pointwise", conv([5, 4, 1, 1], [[1, 1], [1, 1]], [0; 4], 1)),
            ("pointwise with stride", conv([5, 4, 1, 1], [[2, 2], [1, 1]], [0; 4], 1)),
            ("plain", conv([3, 4, 3, 3], [[1, 1], [1, 1]], [1; 4], 1)),
            ("uneven border", conv([3, 4, 3, 3], [[2, 2], [1, 1]], [0, 0, 1, 1], 1)),
            ("uneven strides", conv([3, 4, 3, 2], [[1, 2], [1, 1]], [1, 0, 1, 0], 1)),
            ("uneven dilations", conv([3, 4, 2, 3], [[1, 1], [2, 1]], [1; 4], 1)),
            ("even dilations", conv([3, 4, 2, 2], [[1, 1], [2, 2]], [1; 4], 1)),
            ("groups", conv([6, 2, 3, 3], [[1, 1], [1, 1]], [1; 4], 2)),
            ("two kernels per channel", conv([8, 1, 3, 3], [[1, 1], [1, 1]], [1; 4], 4)),
            ("depthwise", conv([4, 1, 3, 3], [[2, 2], [1, 1]], [1; 4], 4)),
            ("filled border", with_border_values(conv([3, 4, 3, 3], [[1, 1], [1, 1]], [1; 4], 1))),
            (
                "filled corner",
                with_border_values(conv([6, 2, 3, 3], [[2, 2], [1, 1]], [0, 1, 2, 0], 2)),
            ),
            (
                "filled depthwise",
                with_border_values(conv([4, 1, 3, 3], [[1, 1], [1, 1]], [1; 4], 4)),
            ),
        ];
        let x = noise(5, 2 * 4 * 7 * 6);
        let batch = Tensor::from_slice(&x, (2, 4, 7, 6), &Device::Cpu).unwrap();
        for (name, conv) in cases {
            let run = Convolution::load(&conv, &Device::Cpu).unwrap().run(&batch, None).unwrap();
            let expected: Vec<f32> = x
                .chunks(4 * 7 * 6)
                .flat_map(|item| naive_convolution(item, [4, 7, 6], &conv))
                .collect();
            let found: Vec<f32> = run.flatten_all().unwrap().to_vec1().unwrap();
            let error = difference(&found, &expected);
            assert!(error <= 1e-5, "{name}: off by {error}");
        }
    }
}
