//! Arguments of the kernels. Each structure has the memory layout of the structure of its name in
//! `kernels/*.cu`. Parts of arguments whose name ends in `Argument` have a name without that ending
//! there.

use candle_core::cuda_backend::cudarc::driver::DeviceRepr;

/// An address on the device. 0 is null.
pub(super) type Address = u64;

/// Most axes of a strided kernel: those of an item, and the batch.
pub(super) const AXES_MAX: usize = 9;

/// Neighbouring elements that packed kernels read or write in one access.
pub(super) const PACK: usize = 4;

/// Constants that repeat: element `i` has the number `i % period`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Periodic {
    pub(super) numbers: Address,
    pub(super) period: u32,
}

impl Periodic {
    /// Stands for no constants.
    pub(super) const NONE: Self = Self { numbers: 0, period: 1 };
}

/// A function of one number.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ActivationArgument {
    pub(super) slopes: Periodic,
    pub(super) kind: i32,
    pub(super) a: f32,
    pub(super) b: f32,
}

/// `activation(sum × scale + shift + residual)`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct EpilogueArgument {
    pub(super) scale: Periodic,
    pub(super) shift: Periodic,
    pub(super) residual: Address,
    pub(super) activation: ActivationArgument,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ElementwiseArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) epilogue: EpilogueArgument,
    pub(super) count: u32,
}

/// Two arrays of one shape, each with its own strides.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct StridedAxes {
    pub(super) sizes: [u32; AXES_MAX],
    pub(super) first: [u32; AXES_MAX],
    pub(super) second: [u32; AXES_MAX],
    pub(super) axis_count: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct CopyArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) axes: StridedAxes,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct BinaryArguments {
    pub(super) y: Address,
    pub(super) a: Address,
    pub(super) b: Address,
    pub(super) axes: StridedAxes,
    pub(super) kind: i32,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct FillArguments {
    pub(super) y: Address,
    pub(super) value: f32,
    pub(super) count: u32,
}

/// Offset and size of an item's pixels in the upload. The upload holds one `PictureHeader` for each
/// item and then the pixels of all items, `[height, width, 3]`, red first.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PictureHeader {
    /// Offset of the pixels from the first `PictureHeader`, in bytes.
    pub start: u32,
    /// Pixels, at most the width of the network's input.
    pub width: u32,
    /// Pixels, at most the height of the network's input.
    pub height: u32,
}

impl PictureHeader {
    /// Size in the upload.
    pub const BYTES: usize = size_of::<Self>();

    /// Returns the bytes of the upload.
    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let numbers = [self.start, self.width, self.height];
        for (to, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *to = number.to_ne_bytes();
        }
        bytes
    }
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct PicturesArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixel_stride: u32,
    pub(super) channel_stride: u32,
    pub(super) source: [u32; 3],
    pub(super) mean: [f32; 3],
    pub(super) scale: [f32; 3],
    pub(super) count: u32,
}

/// A window that slides over an image, and the sizes of the input and the output image.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WindowArgument {
    pub(super) channels: u32,
    pub(super) height: i32,
    pub(super) width: i32,
    pub(super) out_height: i32,
    pub(super) out_width: i32,
    pub(super) kernel: [i32; 2],
    pub(super) strides: [i32; 2],
    pub(super) dilations: [i32; 2],
    pub(super) top: i32,
    pub(super) left: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct DepthwiseArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) weight: Address,
    pub(super) border_values: Address,
    pub(super) epilogue: EpilogueArgument,
    pub(super) window: WindowArgument,
    pub(super) multiplier: u32,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct PatchesArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) border_values: Address,
    pub(super) window: WindowArgument,
    pub(super) groups: u32,
    pub(super) first_pixel: u32,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct BorderArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) border_values: Address,
    pub(super) window: WindowArgument,
    pub(super) value: f32,
    pub(super) count: u32,
}

/// Arguments of the kernels `pool` and `resize`: `PoolArguments` and `ResizeArguments` there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ResampleArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) window: WindowArgument,
    pub(super) kind: i32,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ReduceArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) kept_sizes: [u32; AXES_MAX],
    pub(super) kept_strides: [u32; AXES_MAX],
    pub(super) reduced_sizes: [u32; AXES_MAX],
    pub(super) reduced_strides: [u32; AXES_MAX],
    pub(super) kept_axis_count: i32,
    pub(super) reduced_axis_count: i32,
    pub(super) kind: i32,
    pub(super) length: u32,
    pub(super) count: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct SoftmaxArguments {
    pub(super) y: Address,
    pub(super) x: Address,
    pub(super) length: u32,
    pub(super) inner: u32,
    pub(super) count: u32,
}

macro_rules! device_repr {
    ($($name:ident),*) => {
        $(
            // SAFETY: the structure holds plain numbers, in C's order and with C's padding.
            unsafe impl DeviceRepr for $name {}
        )*
    };
}

device_repr!(
    ElementwiseArguments,
    CopyArguments,
    BinaryArguments,
    FillArguments,
    PicturesArguments,
    DepthwiseArguments,
    PatchesArguments,
    BorderArguments,
    ResampleArguments,
    ReduceArguments,
    SoftmaxArguments
);
