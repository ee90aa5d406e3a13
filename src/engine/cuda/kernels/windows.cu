// Kernels that slide a window over an image. Dense convolutions are missing here: they run in
// cuDNN, or in cuBLAS as products of patches.
#include "common.cuh"

// Depthwise convolution: each output channel reads one input channel, and `multiplier` neighbouring
// output channels read the same one.
struct DepthwiseArguments {
    void* y;
    const void* x;
    const void* weight;      // [taps, output channels]
    const float* border_values;  // [input channels], or null for zeros
    Epilogue epilogue;
    Window window;           // its channels are the output channels
    unsigned multiplier;
    unsigned count;
};

template <class T, int N>
__device__ void depthwise(const DepthwiseArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    const Window& w = a.window;
    const Position position = find_position(index, w.channels, w.out_height, w.out_width);
    const unsigned input_channels = w.channels / a.multiplier,
                   input_channel = position.channel / a.multiplier;
    const T* image =
        static_cast<const T*>(a.x) + position.item * w.height * w.width * input_channels;
    float sum[N] = {};
    for (int i = 0; i < w.kernel_height; ++i) {
        const int row = position.row * w.stride_height - w.top + i * w.dilation_height;
        for (int j = 0; j < w.kernel_width; ++j) {
            const int column = position.column * w.stride_width - w.left + j * w.dilation_width;
            float x[N], weight[N];
            if (is_inside(w, row, column)) {
                read(x, image, (row * w.width + column) * input_channels + input_channel);
            } else if (a.border_values) {
                for (int k = 0; k < N; ++k) x[k] = a.border_values[input_channel + k];
            } else {
                continue;
            }
            const unsigned tap = i * w.kernel_width + j;
            read(weight, static_cast<const T*>(a.weight), tap * w.channels + position.channel);
            for (int k = 0; k < N; ++k) sum[k] += x[k] * weight[k];
        }
    }
    apply_epilogue<T>(sum, a.epilogue, index);
    write(static_cast<T*>(a.y), index, sum);
}
PACKED_KERNEL(depthwise, DepthwiseArguments)

// Copies the input elements that each output pixel of a convolution reads, its patch:
// [pixels, groups, taps, channels of a group].
struct PatchesArguments {
    void* y;
    const void* x;
    const float* border_values;  // [channels], or null for zeros
    Window window;
    unsigned groups;
    unsigned first_pixel;    // in the output images of the whole batch
    unsigned count;
};

template <class T, int N>
__device__ void patches(const PatchesArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    const Window& w = a.window;
    const unsigned group_channels = w.channels / a.groups, taps = w.kernel_height * w.kernel_width;
    unsigned rest = index / group_channels;
    const unsigned tap = rest % taps;
    rest /= taps;
    const unsigned channel = rest % a.groups * group_channels + index % group_channels;
    const unsigned pixel = rest / a.groups + a.first_pixel;
    const Position position = find_position(pixel, 1, w.out_height, w.out_width);
    const int row =
        position.row * w.stride_height - w.top + (int)(tap / w.kernel_width) * w.dilation_height;
    const int column =
        position.column * w.stride_width - w.left + (int)(tap % w.kernel_width) * w.dilation_width;
    float x[N] = {};
    if (is_inside(w, row, column)) {
        const unsigned source = (position.item * w.height + row) * w.width + column;
        read(x, static_cast<const T*>(a.x), source * w.channels + channel);
    } else if (a.border_values) {
        for (int k = 0; k < N; ++k) x[k] = a.border_values[channel + k];
    }
    write(static_cast<T*>(a.y), index, x);
}
PACKED_KERNEL(patches, PatchesArguments)

// Adds a border to an image, for libraries that know only symmetric borders of zeros.
struct BorderArguments {
    void* y;
    const void* x;
    const float* border_values;  // [channels], or null for `value`
    Window window;           // the output is the larger image; kernel and strides are not read
    float value;
    unsigned count;
};

template <class T, int N>
__device__ void border(const BorderArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    const Window& w = a.window;
    const Position position = find_position(index, w.channels, w.out_height, w.out_width);
    const int row = position.row - w.top, column = position.column - w.left;
    float x[N];
    if (is_inside(w, row, column)) {
        const unsigned source = (position.item * w.height + row) * w.width + column;
        read(x, static_cast<const T*>(a.x), source * w.channels + position.channel);
    } else {
        for (int k = 0; k < N; ++k)
            x[k] = a.border_values ? a.border_values[position.channel + k] : a.value;
    }
    write(static_cast<T*>(a.y), index, x);
}
PACKED_KERNEL(border, BorderArguments)

enum PoolKind { MAX_POOL, AVERAGE_POOL_WITH_BORDER, AVERAGE_POOL_INSIDE };

struct PoolArguments {
    void* y;
    const void* x;
    Window window;
    int kind;
    unsigned count;
};

template <class T, int N>
__device__ void pool(const PoolArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    const Window& w = a.window;
    const Position position = find_position(index, w.channels, w.out_height, w.out_width);
    const bool is_average = a.kind != MAX_POOL;
    float result[N];
    for (int k = 0; k < N; ++k) result[k] = is_average ? 0.0f : -INFINITY;
    int inside = 0;
    for (int i = 0; i < w.kernel_height; ++i) {
        const int row = position.row * w.stride_height - w.top + i;
        for (int j = 0; j < w.kernel_width; ++j) {
            const int column = position.column * w.stride_width - w.left + j;
            if (!is_inside(w, row, column)) continue;
            float x[N];
            const unsigned source = (position.item * w.height + row) * w.width + column;
            read(x, static_cast<const T*>(a.x), source * w.channels + position.channel);
            for (int k = 0; k < N; ++k)
                result[k] = is_average ? result[k] + x[k] : larger(x[k], result[k]);
            ++inside;
        }
    }
    const int elements =
        a.kind == AVERAGE_POOL_WITH_BORDER ? w.kernel_height * w.kernel_width : inside;
    for (int k = 0; k < N; ++k) result[k] = is_average ? result[k] / elements : result[k];
    write(static_cast<T*>(a.y), index, result);
}
PACKED_KERNEL(pool, PoolArguments)

enum ResizeKind { NEAREST, LINEAR, LINEAR_ALIGN_CORNERS };

struct ResizeArguments {
    void* y;
    const void* x;
    Window window;           // kernel, strides and borders are not read
    int kind;
    unsigned count;
};

// The input pixels before and after an output pixel along one axis, and the weight of the second.
struct Interpolation {
    int before, after;
    float fraction;
};

__device__ inline Interpolation interpolate(int kind, int to, int in, int out) {
    float coordinate;
    if (kind == LINEAR_ALIGN_CORNERS) {
        coordinate = out > 1 ? to * (float)(in - 1) / (float)(out - 1) : 0.0f;
    } else {
        coordinate = fmaxf((to + 0.5f) * (float)in / (float)out - 0.5f, 0.0f);
    }
    Interpolation result;
    result.before = min((int)coordinate, in - 1);
    result.after = min(result.before + 1, in - 1);
    result.fraction = fminf(fmaxf(coordinate - result.before, 0.0f), 1.0f);
    return result;
}

template <class T, int N>
__device__ void resize(const ResizeArguments& a) {
    const unsigned index = thread_number() * N;
    if (index >= a.count) return;
    const Window& w = a.window;
    const Position position = find_position(index, w.channels, w.out_height, w.out_width);
    const T* image = static_cast<const T*>(a.x) +
                     position.item * w.height * w.width * w.channels + position.channel;
    float result[N];
    if (a.kind == NEAREST) {
        const int row = position.row * w.height / w.out_height,
                  column = position.column * w.width / w.out_width;
        read(result, image, (row * w.width + column) * w.channels);
    } else {
        const Interpolation vertical = interpolate(a.kind, position.row, w.height, w.out_height);
        const Interpolation horizontal = interpolate(a.kind, position.column, w.width, w.out_width);
        float corners[4][N];
        read(corners[0], image, (vertical.before * w.width + horizontal.before) * w.channels);
        read(corners[1], image, (vertical.before * w.width + horizontal.after) * w.channels);
        read(corners[2], image, (vertical.after * w.width + horizontal.before) * w.channels);
        read(corners[3], image, (vertical.after * w.width + horizontal.after) * w.channels);
        for (int k = 0; k < N; ++k) {
            const float upper =
                corners[0][k] + (corners[1][k] - corners[0][k]) * horizontal.fraction;
            const float lower =
                corners[2][k] + (corners[3][k] - corners[2][k]) * horizontal.fraction;
            result[k] = upper + (lower - upper) * vertical.fraction;
        }
    }
    write(static_cast<T*>(a.y), index, result);
}
PACKED_KERNEL(resize, ResizeArguments)
