"""Takes CloudEvents over HTTP with the SDK for Python, and prints each as a line of JSON.

    event_receiver.py --secret FILE

The first line names the port. `signed` tells whether the signature (Standard Webhooks) is that of the secret.
"""

import argparse
import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.http import from_http

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--secret", required=True)
SECRET = open(parser.parse_args().secret, "rb").read()
TURN = threading.Lock()


def say(**line):
    with TURN:
        print(json.dumps(line), flush=True)


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        event = from_http(self.headers, body)
        named = [self.headers["webhook-id"], self.headers["webhook-timestamp"], body.decode()]
        mac = hmac.new(SECRET, ".".join(named).encode(), hashlib.sha256).digest()
        signed = self.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
        say(
            attributes=dict(event.get_attributes()),
            data=event.data,
            signed=signed,
            delivery=self.headers["webhook-id"],
            raw=body.decode(),
        )
        self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
say(port=server.server_port)
server.serve_forever()
