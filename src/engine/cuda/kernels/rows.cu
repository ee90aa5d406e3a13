// Pixels as they come from the host to the values that networks are fed.
#include "common.cuh"

struct RowsArguments {
    void* y;
    const unsigned char* x;  // [batch, pixels, 3], red first
    unsigned pixels;         // of one row
    unsigned pixel_stride, channel_stride;
    unsigned source[3];      // for each channel of the network, that of a pixel
    float mean[3];
    float scale[3];
    unsigned count;          // values of the whole batch
};

// (pixel - mean) × scale, as `InputContract::fill` has it.
template <class T, int N>
__device__ void rows(const RowsArguments& a) {
    const unsigned at = thread_number();
    if (at >= a.count) return;
    const unsigned channel = at % 3, pixel = at / 3 % a.pixels, row = at / 3 / a.pixels;
    const float value = a.x[(row * a.pixels + pixel) * 3 + a.source[channel]];
    const unsigned to = row * a.pixels * 3 + pixel * a.pixel_stride + channel * a.channel_stride;
    from_float(static_cast<T*>(a.y)[to], (value - a.mean[channel]) * a.scale[channel]);
}
KERNEL(rows, RowsArguments)
