#!/usr/bin/env python3
"""Calls health and Verify through reflection, knowing only the server's address.

Usage: reflect.py PATH_OF_THE_BINARY   (from the root of the repository)
Needs grpcio, grpcio-reflection and grpcio-health-checking.
"""
import contextlib
import subprocess
import sys
import time

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

FACES = "tests/fixtures/faces/"


def read_face(name):
    with open(FACES + name, "rb") as file:
        return file.read()


class Caller:
    """Calls methods of FaceService by name, with the message types that reflection returns."""

    def __init__(self, channel):
        self.channel = channel
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        self.service = self.pool.FindServiceByName("menshen.v1.FaceService")

    def call(self, method, timeout=120, **fields):
        found = self.service.FindMethodByName(method)
        request = GetMessageClass(found.input_type)(**fields)
        answer = GetMessageClass(found.output_type)
        stub = self.channel.unary_unary(
            f"/menshen.v1.FaceService/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer.FromString,
        )
        return json_format.MessageToDict(stub(request, timeout=timeout))

    def verify(self, portrait, *live, **fields):
        return self.call(
            "Verify",
            context={"store_id": "shop-1", "consent_reference": "consent-1"},
            portrait={"data": read_face(portrait)},
            portrait_source=2,
            live_photos=[{"data": read_face(name)} for name in live],
            **fields,
        )


def check(name, holds, shown):
    if not holds:
        sys.exit(f"FAILED {name}: {shown}")
    print(f"ok {name}")


def refused(code, call):
    try:
        return False, call()
    except grpc.RpcError as error:
        return error.code() == code, error


def check_calls(address):
    channel = grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)])
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "menshen.v1.FaceService"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        check(f"health of {service or 'the server'}", answer.status == 1, answer)

    caller = Caller(channel)
    methods = sorted(method.name for method in caller.service.methods)
    want = ["CheckLiveness", "Compare", "Detect", "Embed", "Verify"]
    check("reflection lists the methods", methods == want, methods)

    same = caller.verify("person_a_1.jpg", "person_a_2.jpg", policy_fmr=1e-4)
    check("the same person passes", same["decision"] == "DECISION_PASS", same)
    other = caller.verify("person_a_1.jpg", "impostor_1.jpg", policy_fmr=1e-4)
    check("another person fails", other["decision"] == "DECISION_FAIL", other)

    code = grpc.StatusCode.INVALID_ARGUMENT
    check("an empty request is refused", *refused(code, lambda: caller.call("Verify")))
    big = {"data": bytes(30 << 20)}
    check(
        "a message over the limit is refused",
        *refused(code, lambda: caller.call("Detect", image=big)),
    )
    # A valid request, since an empty one might be refused within the millisecond.
    late = lambda: caller.verify("person_a_1.jpg", "person_a_2.jpg", timeout=0.001)
    check("a deadline too short", *refused(grpc.StatusCode.DEADLINE_EXCEEDED, late))


@contextlib.contextmanager
def serving(binary):
    """Starts a server on free ports; yields its process and the addresses of gRPC and HTTP."""
    server = subprocess.Popen(
        [binary, "serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        addresses = {}
        for line in server.stdout:
            words = line.split()
            if words and words[0] in ("gRPC", "HTTP"):
                addresses[words[0]] = words[1]
            if line.strip() == "ready":
                break
        else:
            sys.exit("FAILED the server did not start")
        yield server, addresses["gRPC"], addresses["HTTP"]
    finally:
        server.terminate()
        check("the server stops on SIGTERM", server.wait(timeout=60) == 0, server.returncode)


def main():
    with serving(sys.argv[1]) as (_, address, _):
        began = time.monotonic()
        check_calls(address)
        print(f"all calls answered in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
