#!/usr/bin/env python3
"""Measures how many liveness streams a machine sustains at once, and what they cost.

Usage: streams.py PATH_OF_THE_BINARY STREAMS [SECONDS]   (from the root of the repository)
Needs the packages of liveness.py, Pillow, and /proc.

Each stream runs one session after another for SECONDS (30 unless given). A session shows a
photograph in an unsteady hand and sends 10 frames a second, each on time even if the server does
not keep up. The person never moves. So a session ends with RETRY if the server kept up, and with
RESOURCE_EXHAUSTED if the server left out frames. Each session is closed before its first action is
out of time. The measured time runs from the last frame to the result, which comes after everything
that waits in the server. The number of frames looked at is known for sessions with a result only.
Exits with 1 unless the server kept up with all sessions.
"""
import collections
import io
import math
import os
import pathlib
import random
import statistics
import sys
import threading
import time
import urllib.request

import grpc
from burst import show_memory
from liveness import FRAMES_PER_SECOND, Session, enum_name, face, with_comment
from PIL import Image, ImageOps
from reflect import FACES, check, serving

# An action is asked for after half a second of looking straight, and may take five seconds.
SESSION_FRAMES = 45
FRAME_SIZE = (480, 640)
TREMOR_PX = 0.8
STAGES = ("decode", "detect", "align", "mesh", "eyes", "embed", "liveness")


def hand_held_frames(photo):
    """Yields the pictures of one session, with a trembling hand and a noisy sensor."""
    scene = ImageOps.fit(Image.open(photo).convert("RGB"), FRAME_SIZE)
    # No position occurs twice, which would be taken for a loop.
    side = math.isqrt(SESSION_FRAMES) + 1
    places = [(x * TREMOR_PX, y * TREMOR_PX) for x in range(side) for y in range(side)]
    random.Random(1).shuffle(places)
    for x, y in places[:SESSION_FRAMES]:
        moved = scene.transform(
            FRAME_SIZE, Image.Transform.AFFINE, (1, 0, x, 0, 1, y), Image.Resampling.BICUBIC
        )
        noise = Image.effect_noise(FRAME_SIZE, 40).convert("RGB")
        file = io.BytesIO()
        Image.blend(moved, noise, 0.06).save(file, "JPEG", quality=85)
        yield file.getvalue()


class Stream:
    """Runs sessions one after the other on a connection of its own, and counts their ends."""

    def __init__(self, number, address, portrait, pictures):
        self.number, self.portrait, self.pictures = number, portrait, pictures
        # Without it all channels of a process to one address share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(address, options)
        self.sent = self.looked_at = self.left_out = 0
        self.ends = collections.Counter()
        self.result_ms, self.late_ms = [], []

    def run(self, until):
        session = 0
        while time.monotonic() < until:
            transaction = f"load-{self.number}-{session}"
            try:
                self.ends[self.run_session(transaction)] += 1
            except grpc.RpcError as error:
                self.ends[error.code().name] += 1
            session += 1

    def run_session(self, transaction):
        """Runs a session and returns its decision."""
        session, left_out = Session(self.channel, self.portrait, transaction), 0
        pictures = enumerate(self.pictures)
        files = (with_comment(picture, (transaction, at)) for at, picture in pictures)
        try:
            for event in session.run(files):
                if event.HasField("thinned"):
                    left_out = event.thinned.frames
        finally:
            self.left_out += left_out
            self.sent += len(session.sent)
            for at, sent in enumerate(session.sent):
                self.late_ms.append((sent - session.begun - at / FRAMES_PER_SECOND) * 1000)
        self.looked_at += event.result.frames_received - left_out
        # If the server ended the session, there is no last frame to measure from.
        if event.result.frames_received == SESSION_FRAMES:
            self.result_ms.append((time.monotonic() - session.sent[-1]) * 1000)
        return enum_name(face.Decision, event.result.decision, "DECISION_")

    def show(self):
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        print(
            f"{self.number:>6} {self.sent:>6} {self.looked_at:>10} {self.left_out:>9}"
            f" {percentile(self.result_ms, 50):>8} {percentile(self.result_ms, 99):>8}  {ends}"
        )


def percentile(values, percent):
    """Returns the percentile of `values` as text; a dash if there are none."""
    if not values:
        return "-"
    return f"{sorted(values)[math.ceil(len(values) * percent / 100) - 1]:.0f}"


def read_stage_metrics(http):
    """Returns (seconds, rows) of the queue and (seconds, pictures) of each stage, from /metrics."""
    with urllib.request.urlopen(f"http://{http}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    values = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    read = lambda start: sum(float(value) for key, value in values if key.startswith(start))
    names = {"queue": "menshen_queue_wait_seconds_%s{"}
    names |= {stage: f'menshen_stage_seconds_%s{{stage="{stage}"' for stage in STAGES}
    return {name: (read(start % "sum"), read(start % "count")) for name, start in names.items()}


def processor_seconds(server):
    fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show_server(server, http, before, seconds):
    stages_before, used_before = before
    cores = (processor_seconds(server) - used_before) / seconds
    parts = []
    for stage, (total, count) in read_stage_metrics(http).items():
        more = count - stages_before[stage][1]
        if more:
            parts.append(f"{stage} {(total - stages_before[stage][0]) / more * 1000:.1f}")
    print(f"server: {cores:.2f} of {os.cpu_count()} cores; ms a picture: {', '.join(parts)}")


def main():
    binary, count = sys.argv[1], int(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 30.0
    portrait = pathlib.Path(FACES, "person_a_1.jpg").read_bytes()
    pictures = list(hand_held_frames(pathlib.Path(FACES, "person_a_2.jpg")))
    size = statistics.mean(map(len, pictures)) / 1024
    print(
        f"{count} streams of {FRAMES_PER_SECOND} frames of {size:.0f} KiB a second, {seconds:g} s"
    )
    with serving(binary) as (server, address, http):
        show_memory(server, "after the start")
        streams = [Stream(number, address, portrait, pictures) for number in range(count)]
        before, begun = (read_stage_metrics(http), processor_seconds(server)), time.monotonic()
        threads = [
            # Staggered, since customers do not begin at the same moment.
            threading.Timer(number / FRAMES_PER_SECOND / count, stream.run, [begun + seconds])
            for number, stream in enumerate(streams)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        print("stream   sent  looked at  left out   p50 ms   p99 ms  sessions")
        for stream in streams:
            stream.show()
        show_server(server, http, before, took)
        show_memory(server, f"after {count} streams")
    all_of = lambda what: [value for stream in streams for value in getattr(stream, what)]
    results, late = all_of("result_ms"), all_of("late_ms")
    quantiles = lambda values: f"p50 {percentile(values, 50)} ms, p99 {percentile(values, 99)} ms"
    print(f"result after the last frame: {quantiles(results)}")
    print(f"this client sent its frames late by: {quantiles(late)}")
    left_out, sent = sum(s.left_out for s in streams), sum(s.sent for s in streams)
    print(f"left out {left_out} of {sent} frames")
    ends = sum((stream.ends for stream in streams), collections.Counter())
    check("sessions ended", sum(ends.values()) > 0, ends)
    check("the server kept up with every session", set(ends) == {"RETRY"}, dict(ends))


if __name__ == "__main__":
    main()
