"""Writes ONNX Runtime's f32 outputs, to check an engine in full: references.py FOLDER MODEL.onnx...

For each prepared file it writes the input and the outputs of a batch of two, as raw little-endian
f32: NAME.in.f32 and, for output K in the order of the file, NAME.outK.f32. NAME.json lists the
shapes. It also checks that each row gives the same outputs alone and together. This shows that the
rows of a prepared file are independent.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from noise import batch_input

BATCH = 2


def write(folder, name, model):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    x = batch_input(model, BATCH)
    outputs = session.run(None, {image: x})
    for row in range(BATCH):
        alone = session.run(None, {image: x[row : row + 1]})
        for one, both in zip(alone, outputs):
            assert one.shape[1:] == both.shape[1:], f"{name}: {one.shape} became {both.shape}"
            np.testing.assert_allclose(both[row], one[0], rtol=1e-4, atol=1e-4 * np.abs(one).max())
    x.astype("<f4").tofile(folder / f"{name}.in.f32")
    for k, output in enumerate(outputs):
        output.astype("<f4").tofile(folder / f"{name}.out{k}.f32")
    shapes = {
        "input": {"name": image, "shape": x.shape},
        "outputs": [
            {"name": node.name, "shape": output.shape}
            for node, output in zip(session.get_outputs(), outputs)
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(shapes, indent=1) + "\n")


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for model in sys.argv[2:]:
        write(folder, Path(model).stem, model)


if __name__ == "__main__":
    main()
