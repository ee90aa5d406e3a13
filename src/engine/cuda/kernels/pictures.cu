// Converts the pixels that the host uploads into the input values of a network.
#include "common.cuh"

// Offset and size of an item's pixels, whose layout is [height, width, 3], red first. A picture
// smaller than the network's input lies in the upper left corner of the input; the rest is black.
struct PictureHeader {
    unsigned start;          // bytes from the first PictureHeader
    unsigned width, height;
};

struct PicturesArguments {
    void* y;
    const unsigned char* x;  // a PictureHeader for each item, then the pixels of all items
    unsigned width, height;  // of the network's input
    unsigned pixel_stride, channel_stride;
    unsigned source[3];      // for each channel of the network, the channel of the pixel it reads
    float mean[3];
    float scale[3];
    unsigned count;          // elements of the whole batch
};

// Computes (pixel - mean) × scale, as `InputContract::fill` does on the host.
template <class T, int N>
__device__ void pictures(const PicturesArguments& a) {
    const unsigned index = thread_number();
    if (index >= a.count) return;
    const Position position = find_position(index, 3, a.height, a.width);
    const PictureHeader header = reinterpret_cast<const PictureHeader*>(a.x)[position.item];
    const unsigned row = position.row, column = position.column;
    float value = 0.0f;
    if (row < header.height && column < header.width) {
        value =
            a.x[header.start + (row * header.width + column) * 3 + a.source[position.channel]];
    }
    const unsigned pixel = row * a.width + column;
    const unsigned to = position.item * a.width * a.height * 3 + pixel * a.pixel_stride +
                        position.channel * a.channel_stride;
    from_float(static_cast<T*>(a.y)[to],
               (value - a.mean[position.channel]) * a.scale[position.channel]);
}
KERNEL(pictures, PicturesArguments)
