"""Times several engines on one network in turns, so that a noisy minute hurts them all alike."""

import math
import statistics
import sys
from dataclasses import dataclass, field

from engines import ON_GPU, EngineError, Worker

COUNT_MAX = 2000


@dataclass
class Timing:
    """One engine on one case: a time per round, and how far its outputs are from the first's."""

    engine: str
    error: float = 0.0
    rounds_ms: list[float] = field(default_factory=list)

    @property
    def ms(self):
        return statistics.median(self.rounds_ms)

    def speed_over(self, peer):
        """The peer's time over ours, taken round by round."""
        return statistics.median(p / own for p, own in zip(peer.rounds_ms, self.rounds_ms))


def time_case(engines, model, case, rounds, seconds):
    """Returns a `Timing` per engine that runs, and a message per engine that does not."""
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
    """Warms a worker up; returns how many inferences fill `seconds`."""
    once_ms = min(wall for wall, _ in worker.run(2))
    count = round(seconds * 1e3 / once_ms)
    count = min(max(count, 1), COUNT_MAX)
    worker.run((count + 1) // 2)
    return count


def round_time_ms(times, engine, threads):
    """One thread counts CPU time, which other processes cannot take. More threads wait for each
    other, and the host for a GPU, so only wall time tells; its lower quartile is what the quiet
    moments gave."""
    if threads == 1 and engine not in ON_GPU:
        return statistics.median(cpu for _, cpu in times)
    walls = sorted(wall for wall, _ in times)
    return walls[len(walls) // 4]


def print_progress(case, timings, failures):
    """One line of progress on stderr, and one per engine that failed."""
    name, batch, threads = case
    parts = [f"{t.engine} {t.ms:.3f} ms (error {t.error:.0e})" for t in timings.values()]
    print(f"{name} b{batch} t{threads}:", ", ".join(parts), file=sys.stderr, flush=True)
    for engine, message in failures.items():
        print(f"  {engine} failed: {message}", file=sys.stderr, flush=True)
