"""Times several engines on one network in turns, so that noise affects all of them alike."""

import math
import statistics
import sys
from dataclasses import dataclass, field

from engines import ON_GPU, EngineError, Worker

COUNT_MAX = 2000


@dataclass
class Timing:
    """One engine on one case: a time per round, and the relative error to the first engine."""

    engine: str
    error: float = 0.0
    rounds_ms: list[float] = field(default_factory=list)

    @property
    def ms(self):
        return statistics.median(self.rounds_ms)

    def speed_over(self, peer):
        """Returns the median over the rounds of the peer's time divided by ours."""
        return statistics.median(p / own for p, own in zip(peer.rounds_ms, self.rounds_ms))


def time_case(engines, model, case, rounds, seconds):
    """Returns a `Timing` per engine that ran, and a message per engine that failed."""
    _, batch, threads = case
    workers, timings, failures = {}, {}, {}
    try:
        for engine in engines:
            try:
                workers[engine] = Worker(engine, model, batch, threads)
            except EngineError as error:
                failures[engine] = str(error)
        for engine, worker in workers.items():
            first = next(iter(workers.values()))
            timings[engine] = Timing(engine, relative_error(worker.outputs, first.outputs))
        counts = {engine: warm_up(worker, seconds) for engine, worker in workers.items()}
        for _ in range(rounds):
            for engine, worker in workers.items():
                times = worker.run(counts[engine])
                timings[engine].rounds_ms.append(round_time_ms(times, engine, threads))
    finally:
        for worker in workers.values():
            worker.close()
    return timings, failures


def relative_error(outputs, reference):
    if len(outputs) != len(reference):
        return math.inf
    largest = max(map(abs, reference)) or 1.0
    return max(abs(a - b) for a, b in zip(outputs, reference)) / largest


def warm_up(worker, seconds):
    """Warms a worker up and returns the number of inferences that take `seconds`."""
    once_ms = min(wall for wall, _ in worker.run(2))
    count = round(seconds * 1e3 / once_ms)
    count = min(max(count, 1), COUNT_MAX)
    worker.run((count + 1) // 2)
    return count


def round_time_ms(times, engine, threads):
    """Returns the time of a round in milliseconds.

    With one thread on the CPU this is the median CPU time, which other processes do not affect.
    With more threads, which wait for each other, or a GPU, it is the lower quartile of the wall
    times: the time without noise.
    """
    if threads == 1 and engine not in ON_GPU:
        return statistics.median(cpu for _, cpu in times)
    walls = sorted(wall for wall, _ in times)
    return walls[len(walls) // 4]


def print_progress(case, timings, failures):
    """Prints one line of progress to stderr, and one per engine that failed."""
    name, batch, threads = case
    parts = [f"{t.engine} {t.ms:.3f} ms (error {t.error:.0e})" for t in timings.values()]
    print(f"{name} b{batch} t{threads}:", ", ".join(parts), file=sys.stderr, flush=True)
    for engine, message in failures.items():
        print(f"  {engine} failed: {message}", file=sys.stderr, flush=True)
