//! Pooling over windows, with candle's tensors: candle-nn has no layer for it, and candle pools
//! without a border. The border is added to the image before.

use candle_core::{Device, Result, Tensor};

use super::loaded_op::pad;
use crate::op::{AveragePool, Window};

/// Returns the largest element of each window. Border elements are minus infinity, so that they are
/// never the largest.
pub(super) fn max_pool(x: &Tensor, window: &Window) -> Result<Tensor> {
    let lowest = Tensor::new(f32::NEG_INFINITY, x.device())?;
    let x = pad_window(x, window, &lowest)?.contiguous()?;
    let ([kh, kw], [sh, sw]) = (window.kernel, window.strides);
    x.max_pool2d_with_stride((kh, kw), (sh, sw))
}

/// The mean of each window.
pub(super) struct AveragePooling {
    window: Window,
    /// Kernel size ÷ number of counted elements, per window, as `[1, 1, height, width]`. `None` if
    /// every window counts all elements.
    correction: Option<Tensor>,
}

impl AveragePooling {
    /// Prepares the pool. `image` is the item shape of the input.
    pub(super) fn load(pool: AveragePool, image: &[usize], device: &Device) -> Result<Self> {
        let window = pool.window;
        let correction = if pool.count_include_pad || window.pads == [0; 4] {
            None
        } else {
            // The mean of ones under a border of zeros is the share of counted elements.
            let ones = Tensor::ones((1, 1, image[1], image[2]), candle_core::DType::F32, device)?;
            Some(mean(&ones, &window)?.recip()?)
        };
        Ok(Self { window, correction })
    }

    pub(super) fn run(&self, x: &Tensor) -> Result<Tensor> {
        let mean = mean(x, &self.window)?;
        match &self.correction {
            Some(correction) => mean.broadcast_mul(correction),
            None => Ok(mean),
        }
    }
}

fn mean(x: &Tensor, window: &Window) -> Result<Tensor> {
    let ([kh, kw], [sh, sw]) = (window.kernel, window.strides);
    let zero = Tensor::new(0.0_f32, x.device())?;
    pad_window(x, window, &zero)?.contiguous()?.avg_pool2d_with_stride((kh, kw), (sh, sw))
}

/// Adds the border of `window` to the image. `value` is one number or `[channels, 1, 1]`.
pub(super) fn pad_window(x: &Tensor, window: &Window, value: &Tensor) -> Result<Tensor> {
    let [top, left, bottom, right] = window.pads;
    pad(x, &[0, top, left], &[0, bottom, right], value)
}
