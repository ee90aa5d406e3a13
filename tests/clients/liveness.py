#!/usr/bin/env python3
"""Runs a liveness session from a folder of frames, as the backend of a shop would.

Usage: liveness.py --server 127.0.0.1:50051 --portrait id.jpg --frames DIR [--mirrored]
       liveness.py --check PATH_OF_THE_BINARY   (from the root of the repository)

DIR holds the camera's JPEG files in the order of their names. The client sends 10 a second.
`--check` starts a server and shows one still photograph to the camera. It checks that the
photograph does not pass and that a session serves once.
Needs the packages of reflect.py and grpcio-tools, which makes the messages from proto/ at run time.
"""
import argparse
import itertools
import pathlib
import sys
import threading
import time

import grpc
from reflect import FACES, check, refused, serving

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "proto"))
face = grpc.protos("menshen/v1/face.proto")
liveness, services = grpc.protos_and_services("menshen/v1/liveness.proto")

FRAMES_PER_SECOND = 10
# Longer than any session: the server ends it before.
SESSION_SECONDS_MAX = 90


def context(shop):
    return face.RequestContext(store_id=shop, consent_reference="consent-1")


def enum_name(enum, number, prefix):
    return enum.Name(number).removeprefix(prefix)


class Session:
    """A session of one transaction. It is created at once and can run once."""

    def __init__(self, channel, portrait, transaction, shop="shop-1", device="camera-1"):
        self.stub = services.LivenessServiceStub(channel)
        self.portrait, self.shop, self.device = portrait, shop, device
        self.begun, self.sent = 0.0, []  # due time of the first frame, send times of all
        self.created = self.stub.CreateSession(
            liveness.CreateSessionRequest(
                context=context(shop),
                device_id=device,
                transaction_id=transaction,
                portrait=face.Image(data=portrait),
                portrait_source=face.IMAGE_SOURCE_ID_FILE,
            ),
            timeout=10,
        )

    def start(self):
        return liveness.RunRequest(
            start=liveness.Start(
                context=context(self.shop),
                token=self.created.token,
                device_id=self.device,
                portrait=face.Image(data=self.portrait),
            )
        )

    def run(self, frames, mirrored=False):
        """Yields the events of the session and sends `frames` at the camera's rate meanwhile."""
        over = threading.Event()

        def requests():
            yield self.start()
            self.begun = time.monotonic()
            for number, jpeg in enumerate(frames):
                due = self.begun + number / FRAMES_PER_SECOND
                if over.wait(max(0, due - time.monotonic())):
                    return
                self.sent.append(time.monotonic())
                yield liveness.RunRequest(
                    frame=liveness.Frame(
                        sequence=number,
                        capture_unix_ms=time.time_ns() // 1_000_000,
                        image=face.Image(data=jpeg),
                        mirrored=mirrored,
                    )
                )

        try:
            yield from self.stub.Run(requests(), timeout=SESSION_SECONDS_MAX)
        finally:
            over.set()

    def result(self, shop=None):
        return self.stub.GetResult(
            liveness.GetResultRequest(
                context=context(shop or self.shop), session_id=self.created.session_id
            ),
            timeout=10,
        )


def show_event(event):
    """Prints an event."""
    kind = event.WhichOneof("event")
    if kind in ("prompt", "guidance"):
        print(f"{kind:<9} {getattr(event, kind).message}", flush=True)
    elif kind == "step_done":
        action = enum_name(liveness.Action, event.step_done.action, "ACTION_")
        print(f"done      {action}", flush=True)
    elif kind == "thinned":
        print(f"thinned   {event.thinned.frames} frames so far", flush=True)
    else:
        result = event.result
        print(f"decision  {enum_name(face.Decision, result.decision, 'DECISION_')}")
        for reason in result.reasons:
            print(f"reason    {enum_name(face.ReasonCode, reason.code, 'REASON_CODE_')}")
        print(f"frames    {result.frames_received} received, {result.frames_judged} judged")


def run_and_show(session, frames, mirrored=False):
    """Runs a session, prints its events and returns its result."""
    print(f"prompt    {session.created.prompt.message}", flush=True)
    for event in session.run(frames, mirrored):
        show_event(event)
    return event.result


def with_comment(jpeg, mark):
    """Returns the same picture in a file of other bytes: with a comment segment."""
    comment = repr(mark).encode()
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]


def check_still_photograph(address):
    """Checks that a photograph of the right person before the camera does not pass."""
    portrait, photo = (pathlib.Path(FACES, f"person_a_{n}.jpg").read_bytes() for n in (1, 2))
    channel = grpc.insecure_channel(address)
    session = Session(channel, portrait, "still-photograph")
    frames = (with_comment(photo, number) for number in itertools.count())
    result = run_and_show(session, itertools.islice(frames, 5 * FRAMES_PER_SECOND))
    check("a still photograph does not pass", result.decision != face.DECISION_PASS, result)
    check("no action was done", result.steps_done == 0, result)
    check("the result is kept", session.result() == result, result)
    other_shop = lambda: session.result(shop="shop-2")
    check("and told to its shop only", *refused(grpc.StatusCode.NOT_FOUND, other_shop))
    again = lambda: list(session.run(iter([photo])))
    check("a session serves once", *refused(grpc.StatusCode.ALREADY_EXISTS, again))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="127.0.0.1:50051")
    parser.add_argument("--portrait", type=pathlib.Path)
    parser.add_argument("--frames", type=pathlib.Path)
    parser.add_argument("--mirrored", action="store_true", help="the frames are mirror images")
    parser.add_argument("--transaction", default=f"client-{time.time_ns()}")
    parser.add_argument("--check", metavar="BINARY", help="start this server; check a still photo")
    args = parser.parse_args()
    if args.check:
        with serving(args.check) as (_, address, _):
            check_still_photograph(address)
        return
    if not (args.portrait and args.frames):
        parser.error("--portrait and --frames, or --check")
    files = sorted(args.frames.glob("*.jpg"))
    if not files:
        sys.exit(f"{args.frames} holds no .jpg file")
    channel = grpc.insecure_channel(args.server)
    session = Session(channel, args.portrait.read_bytes(), args.transaction)
    result = run_and_show(session, (file.read_bytes() for file in files), args.mirrored)
    sys.exit(result.decision != face.DECISION_PASS)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"refused   {error.code().name}: {error.details()}")
