"""The input that every engine is given: the same values in Python and in Rust."""

import numpy as np
import onnx


def row_shape(model):
    """Returns the shape of one row of the input of a prepared file."""
    (image,) = onnx.load(model, load_external_data=False).graph.input
    return [dim.dim_value for dim in image.type.tensor_type.shape.dim][1:]


def batch_input(model, batch):
    """Returns the input of a batch. Element i is ((i * 2654435761) >> 7 & 0xffff) / 32768 - 1."""
    shape = [batch, *row_shape(model)]
    i = np.arange(np.prod(shape), dtype=np.uint64)
    noise = (i * np.uint64(2654435761)) >> np.uint64(7) & np.uint64(0xFFFF)
    return (noise.astype(np.float32) / 32768 - 1).reshape(shape)
