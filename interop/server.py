"""The script of src/server.rs, served by grpcio: another implementation of gRPC. Prints its port, ends with its input."""

import sys
import threading
import time
from concurrent import futures

import grpc

PREVIOUS = "grpc-previous-rpc-attempts"
lock = threading.Lock()
seen = {}


class Seen:
    def __init__(self):
        self.attempts = self.running = self.peak = self.cancelled = 0
        self.headers = []
        self.moments = []

    def report(self):
        gaps = [int((b - a) * 1000) for a, b in zip(self.moments, self.moments[1:])]
        return (
            f"attempts={self.attempts} peak={self.peak} cancelled={self.cancelled} "
            f"headers={','.join(self.headers)} gaps={','.join(map(str, gaps))}"
        )


def retry_info(seconds):
    """A google.rpc.Status with a RetryInfo of fewer than 128 seconds."""

    def field(number, data):
        return bytes([number << 3 | 2, len(data)]) + data

    info = field(1, bytes([1 << 3, seconds]))
    return field(3, field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, info))


def perform(method, argument, attempt, metadata, context, ended):
    first, _, times = argument.partition(" ")
    fails = attempt <= int(times or "0")
    if method == "Echo":
        return argument
    if method == "Fail" and fails:
        context.abort(getattr(grpc.StatusCode, first), "as the script says")
    if method == "Pushback" and fails:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", first),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "as the script says")
    if method in ("Details", "Limit") and fails:
        context.set_trailing_metadata((("grpc-status-details-bin", retry_info(int(first))),))
        if method == "Details":
            context.abort(grpc.StatusCode.UNAVAILABLE, "as the script says")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max")
    if method in ("Fail", "Pushback", "Details", "Limit"):
        return str(attempt)
    if method == "Slow":
        # Ends early when the call does.
        if ended.wait(int(argument) / 1000):
            raise ConnectionAbortedError
        return ""
    if method == "Trace":
        return metadata.get(argument, "")
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "not in the script")


def serve(method, request, context):
    key, _, argument = request.decode().partition(" ")
    if method == "Stats":
        with lock:
            return seen.get(key, Seen()).report().encode()
    ended = threading.Event()
    context.add_callback(ended.set)
    metadata = dict(context.invocation_metadata())
    with lock:
        one = seen.setdefault(key, Seen())
        one.attempts += 1
        one.running += 1
        one.peak = max(one.peak, one.running)
        one.headers.append(metadata.get(PREVIOUS, "0"))
        one.moments.append(time.monotonic())
        attempt = one.attempts
    cancelled = False
    try:
        return perform(method, argument, attempt, metadata, context, ended).encode()
    except ConnectionAbortedError:
        cancelled = True
        return b""
    finally:
        with lock:
            one.running -= 1
            one.cancelled += cancelled


def stream(method, request, context):
    key, _, argument = request.decode().partition(" ")
    ended = threading.Event()
    context.add_callback(ended.set)
    with lock:
        one = seen.setdefault(key, Seen())
        one.attempts += 1
        one.running += 1
        one.peak = max(one.peak, one.running)
    done = False
    try:
        for number in range(int(argument)):
            yield str(number).encode()
        if method == "Hold":
            ended.wait()
            return
        done = True
        if method == "Broken":
            context.abort(grpc.StatusCode.UNAVAILABLE, "as the script says")
    finally:
        with lock:
            one.running -= 1
            one.cancelled += not done


class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        if method in ("Stream", "Broken", "Hold"):
            return grpc.unary_stream_rpc_method_handler(lambda request, context: stream(method, request, context))
        return grpc.unary_unary_rpc_method_handler(lambda request, context: serve(method, request, context))


def main():
    port = sys.argv[1] if len(sys.argv) > 1 else "0"
    # Further arguments are options of the server: NAME=NUMBER.
    options = [("grpc.so_reuseport", 0)]
    options += [(name, int(value)) for name, _, value in (option.partition("=") for option in sys.argv[2:])]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), handlers=(Handler(),), options=options)
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


main()
