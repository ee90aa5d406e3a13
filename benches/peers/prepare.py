"""Prepares one ONNX file per network in target/peers/. Every engine is given the same file.

Published files need three changes before every engine can read them at any batch size:
- Weights stored as `DequantizeLinear` and `Reshape` of constants are folded to f32. ONNX Runtime
  refuses the block-quantised YuNet file as it is published.
- Graph inputs that no node reads, or that are weights, are removed. SFace lists 174 of them.
- The batch axis becomes symbolic, and a reshape to `[1, -1, ...]` keeps the batch axis instead.
"""

import tomllib
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

import random_nets

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "target" / "peers"

# Sides of the square input, for networks that are timed at other sizes than that of their file.
SIDES = {"yunet": (640, 320)}


def networks(extra=None):
    """Returns a map from the name of each network to a function that builds its prepared model."""
    found = dict(random_nets.NETWORKS)
    for manifest in sorted(ROOT.glob("models/*/*/model.toml")):
        fields = tomllib.loads(manifest.read_text())
        file = manifest.parent / fields["file"]
        name = fields["name"]
        for side in SIDES.get(name, ()):
            found[f"{name}_{side}"] = lambda file=file, side=side: prepare_file(file, side)
        if name not in SIDES:
            found[name] = lambda file=file: prepare_file(file)
    for file in sorted(Path(extra).glob("*.onnx")) if extra else ():
        found[file.stem] = lambda file=file: prepare_file(file)
    return found


def write(name, build):
    """Writes the prepared file of a network and returns its path."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.onnx"
    onnx.save(build(), path)
    return path


def prepare_file(file, side=None):
    model = onnx.load(file)
    fold_constants(model.graph)
    drop_stale_inputs(model.graph)
    open_batch(model.graph, side)
    # Files of an IR version below 4 must list their weights as inputs too; newer files need not.
    model.ir_version = max(model.ir_version, 8)
    return model


def fold_constants(graph):
    constants = {w.name: numpy_helper.to_array(w) for w in graph.initializer}
    kept = []
    for node in graph.node:
        value = fold_node(node, constants)
        if value is None:
            kept.append(node)
        else:
            constants[node.output[0]] = value
    read = {name for node in kept for name in node.input}
    weights = [
        numpy_helper.from_array(value, name)
        for name, value in constants.items()
        if name in read
    ]
    replace_items(graph.node, kept)
    replace_items(graph.initializer, weights)


def fold_node(node, constants):
    """Returns the value of a node whose inputs are all constants, or None for any other node."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Constant" and "value" in attributes:
        return numpy_helper.to_array(attributes["value"])
    if not all(name in constants for name in node.input):
        return None
    inputs = [constants[name] for name in node.input]
    if node.op_type == "Reshape":
        return inputs[0].reshape(inputs[1])
    if node.op_type == "DequantizeLinear":
        return dequantise(*inputs, **attributes)
    return None


def dequantise(x, scale, zero=None, axis=1, block_size=0):
    """Computes `DequantizeLinear`. With one scale for the tensor, a block size has no effect."""
    zero = np.zeros_like(scale) if zero is None else zero.astype(np.float32)
    x = x.astype(np.float32)
    if scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    elif block_size:
        blocks = lambda v: v.repeat(block_size, axis).take(range(x.shape[axis]), axis)
        scale, zero = blocks(scale), blocks(zero)
    else:
        along_axis = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
        scale, zero = scale.reshape(along_axis), zero.reshape(along_axis)
    return (x - zero) * scale


def drop_stale_inputs(graph):
    weights = {w.name for w in graph.initializer}
    read = {name for node in graph.node for name in node.input} - weights
    replace_items(graph.input, [i for i in graph.input if i.name in read])


def open_batch(graph, side):
    (image,) = graph.input
    dims = image.type.tensor_type.shape.dim
    dims[0].dim_param = random_nets.BATCH
    if side:
        dims[2].dim_value = dims[3].dim_value = side
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    for weight in graph.initializer:
        shape = numpy_helper.to_array(weight) if weight.name in targets else None
        if shape is not None and shape[0] == 1 and -1 in shape[1:]:
            keep_batch = np.array([0, *shape[1:]], dtype=np.int64)  # 0: same as the input.
            weight.CopyFrom(numpy_helper.from_array(keep_batch, weight.name))
    # The shapes in the file are those of a batch of one. Engines infer their own.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")


def replace_items(field, values):
    # Copy first, because the values may be the items of the field itself.
    values = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(values)
