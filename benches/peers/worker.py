"""Times a peer: worker.py ENGINE MODEL.onnx BATCH THREADS, with an engine of `ENGINES` below.

The workers of all engines speak this protocol, `engine_worker.rs` too. The worker runs the network
once and prints `ready` and eight numbers of the first output, flattened: the first four, then the
last four with the very last one first (fewer, if the output is shorter). For each line N that it
reads, it runs N inferences and prints N times on one line. Each is `WALL:CPU` in milliseconds,
where CPU is the time of the whole process, all threads together.
"""

import sys
import time

import numpy as np

from noise import batch_input
from random_nets import BATCH


def onnx_runtime(model, x, threads, provider="CPUExecutionProvider", **settings):
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        sys.exit(f"this ONNX Runtime has no {provider}: install onnxruntime-gpu in its place")

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # With a known batch, ONNX Runtime can plan its memory and fold shapes, as OpenVINO does after
    # reshape.
    options.add_free_dimension_override_by_name(BATCH, len(x))
    session = onnxruntime.InferenceSession(
        model, options, providers=[(provider, settings)], enable_fallback=0
    )
    # Even with this option, ONNX Runtime continues without a provider whose libraries are missing.
    if session.get_providers()[0] != provider:
        sys.exit(f"{provider} does not start on this machine")
    inputs = {session.get_inputs()[0].name: x}
    return lambda: session.run(None, inputs)


def openvino(model, x, threads, precision):
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape(list(x.shape))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(network, "CPU", settings)
    if compiled.get_property("INFERENCE_PRECISION_HINT").to_string() != precision:
        sys.exit(f"OpenVINO has no {precision} on this CPU")
    request = compiled.create_infer_request()

    def infer():
        request.infer([x], share_inputs=True)
        return [tensor.data for tensor in request.output_tensors]

    return infer


ENGINES = {
    "ort": onnx_runtime,
    "ort-cuda": lambda *call: onnx_runtime(*call, "CUDAExecutionProvider", use_tf32=0),
    "ort-tensorrt": lambda *call: onnx_runtime(*call, "TensorrtExecutionProvider"),
    "ort-tensorrt-f16": lambda *call: onnx_runtime(
        *call, "TensorrtExecutionProvider", trt_fp16_enable=True
    ),
    "ov-f32": lambda *call: openvino(*call, "f32"),
    "ov-bf16": lambda *call: openvino(*call, "bf16"),
}


def time_once(infer):
    cpu, wall = time.process_time(), time.perf_counter()
    infer()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return f"{wall * 1e3:.5f}:{cpu * 1e3:.5f}"


def main():
    engine, model, batch, threads = sys.argv[1:]
    x = batch_input(model, int(batch))
    infer = ENGINES[engine](model, x, int(threads))
    outputs = infer()
    if any(output.shape[0] != len(x) for output in outputs):
        sys.exit(f"an output has lost the batch: {[output.shape for output in outputs]}")
    first = np.asarray(outputs[0], dtype=np.float32).reshape(-1)
    print("ready", *(f"{v:.9g}" for v in [*first[:4], *first[::-1][:4]]), flush=True)
    for line in sys.stdin:
        print(*(time_once(infer) for _ in range(int(line))), flush=True)


if __name__ == "__main__":
    main()
