"""Times Menshen's engine against ONNX Runtime and OpenVINO, on the same networks in one run.

    benches/peers/run                                    # all networks, batches 1 and 8, one thread
    benches/peers/run --nets sface,yunet_640 --batches 1
    benches/peers/run --threads 2 --engines ort,ov-f32,menshen-f32
    benches/peers/run --engines ov-avx2,menshen-avx2     # both limited to AVX2
    benches/peers/run --extra DIR                        # more ONNX files, by their file names

On a GPU, with onnxruntime-gpu instead of onnxruntime ("f16" lets TensorRT choose f16 per layer):

    PYTHON=python3 benches/peers/run --engines \\
        ort-cuda,ort-tensorrt,ort-tensorrt-f16,menshen-cuda-f32,menshen-cuda-f16

`run` builds Menshen and installs the peers into target/peers-venv. It installs nothing if they are
there already, or if the Python named by `PYTHON` (default: python3) has them. The networks are face
networks with random weights (`random_nets.py`) and those of models/ (`prepare.py`).

In every round of a case, each engine in turn runs for about `--seconds`. Tables go to stdout.
Progress goes to stderr, with the relative difference of each engine's outputs from the first
engine's. The time of every round goes to target/peers/results.jsonl. A case takes about
engines * seconds * (rounds + 1), plus the time to load the network.

The input is noise in [-1, 1). For networks made for pixels of 0..255 this is an almost black
picture. Their bf16 outputs differ much (SFace by 0.2). The time of ONNX Runtime on networks with
PReLU depends on the values: it is up to 1.6 times faster on this input than on noise of 0..255.
"""

import argparse
import sys

import engines
import prepare
import report
import rounds

DEFAULT_ENGINES = "ort,ov-f32,ov-bf16,menshen-f32,menshen-bf16"


def parse_options():
    def names(text):
        return text.split(",")

    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(
        prog="benches/peers/run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--nets", type=names, help="names, separated by commas (default: all)")
    parser.add_argument("--batches", type=numbers, default=[1, 8], help="(default: 1,8)")
    parser.add_argument("--threads", type=numbers, default=[1], help="(default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seconds", type=float, default=0.4, help="(default: 0.4)")
    parser.add_argument(
        "--engines",
        type=names,
        default=names(DEFAULT_ENGINES),
        help=f"of {','.join(engines.ENGINES)} (default: {DEFAULT_ENGINES})",
    )
    parser.add_argument("--extra", metavar="DIR", help="a folder with more ONNX files")
    return parser, parser.parse_args()


def check_names(kind, asked, known):
    unknown = [name for name in asked if name not in known]
    if unknown:
        sys.exit(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}")


def main():
    parser, options = parse_options()
    networks = prepare.networks(options.extra)
    nets = options.nets or list(networks)
    check_names("network", nets, networks)
    check_names("engine", options.engines, engines.ENGINES)
    if min(options.rounds, *options.batches, *options.threads) < 1:
        parser.error("rounds, batches and threads start at 1")
    try:
        engines.check_built(options.engines)
    except engines.EngineError as error:
        sys.exit(str(error))

    machine = report.describe_machine()
    results, failed = {}, False
    models = {net: prepare.write(net, networks[net]) for net in nets}
    cases = [(net, b, t) for t in options.threads for net in nets for b in options.batches]
    with open(prepare.FOLDER / "results.jsonl", "a") as file:
        for case in cases:
            model = models[case[0]]
            timings, failures = rounds.time_case(
                options.engines, model, case, options.rounds, options.seconds
            )
            rounds.print_progress(case, timings, failures)
            report.write_results(file, machine, case, timings, failures)
            results[case], failed = timings, failed or bool(failures)
    command = " ".join(["benches/peers/run", *sys.argv[1:]])
    print(report.markdown(machine, command, results))
    sys.exit(failed)


if __name__ == "__main__":
    main()
