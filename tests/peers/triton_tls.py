"""Asks the zoo's iris over TLS with Triton's Python clients, http and grpc, with a client certificate where one is named.

    python triton_tls.py --http HOST:PORT --grpc HOST:PORT --ca ca.pem [--certificate c.pem --key c.key] [--refused]
"""

import pathlib

import numpy
import tritonclient.grpc
import tritonclient.http

from checks import Checks, parser, require


def ask(module, client):
    rows = numpy.array([[5.1, 3.5, 1.4, 0.2]], dtype=numpy.float32)
    tensor = module.InferInput("input", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows)
    for _ in range(3):
        answer = client.infer("iris", [tensor])
        require(answer.as_numpy("label").tolist() == [0], f"{answer.get_response()}")


def over_http(arguments):
    options = {"ca_certs": arguments.ca}
    if arguments.certificate:
        options.update(certfile=arguments.certificate, keyfile=arguments.key)
    with tritonclient.http.InferenceServerClient(arguments.http, ssl=True, ssl_options=options) as client:
        ask(tritonclient.http, client)


def over_grpc(arguments):
    with tritonclient.grpc.InferenceServerClient(
        arguments.grpc,
        ssl=True,
        root_certificates=arguments.ca,
        certificate_chain=arguments.certificate,
        private_key=arguments.key,
    ) as client:
        ask(tritonclient.grpc, client)


def refused(over, arguments):
    try:
        over(arguments)
    except Exception:  # each client has its own
        return
    require(False, "it was answered")


made = parser(__doc__)
made.add_argument("--ca", required=True, type=lambda path: str(pathlib.Path(path)))
made.add_argument("--certificate")
made.add_argument("--key")
made.add_argument("--refused", action="store_true", help="nobody may be answered")
arguments = made.parse_args()
checks = Checks()
for name, over in (("http", over_http), ("grpc", over_grpc)):
    checks.run(name, *((refused, over, arguments) if arguments.refused else (over, arguments)))
checks.finish()
