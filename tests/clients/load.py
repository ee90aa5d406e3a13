#!/usr/bin/env python3
"""Checks `menshen load` from outside: the time that it reports is the time that a caller waits, and
others can read what it writes.

Usage: load.py PATH_OF_THE_BINARY   (from the root of the repository)
Needs the packages of reflect.py, hdrhistogram and jsonschema.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree

import jsonschema
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from reflect import check, serving

HOUR_NS = 3600 * 10**9
# Every percentile below is a whole number of calls: implementations round differently.
RATE, SECONDS, PAUSE = 200, 10, 1.0


def load(binary, *arguments):
    """Runs `menshen load` and returns its exit code and its report."""
    command = [binary, "load", "--json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    # An invalid run has a report, too. A busy machine makes a generator late.
    check(f"menshen load {' '.join(map(str, arguments))}", done.returncode < 2, done.returncode)
    return done.returncode, json.loads(done.stdout)


def pause(server, after, seconds, measured):
    time.sleep(after)
    os.kill(server.pid, signal.SIGSTOP)
    began = time.monotonic()
    time.sleep(seconds)
    measured.append(time.monotonic() - began)
    os.kill(server.pid, signal.SIGCONT)


def check_pause(binary, server, address, http, folder):
    """Of the calls that were due while the server was stopped, each waited for the rest of it."""
    measured = []
    stopping = threading.Thread(target=pause, args=(server, SECONDS / 2, PAUSE, measured))
    stopping.start()
    _, report = load(
        *(binary, "--server", address, "--metrics", http, "--call", "health"),
        *("--rate", str(RATE), "--duration", f"{SECONDS}s"),
        *("--hlog", folder / "a.hlog", "--hgrm", folder / "a.hgrm", "--plot", folder / "a.svg"),
    )
    stopping.join()
    check("every call was sent and answered", report["calls"] == {
        "offered": RATE * SECONDS, "answered": RATE * SECONDS, "failed": 0
    }, report["calls"])
    want = measured[0] - 0.01 * SECONDS
    p99 = report["latency_ms"]["p99"] / 1000
    # A pause of a busy machine may come on top.
    check(f"p99 is at least {want:.2f} s of a pause of {measured[0]:.2f} s", p99 > want * 0.95, p99)
    check("most calls did not wait", report["latency_ms"]["p50"] < PAUSE * 100, report["latency_ms"])
    return report


def check_histograms(folder, report):
    read = HistogramLogReader(str(folder / "a.hlog"), HdrHistogram(1, HOUR_NS, 3))
    total, seconds = HdrHistogram(1, HOUR_NS, 3), 0
    while (interval := read.get_next_interval_histogram()) is not None:
        total.add(interval)
        seconds += 1
    check("the log has a line a second", seconds >= SECONDS, seconds)
    for name, percentile in (("p50", 50), ("p99", 99), ("p999", 99.9), ("max", 100)):
        theirs = total.get_value_at_percentile(percentile) / 1e6
        ours = report["latency_ms"][name]
        check(f"PyPI's hdrhistogram reads our {name}", abs(theirs / ours - 1) < 1e-3, (theirs, ours))
    lines = (folder / "a.hgrm").read_text().splitlines()
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    check("the distribution ends with all calls", rows[-1][2] == str(RATE * SECONDS), rows[-1])


def check_search(binary, server, address, http):
    code, report = load(
        *(binary, "--server", address, "--metrics", http, "--call", "detect=3,health=1"),
        *("--find-saturation", "--slo", "p99<2s,error<1%", "--rate", "2", "--duration", "3s"),
        *("--rate-precision", "0.5", "--stores", "50", "--store-skew", "1", "--connections", "3"),
        *("--source-addresses", "3", "--threshold", "p50<0.001ms"),
    )
    found = report["saturation"]
    ends = [trial["end"] for trial in found["trials"]]
    check("a search tries good and bad rates", "passed" in ends and set(ends) != {"passed"}, ends)
    passed = [trial["rate"] for trial in found["trials"] if trial["end"] == "passed"]
    check("it returns a rate that passed", found["rate"] in passed, found["rate"])
    check("a threshold that is missed sets the exit code", code == 1, code)
    stages = {stage["name"] for stage in report["server"]["stages_ms"]}
    check("the server's stages stand beside the latencies", {"decode", "detect"} <= stages, stages)
    return report


def check_session(binary, address):
    _, report = load(binary, "--server", address, "--call", "session", "-n", "1", "-z", "1s")
    outcomes = report["kinds"][0]["outcomes"]
    check("a rendered session has a result", outcomes[0]["status"] == "OK", outcomes)
    check("its frames were sent", report["frames"]["sent"] > 30, report["frames"])
    return report


def main():
    binary = sys.argv[1]
    # A line of each refused call would bury the results.
    os.environ["MENSHEN_LOG__FILTER"] = "error"
    printed = subprocess.run([binary, "load", "--json-schema"], stdout=subprocess.PIPE, check=True)
    schema = json.loads(printed.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    with tempfile.TemporaryDirectory() as name, serving(binary) as (server, address, http):
        folder = pathlib.Path(name)
        paused = check_pause(binary, server, address, http, folder)
        check_histograms(folder, paused)
        root = xml.etree.ElementTree.parse(folder / "a.svg").getroot()
        check("the plot is an SVG document", root.tag.endswith("svg"), root.tag)
        reports = [paused, check_search(binary, server, address, http)]
        reports.append(check_session(binary, address))
        closed = load(binary, "--server", address, "--call", "health", "-c", "2", "-z", "1s")[1]
        check("a closed loop says so", closed["plan"]["loop"] == "closed", closed["plan"])
        for report in [*reports, closed]:
            jsonschema.validate(report, schema)
        check("every report fits its schema", True, None)


if __name__ == "__main__":
    main()
