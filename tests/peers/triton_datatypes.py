"""Sends every datatype through the identity_* fixtures with Triton's Python clients and expects the same bytes back.

The server serves tests/fixtures/models. Ways: HTTP binary, HTTP JSON (not FP16 and BF16, which JSON does not carry), a
mix of the two, and gRPC raw contents.

    python triton_datatypes.py --http HOST:PORT --grpc HOST:PORT
"""

import ml_dtypes
import numpy as np
import tritonclient.grpc
import tritonclient.http

from checks import Checks, equal, parser, require


def integers(dtype):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.array([[low, high, 0], [1, high // 2, low // 2]], dtype)


def floats(dtype):
    """Finite values that JSON can carry: both zeros, the extremes, a subnormal, and numbers with long decimals."""
    info = ml_dtypes.finfo(dtype)
    return np.array([[0.0, -0.0, info.max], [info.min, info.smallest_subnormal, 1 / 3]], dtype)


SAMPLES = {
    "BOOL": np.array([[True, False, True], [False, False, True]]),
    **{f"UINT{bits}": integers(f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": integers(f"int{bits}") for bits in (8, 16, 32, 64)},
    "FP16": floats(np.float16),
    "BF16": floats(ml_dtypes.bfloat16),
    "FP32": floats(np.float32),
    "FP64": floats(np.float64),
    "BYTES": np.array([[b"plain", b"a longer text, of more than a few bytes", b"0"], [b"1", b"2", b" "]], object),
}
NOT_FINITE = [[np.nan, np.inf, -np.inf]]
BYTES_SAMPLES = {
    "empty strings": np.array([[b"", b"x", b""], [b"", b"", b""]], object),
    "unicode": np.array([["naïve".encode(), "日本語".encode(), "🐦\u0301".encode()]], object),
    "quotes and control characters": np.array([[b'"', b"\\", b"\n\t\x01"]], object),
}
BINARY_BYTES = np.array([[b"\x00", b"a\x00b", bytes(range(256))], [b"\xff\xfe", b"\xc3", b""]], object)
NOT_IN_JSON = ("FP16", "BF16")
LARGE_BYTES = 5 * 1024 * 1024


def model_of(datatype):
    return "identity_string" if datatype == "BYTES" else f"identity_{datatype.lower()}"


def same(result, sent):
    received = result.as_numpy("y")
    require(received is not None, "output 'y' is missing")
    equal(received.shape, sent.shape, "shape")
    equal(received.dtype, sent.dtype, "element type")
    if sent.dtype == object:
        equal([as_bytes(element) for element in received.ravel()], list(sent.ravel()), "elements")
    elif received.tobytes() != sent.tobytes():
        where = np.flatnonzero(received.ravel().view(np.uint8) != np.ascontiguousarray(sent).ravel().view(np.uint8))
        raise AssertionError(f"bytes differ, first at {where[0]}: sent {sent.ravel()[:8]}, got {received.ravel()[:8]}")


def as_bytes(element):
    """A BYTES element is a str when it came in JSON."""
    return element.encode() if isinstance(element, str) else element


def over_http(address, datatype, sent, binary_in, binary_out):
    with tritonclient.http.InferenceServerClient(address) as client:
        tensor = tritonclient.http.InferInput("x", list(sent.shape), datatype)
        tensor.set_data_from_numpy(sent, binary_data=binary_in)
        outputs = [tritonclient.http.InferRequestedOutput("y", binary_data=binary_out)]
        result = client.infer(model_of(datatype), [tensor], outputs=outputs)
    equal(result.get_output("y")["datatype"], datatype, "datatype")
    equal("data" not in result.get_output("y"), binary_out, "the output came as binary")
    same(result, sent)


def over_grpc(address, datatype, sent):
    with tritonclient.grpc.InferenceServerClient(address) as client:
        tensor = tritonclient.grpc.InferInput("x", list(sent.shape), datatype).set_data_from_numpy(sent)
        result = client.infer(model_of(datatype), [tensor])
    equal(result.get_output("y").datatype, datatype, "datatype")
    same(result, sent)


def every_way(checks, where, datatype, sent, what, in_json=True):
    checks.run(f"{what} http binary", over_http, where.http, datatype, sent, True, True)
    if in_json:
        checks.run(f"{what} http json", over_http, where.http, datatype, sent, False, False)
        checks.run(f"{what} http json to binary", over_http, where.http, datatype, sent, False, True)
        checks.run(f"{what} http binary to json", over_http, where.http, datatype, sent, True, False)
    checks.run(f"{what} grpc raw", over_grpc, where.grpc, datatype, sent)


def fp16_refused_in_json(address):
    """A server must not put FP16 into JSON numbers: it refuses, as a bad request or as not supported."""
    sent = SAMPLES["FP16"]
    try:
        over_http(address, "FP16", sent, True, False)
    except tritonclient.utils.InferenceServerException as error:
        require(error.status() in ("400", "501"), f"status {error.status()}: {error.message()}")
    else:
        raise AssertionError("FP16 came back as JSON")


def main():
    where = parser("Every datatype through the identity fixtures.").parse_args()
    checks = Checks()
    for datatype, sent in SAMPLES.items():
        every_way(checks, where, datatype, sent, datatype, in_json=datatype not in NOT_IN_JSON)
    for datatype, dtype in {"FP16": np.float16, "BF16": ml_dtypes.bfloat16, "FP32": "f4", "FP64": "f8"}.items():
        every_way(checks, where, datatype, np.array(NOT_FINITE, dtype), f"{datatype} nan and infinity", in_json=False)
    checks.run("FP16 refused as json", fp16_refused_in_json, where.http)
    for what, sent in BYTES_SAMPLES.items():
        every_way(checks, where, "BYTES", sent, f"BYTES {what}")
    every_way(checks, where, "BYTES", BINARY_BYTES, "BYTES binary content", in_json=False)
    for datatype in ("FP32", "INT64", "BOOL", "BYTES"):
        empty = np.empty((0, 3), SAMPLES[datatype].dtype)
        every_way(checks, where, datatype, empty, f"{datatype} empty batch")
    numbers = np.random.default_rng(1).standard_normal((4, LARGE_BYTES // 16)).astype(np.float32)
    every_way(checks, where, "FP32", numbers, "FP32 of 5 MiB", in_json=False)
    checks.run("FP32 of 100000 elements http json", over_http, where.http, "FP32", numbers[:, :25000], False, False)
    texts = np.array([[bytes([65 + k]) * (LARGE_BYTES // 4) for k in range(4)]], object)
    every_way(checks, where, "BYTES", texts, "BYTES of 5 MiB", in_json=False)
    checks.finish()


if __name__ == "__main__":
    main()
