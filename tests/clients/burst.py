#!/usr/bin/env python3
"""Sends many verifications at once and then more: checks decisions, batch sizes and memory.

Usage: burst.py PATH_OF_THE_BINARY [MORE_CALLS]   (from the root of the repository)
Needs what reflect.py needs, and /proc.
"""
import itertools
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
from reflect import Caller, check, serving

AT_ONCE = 64
LANES = ("yunet", "sface", "fr_liveness")
LIVE = ["person_a_2.jpg", "person_b_1.jpg", "person_b_2.jpg", "impostor_1.jpg", "impostor_2.jpg"]
PORTRAITS = ["person_a_1.jpg", "astronaut.png", "grace_hopper.jpg", *LIVE]
PAIRS = [(portrait, live) for portrait in PORTRAITS for live in LIVE if portrait != live]


def person(name):
    return name[:8] if name.startswith("person") else name


def is_right(caller, pair):
    portrait, live = pair
    same = person(portrait) == person(live)
    decision = caller.verify(portrait, live, policy_fmr=1e-4)["decision"]
    return decision == ("DECISION_PASS" if same else "DECISION_FAIL")


def read_batch_metrics(http):
    """Returns the rows and batches of each lane so far, from /metrics."""
    with urllib.request.urlopen(f"http://{http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    read = lambda what, lane: float(values.get(f'menshen_batch_rows_{what}{{lane="{lane}"}}', 0))
    return {lane: (read("sum", lane), read("count", lane)) for lane in LANES}


def show_memory(server, when):
    """Prints resident memory now and its peak; an idle system may take pages back."""
    with open(f"/proc/{server.pid}/status") as status:
        sizes = dict(line.split(":") for line in status if line.startswith("Vm"))
    now, peak = (int(sizes[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM"))
    print(f"   {when}: {now} MiB resident, {peak} MiB at most so far", flush=True)


def burst(caller, http, pairs):
    before, began = read_batch_metrics(http), time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda pair: is_right(caller, pair), pairs))
    seconds = time.monotonic() - began
    check(f"{len(answers)} answers are right", all(answers), answers.count(False))
    mean = {}
    for lane, (rows, batches) in read_batch_metrics(http).items():
        mean[lane] = (rows - before[lane][0]) / (batches - before[lane][1])
    batches = ", ".join(f"{lane} {size:.1f}" for lane, size in mean.items())
    print(f"   {seconds:.1f} s, {len(answers) / seconds:.1f} a second; mean batch: {batches}")
    return mean


def main():
    more = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with serving(sys.argv[1]) as (server, address, http):
        caller = Caller(grpc.insecure_channel(address))
        show_memory(server, "after the start")
        pairs = itertools.cycle(PAIRS)
        mean = burst(caller, http, list(itertools.islice(pairs, AT_ONCE)))
        check("more than 4 rows a batch", all(size > 4 for size in mean.values()), mean)
        show_memory(server, f"after {AT_ONCE} at once")
        # In quarters: memory that grows with the number of calls shows as a rising peak.
        for quarter in range(1, 5) if more else ():
            burst(caller, http, list(itertools.islice(pairs, more // 4)))
            show_memory(server, f"after {quarter * (more // 4)} more")


if __name__ == "__main__":
    main()
