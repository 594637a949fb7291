"""Asks the zoo's iris with Triton's Python clients, http and grpc: over TLS with --ca, with a certificate of its own with
--certificate, with a bearer token with --token.

    python triton_secured.py --http HOST:PORT --grpc HOST:PORT [--ca ca.pem] [--certificate c.pem --key c.key]
        [--token T] [--refused [--healthy]]
"""

import numpy
import tritonclient.grpc
import tritonclient.http

from checks import Checks, parser, require


def ask(module, client, arguments):
    headers = {"authorization": f"Bearer {arguments.token}"} if arguments.token else None
    if arguments.healthy:
        require(client.is_server_live() and client.is_server_ready(), "it says nothing of its health")
    rows = numpy.array([[5.1, 3.5, 1.4, 0.2]], dtype=numpy.float32)
    tensor = module.InferInput("input", rows.shape, "FP32")
    tensor.set_data_from_numpy(rows)
    for _ in range(3):
        try:
            answer = client.infer("iris", [tensor], headers=headers)
        except Exception as error:  # each client has its own
            return error
        require(answer.as_numpy("label").tolist() == [0], f"{answer.get_response()}")
    return None


def over_http(arguments):
    options = {"ca_certs": arguments.ca}
    if arguments.certificate:
        options.update(certfile=arguments.certificate, keyfile=arguments.key)
    secured = {"ssl": True, "ssl_options": options} if arguments.ca else {}
    with tritonclient.http.InferenceServerClient(arguments.http, **secured) as client:
        return ask(tritonclient.http, client, arguments)


def over_grpc(arguments):
    with tritonclient.grpc.InferenceServerClient(
        arguments.grpc,
        ssl=bool(arguments.ca),
        root_certificates=arguments.ca,
        certificate_chain=arguments.certificate,
        private_key=arguments.key,
    ) as client:
        return ask(tritonclient.grpc, client, arguments)


def answered(over, arguments):
    error = over(arguments)
    if arguments.refused:
        require(error is not None, "it was answered")
        return str(error)
    if error is not None:
        raise error
    return None


made = parser(__doc__)
made.add_argument("--ca")
made.add_argument("--certificate")
made.add_argument("--key")
made.add_argument("--token")
made.add_argument("--refused", action="store_true", help="nobody may be answered")
made.add_argument("--healthy", action="store_true", help="but for health")
arguments = made.parse_args()
checks = Checks()
for name, over in (("http", over_http), ("grpc", over_grpc)):
    checks.run(name, answered, over, arguments)
checks.finish()
