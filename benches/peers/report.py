"""Writes results as JSON lines and Markdown tables, with the hardware and the versions."""

import datetime
import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engines import ON_GPU
from prepare import ROOT

# For each table: its columns of times, then its columns of ratios (ours, the peer's).
TABLES = (
    (
        {
            "ONNX Runtime": "ort",
            "OpenVINO f32": "ov-f32",
            "OpenVINO bf16": "ov-bf16",
            "Menshen f32": "menshen-f32",
            "Menshen bf16": "menshen-bf16",
        },
        {
            "f32 vs ONNX Runtime": ("menshen-f32", "ort"),
            "f32 vs OpenVINO f32": ("menshen-f32", "ov-f32"),
            "bf16 vs OpenVINO bf16": ("menshen-bf16", "ov-bf16"),
        },
    ),
    (
        {"OpenVINO f32, AVX2": "ov-avx2", "Menshen f32, AVX2": "menshen-avx2"},
        {"AVX2 vs OpenVINO AVX2": ("menshen-avx2", "ov-avx2")},
    ),
    (
        {
            "ORT CUDA f32": "ort-cuda",
            "ORT TensorRT f32": "ort-tensorrt",
            "ORT TensorRT f16": "ort-tensorrt-f16",
            "Menshen f32": "menshen-cuda-f32",
            "Menshen f16": "menshen-cuda-f16",
        },
        {
            "f32 vs CUDA f32": ("menshen-cuda-f32", "ort-cuda"),
            "f32 vs TensorRT f32": ("menshen-cuda-f32", "ort-tensorrt"),
            "f16 vs TensorRT f16": ("menshen-cuda-f16", "ort-tensorrt-f16"),
        },
    ),
)
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2")


def describe_machine():
    """Returns the hardware, the versions and the date."""
    return {
        "cpu": describe_cpu(),
        "cores": os.cpu_count(),
        "gpu": describe_gpus(),
        "onnxruntime": installed_version("onnxruntime-gpu", "onnxruntime"),
        "openvino": installed_version("openvino"),
        "menshen": revision(),
        "date": datetime.date.today().isoformat(),
    }


def describe_cpu():
    info = Path("/proc/cpuinfo")
    facts = {}
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = set(facts.get("flags", "").split())
    has = [name for name in INSTRUCTIONS if name in flags]
    name = facts.get("model name", platform.machine())
    return f"{name} ({', '.join(has)})" if has else name


def describe_gpus():
    """Returns the GPUs and their driver from `nvidia-smi`, or "" if it does not run."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines() if done.returncode == 0 else []
    return "; ".join(line.replace(", ", ", driver ") for line in lines)


def installed_version(*packages):
    """Returns the version of the first of these packages that is installed."""
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "not installed"


def revision():
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def write_results(file, machine, case, timings, failures):
    """Appends one line per engine to the results."""
    network, batch, threads = case
    where = machine | {"network": network, "batch": batch, "threads": threads}
    for timing in timings.values():
        times = {"engine": timing.engine, "ms": timing.ms, "rounds_ms": timing.rounds_ms}
        file.write(json.dumps(where | times | {"relative_error": timing.error}) + "\n")
    for engine, message in failures.items():
        file.write(json.dumps(where | {"engine": engine, "failed": message}) + "\n")
    file.flush()


def markdown(machine, command, results):
    """Returns all tables. `results` maps a case to its timings."""
    threads = sorted({threads for _, _, threads in results})
    tables = [table(t, *spec, results) for t in threads for spec in TABLES]
    hardware = [machine["cpu"], f"{machine['cores']} cores", machine["gpu"]]
    heading = (
        f"{', '.join(filter(None, hardware))}; "
        f"ONNX Runtime {machine['onnxruntime']}, OpenVINO {machine['openvino']}, "
        f"Menshen {machine['menshen']}; {machine['date']}; `{command}`. "
        "Milliseconds per batch; a ratio above 1 means that Menshen is faster."
    )
    return "\n\n".join([heading, *filter(None, tables)])


def table(threads, times, ratios, results):
    """Returns the table of one thread count and column set, or "" if no engine of it ran."""
    cases = {case: timings for case, timings in results.items() if case[2] == threads}
    if not any(engine in timings for timings in cases.values() for engine in times.values()):
        return ""
    kind = "1 thread, CPU time" if threads == 1 else f"{threads} threads, wall time"
    if ON_GPU.keys() & times.values():
        kind = f"GPU, wall time, {threads} of the host's threads"
    columns = ["Network", "Batch", *times, *ratios]
    lines = [columns, ["---"] + ["--:"] * (len(columns) - 1)]
    for (network, batch, _), timings in cases.items():
        times_ms = [format_ms(timings.get(engine)) for engine in times.values()]
        pairs = [(timings.get(own), timings.get(peer)) for own, peer in ratios.values()]
        speedups = [format_ratio(own, peer) for own, peer in pairs]
        lines.append([network, str(batch), *times_ms, *speedups])
    return f"{kind}:\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def format_ms(timing):
    if timing is None:
        return "–"
    decimals = 2 if timing.ms < 10 else 1 if timing.ms < 100 else 0
    return f"{timing.ms:.{decimals}f}"


def format_ratio(own, peer):
    return f"{own.speed_over(peer):.2f}×" if own and peer else "–"
