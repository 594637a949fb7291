"""OpenTelemetry's own code on both ends: a collector's door that reads OTLP with the published messages, and a caller whose
SDK says which trace its requests are part of.

    trace_peer.py --receive [--refuse N]       prints its port, and every span as a line of JSON
    trace_peer.py --ask URL --model M [--off]  asks in a span of its own, and prints the ids of that

--refuse answers 503 to the first N deliveries. --off asks in a span that is not sampled.
"""

import argparse
import json
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--receive", action="store_true")
parser.add_argument("--refuse", type=int, default=0)
parser.add_argument("--ask")
parser.add_argument("--model")
parser.add_argument("--off", action="store_true")
arguments = parser.parse_args()
TURN = threading.Lock()


def say(**line):
    print(json.dumps(line), flush=True)


def receive():
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    left = [arguments.refuse]

    def attributes(of):
        value = lambda value: getattr(value, value.WhichOneof("value"))
        return {pair.key: value(pair.value) for pair in of}

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            with TURN:
                refused = left[0] > 0
                left[0] -= refused
                if not refused:
                    self.tell(body)
            self.send_response(503 if refused else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def tell(self, body):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        say(
                            path=self.path,
                            authorization=self.headers["authorization"],
                            content_type=self.headers["content-type"],
                            resource=attributes(resource.resource.attributes),
                            scope=scope.scope.name,
                            trace=span.trace_id.hex(),
                            span=span.span_id.hex(),
                            parent=span.parent_span_id.hex(),
                            state=span.trace_state,
                            name=span.name,
                            kind=span.kind,
                            start=span.start_time_unix_nano,
                            end=span.end_time_unix_nano,
                            attributes=attributes(span.attributes),
                            status=span.status.code,
                            message=span.status.message,
                        )

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    say(port=server.server_port)
    server.serve_forever()


def ask():
    from opentelemetry.propagate import inject
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

    tracer = TracerProvider(sampler=ALWAYS_OFF if arguments.off else ALWAYS_ON).get_tracer("caller")
    with tracer.start_as_current_span("ask") as span:
        headers = {"content-type": "application/json"}
        inject(headers)
        tensor = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 1, 1]}
        body = json.dumps({"id": "of the SDK", "inputs": [tensor]}).encode()
        request = urllib.request.Request(f"{arguments.ask}/v2/models/{arguments.model}/infer", body, headers)
        try:
            status = urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            status = error.code
    context = span.get_span_context()
    say(
        status=status,
        trace=f"{context.trace_id:032x}",
        span=f"{context.span_id:016x}",
        start=getattr(span, "start_time", 0),
        end=getattr(span, "end_time", 0),
    )


receive() if arguments.receive else ask()
