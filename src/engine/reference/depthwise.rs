//! Depthwise convolution on the CPU.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, bail};
use rayon::prelude::*;

use crate::constant::Constant;
use crate::op::{Conv, Window};

/// A convolution with one kernel per channel. It runs in parallel over images and channels, in
/// plain loops over rows that the compiler vectorises. Other devices use the grouped convolution of
/// candle instead; the test below shows that both compute the same.
pub(super) struct Depthwise {
    /// `[channels, 1, height, width]`.
    weight: Constant,
    window: Window,
    /// Value of the border elements per channel. `None` is a border of zeros.
    border_values: Option<Constant>,
    dilations: [usize; 2],
}

impl Depthwise {
    /// Copies a convolution for which [`Conv::is_depthwise`] is true.
    pub(super) fn new(conv: &Conv) -> Self {
        Self {
            weight: conv.weight.clone(),
            window: conv.window,
            border_values: conv.border_values.clone(),
            dilations: conv.dilations,
        }
    }

    fn geometry(&self, height: usize, width: usize) -> Geometry {
        let [top, left, bottom, right] = self.window.pads;
        let [kh, kw] = self.window.kernel;
        let [dh, dw] = self.dilations;
        let padded = [height + top + bottom, width + left + right];
        let out = |padded: usize, taps: usize, stride: usize| (padded - taps) / stride + 1;
        Geometry {
            image: [height, width],
            padded,
            out: [
                out(padded[0], (kh - 1) * dh + 1, self.window.strides[0]),
                out(padded[1], (kw - 1) * dw + 1, self.window.strides[1]),
            ],
        }
    }

    /// Copies an image into the middle of `padded`. The border of `padded` keeps its values.
    fn fill(&self, padded: &mut [f32], image: &[f32], geometry: &Geometry) {
        let [top, left, ..] = self.window.pads;
        let width = geometry.image[1];
        let rows = padded.chunks_exact_mut(geometry.padded[1]).skip(top);
        for (to, from) in rows.zip(image.chunks_exact(width)) {
            to[left..left + width].copy_from_slice(from);
        }
    }

    /// Convolves one channel of one image.
    fn convolve(&self, out: &mut [f32], padded: &[f32], kernel: &[f32], geometry: &Geometry) {
        let [stride_y, stride_x] = self.window.strides;
        let [dilation_y, dilation_x] = self.dilations;
        let width = geometry.padded[1];
        for (y, row) in out.chunks_exact_mut(geometry.out[1]).enumerate() {
            for (ky, taps) in kernel.chunks_exact(self.window.kernel[1]).enumerate() {
                let start = (y * stride_y + ky * dilation_y) * width;
                let pixels = &padded[start..start + width];
                for (kx, &tap) in taps.iter().enumerate() {
                    add_scaled(row, &pixels[kx * dilation_x..], tap, stride_x);
                }
            }
        }
    }
}

/// Adds `pixels[i × stride] × tap` to each `out[i]`.
fn add_scaled(out: &mut [f32], pixels: &[f32], tap: f32, stride: usize) {
    if stride == 1 {
        out.iter_mut().zip(pixels).for_each(|(y, x)| *y += x * tap);
    } else {
        out.iter_mut().zip(pixels.iter().step_by(stride)).for_each(|(y, x)| *y += x * tap);
    }
}

/// Height and width of the image, of the padded image and of the result.
struct Geometry {
    image: [usize; 2],
    padded: [usize; 2],
    out: [usize; 2],
}

impl CustomOp1 for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, channels, height, width) = layout.shape().dims4()?;
        let CpuStorage::F32(data) = storage else { bail!("depthwise convolves f32") };
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("depthwise convolves contiguous images")
        };
        let geometry = self.geometry(height, width);
        let [out_height, out_width] = geometry.out;
        let taps: usize = self.window.kernel.iter().product();
        let mut out = vec![0.0; batch * channels * out_height * out_width];
        out.par_chunks_exact_mut(out_height * out_width)
            .zip(data[start..end].par_chunks_exact(height * width))
            .enumerate()
            .for_each_init(
                || vec![0.0; geometry.padded.iter().product()],
                |padded, (plane, (out, image))| {
                    let channel = plane % channels;
                    let kernel = &self.weight.data()[channel * taps..][..taps];
                    if let Some(values) = &self.border_values {
                        padded.fill(values.data()[channel]);
                    }
                    self.fill(padded, image, &geometry);
                    self.convolve(out, padded, kernel, &geometry);
                },
            );
        Ok((CpuStorage::F32(out), (batch, channels, out_height, out_width).into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};
    use proptest::prelude::*;

    use super::*;
    use crate::fixtures::{assert_close, noise};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_computes_what_candles_grouped_convolution_computes(
            batch in 1_usize..3,
            channels in 2_usize..5,
            height in 5_usize..12,
            width in 5_usize..12,
            kernel in 1_usize..4,
            stride in 1_usize..4,
            border in 0_usize..3,
            dilation in 1_usize..3,
        ) {
            let weight = noise(1, channels * kernel * kernel);
            let image = noise(2, batch * channels * height * width);
            let shape = (batch, channels, height, width);
            let x = Tensor::from_vec(image, shape, &Device::Cpu).unwrap();
            let kernels = (channels, 1, kernel, kernel);
            let w = Tensor::from_slice(&weight, kernels, &Device::Cpu).unwrap();
            let expected = x.conv2d(&w, border, stride, dilation, channels).unwrap();

            let depthwise = Depthwise {
                weight: Constant::new(vec![channels, 1, kernel, kernel], weight),
                window: Window {
                    kernel: [kernel; 2],
                    strides: [stride; 2],
                    pads: [border; 4],
                },
                border_values: None,
                dilations: [dilation; 2],
            };
            let found = x.apply_op1_no_bwd(&depthwise).unwrap();
            prop_assert_eq!(found.dims(), expected.dims());
            assert_close(
                &found.flatten_all().unwrap().to_vec1().unwrap(),
                &expected.flatten_all().unwrap().to_vec1().unwrap(),
                1e-5,
            );
        }
    }
}
