"""The engines and their worker processes. The protocol is in `worker.py`."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from prepare import ROOT

MENSHEN = ROOT / "target" / "release" / "examples" / "engine_worker"
# This variable limits the instruction sets of oneDNN, whose kernels OpenVINO uses.
AVX2_ONLY = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
# TF32 rounds the factors of f32 products to 10 bits. ONNX Runtime's provider for TensorRT has no
# option against TF32 (microsoft/onnxruntime#26029). This variable turns TF32 off in NVIDIA's
# libraries.
NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}


def peer_command(name):
    return [sys.executable, Path(__file__).with_name("worker.py"), name], []


def menshen_command(*options):
    return [MENSHEN], list(options)


# Name, and the parts of the command line before and after MODEL BATCH THREADS.
ON_CPU = {
    "ort": peer_command("ort"),
    "ov-f32": peer_command("ov-f32"),
    "ov-bf16": peer_command("ov-bf16"),
    "ov-avx2": peer_command("ov-f32"),
    "menshen-f32": menshen_command("--precision", "f32"),
    "menshen-bf16": menshen_command("--precision", "bf16"),
    "menshen-avx2": menshen_command("--precision", "f32", "--kernels", "avx2"),
}
# Engines on the first GPU, from host memory and back.
ON_GPU = {
    "ort-cuda": peer_command("ort-cuda"),
    "ort-tensorrt": peer_command("ort-tensorrt"),
    "ort-tensorrt-f16": peer_command("ort-tensorrt-f16"),
    "menshen-cuda-f32": menshen_command("--gpu", "0", "--precision", "f32"),
    "menshen-cuda-tf32": menshen_command("--gpu", "0", "--precision", "tf32"),
    "menshen-cuda-f16": menshen_command("--gpu", "0", "--precision", "f16"),
}
ENGINES = ON_CPU | ON_GPU
ENVIRONMENT = {"ov-avx2": AVX2_ONLY, "ort-tensorrt": NO_TF32, "ort-tensorrt-f16": NO_TF32}


class EngineError(Exception):
    """An engine cannot run a network. The message is that of the worker."""


def check_built(names):
    """Raises `EngineError` if Menshen is among the names and its worker is not built."""
    if not any(name.startswith("menshen") for name in names):
        return
    if not MENSHEN.exists():
        command = "cargo build --release --example engine_worker"
        raise EngineError(f"{MENSHEN} is missing: run `{command}`")


class Worker:
    """A process with one network loaded. Between calls it waits for input and uses no CPU time."""

    def __init__(self, engine, model, batch, threads):
        before, after = ENGINES[engine]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*before, model, str(batch), str(threads), *after],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | ENVIRONMENT.get(engine, {}),
        )
        try:
            word, *numbers = self.read_line().split()
            if word != "ready" or not numbers:
                raise EngineError(f"said `{word}`, not `ready` and the outputs")
        except EngineError:
            self.close()
            raise
        self.outputs = [float(number) for number in numbers]

    def read_line(self):
        line = self.process.stdout.readline()
        if not line.strip():
            self.process.wait()
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["no message"]
            raise EngineError(f"exit status {self.process.returncode}: {said[-1]}")
        return line

    def run(self, count):
        """Runs `count` inferences and returns their (wall, CPU) times in milliseconds."""
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return [tuple(map(float, pair.split(":"))) for pair in self.read_line().split()]

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.close()
