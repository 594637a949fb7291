"""Sends every row of every zoo model's data set to the server and compares with ONNX Runtime in this process.

Rows go alone (over gRPC) and in batches of 1 to 64 (over HTTP and gRPC in turn), from several threads at once, so that
the server's batches mix requests. Labels must be equal, floats within rtol 1e-4 and atol 1e-5.

    python differential.py --http HOST:PORT --grpc HOST:PORT --models models/zoo [--limit N] [--only digits/2 ...]
"""

import pathlib
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import tritonclient.grpc
import tritonclient.http
from sklearn import datasets

from checks import Checks, equal, parser, require

RTOL, ATOL = 1e-4, 1e-5
THREADS = 8
ROWS_MAX = 64
SEED = 7
DATA = {
    "iris": datasets.load_iris,
    "digits": datasets.load_digits,
    "breast_cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
}
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}


class Served:
    """One version of one model: its rows, the answers that are right, and clients for each thread."""

    def __init__(self, where, model, version):
        self.where, self.model, self.version = where, model, version
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = where.models / model / version / "model.onnx"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph_input = session.get_inputs()[0]
        rows = DATA[model]().data.astype(np.float32)
        self.rows = rows.reshape(-1, *graph_input.shape[1:])[: where.limit]
        self.input = graph_input.name
        self.expected = dict(zip([o.name for o in session.get_outputs()], session.run(None, {self.input: self.rows})))
        self.local = threading.local()

    def client(self, kind):
        """A thread's own client: Triton's HTTP client is not for several threads."""
        if not hasattr(self.local, "clients"):
            self.local.clients = {}
        if kind not in self.local.clients:
            address = self.where.grpc if kind is tritonclient.grpc else self.where.http
            self.local.clients[kind] = kind.InferenceServerClient(address)
        return self.local.clients[kind]

    def difference(self, kind, indices):
        """Sends these rows in one request; returns the largest difference, or raises where one is too large."""
        rows = self.rows[indices]
        tensor = kind.InferInput(self.input, list(rows.shape), "FP32").set_data_from_numpy(rows)
        result = self.client(kind).infer(self.model, [tensor], model_version=self.version)
        largest = 0.0
        for name, expected in self.expected.items():
            actual, right = result.as_numpy(name), expected[indices]
            require(actual is not None, f"rows {indices[:8]}: output '{name}' is missing")
            equal(
                (DATATYPES.get(actual.dtype), actual.shape), (DATATYPES[right.dtype], right.shape), f"form of '{name}'"
            )
            if right.dtype.kind == "f":
                np.testing.assert_allclose(actual, right, RTOL, ATOL, err_msg=f"rows {indices[:8]}, '{name}'")
                largest = max(largest, float(np.abs(actual - right).max()))
            else:
                np.testing.assert_array_equal(actual, right, err_msg=f"rows {indices[:8]}, '{name}'")
        return largest

    def batch_rows_max(self):
        config = self.client(tritonclient.grpc).get_model_config(self.model, self.version).config
        return min(ROWS_MAX, config.max_batch_size or ROWS_MAX)


def compare_all(served, requests):
    """Sends all requests, (client module, row indices), from THREADS threads. Every one must be right."""
    with ThreadPoolExecutor(THREADS) as pool:
        differences = list(pool.map(lambda request: served.difference(*request), requests))
    rows = sum(len(indices) for _, indices in requests)
    equal(rows, len(served.rows), "rows sent")
    return f"{rows} rows in {len(requests)} requests, largest difference {max(differences):.1e}"


def single_rows(served):
    return compare_all(served, [(tritonclient.grpc, np.array([k])) for k in range(len(served.rows))])


def batches(served):
    """Rows in a shuffled order, cut into batches of random size."""
    rng = np.random.default_rng(SEED)
    order, limit = rng.permutation(len(served.rows)), served.batch_rows_max()
    requests, start = [], 0
    while start < len(order):
        size = int(rng.integers(1, limit + 1))
        kind = (tritonclient.grpc, tritonclient.http)[len(requests) % 2]
        requests.append((kind, order[start : start + size]))
        start += size
    return compare_all(served, requests)


def main():
    command = parser("Every row of the zoo's data, compared with ONNX Runtime.")
    command.add_argument("--models", type=pathlib.Path, required=True, help="the folder of the zoo that is served")
    command.add_argument("--limit", type=int, help="at most so many rows of each model")
    command.add_argument("--only", nargs="+", metavar="MODEL/VERSION", help="instead of every version in --models")
    where = command.parse_args()
    found = sorted("/".join(path.parts[-3:-1]) for path in where.models.glob("*/*/model.onnx"))
    checks = Checks()
    for name in where.only or found:
        served = Served(where, *name.split("/"))
        checks.run(f"{name} single rows", single_rows, served)
        checks.run(f"{name} batches", batches, served)
    checks.finish()


if __name__ == "__main__":
    main()
