"""The checks of triton_client.py that send inference requests: every client, both protocols, every option of a request.

`where` has the addresses `http` and `grpc` and the zoo's folder `data_dir`.
"""

import asyncio
import gzip
import http.client
import json
import queue
import zlib

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_sync
import tritonclient.http.aio as http_aio
from tritonclient.utils import InferenceServerException

from checks import equal, require
from golden import Golden

CASES = [
    (model, version, case)
    for model, version, third in (
        ("iris", "1", "least_certain"),
        ("digits", "2", "least_certain"),
        ("breast_cancer", "1", "least_certain"),
        ("diabetes", "1", "extremes"),
    )
    for case in ("one_row", "eight_rows", third)
]
ANSWER_SECONDS = 30


def http_inputs(golden, binary=True):
    return [
        http_sync.InferInput(name, list(array.shape), "FP32").set_data_from_numpy(array, binary_data=binary)
        for name, array in golden.inputs.items()
    ]


def grpc_inputs(golden):
    return [
        grpc.InferInput(name, list(array.shape), "FP32").set_data_from_numpy(array)
        for name, array in golden.inputs.items()
    ]


def refused(call, status, *words):
    """The call must raise the client's exception with this status, and a message that holds all the words."""
    try:
        call()
    except InferenceServerException as error:
        equal(error.status(), status, f"status of '{error.message()}'")
        for word in words:
            require(word in str(error.message()), f"'{word}' is not in the message '{error.message()}'")
    else:
        raise AssertionError(f"no error; expected status {status}")


class Http:
    """Checks over HTTP. Every public method is one check, apart from `infer`."""

    def __init__(self, where):
        self.where = where
        self.iris = Golden(where.data_dir, "iris", "1", "eight_rows")

    def client(self, **options):
        return http_sync.InferenceServerClient(self.where.http, **options)

    def infer(self, golden, binary=True, **options):
        with self.client() as client:
            return client.infer(golden.model, http_inputs(golden, binary), **options)

    def golden(self, model, version, case, binary):
        golden = Golden(self.where.data_dir, model, version, case)
        outputs = [http_sync.InferRequestedOutput(name, binary_data=binary) for name in golden.outputs]
        golden.compare(self.infer(golden, binary, outputs=outputs).as_numpy)

    def without_outputs_all_come_as_binary(self):
        result = self.infer(self.iris)
        self.iris.compare(result.as_numpy)
        for output in result.get_response()["outputs"]:
            size = output["parameters"]["binary_data_size"]
            equal(size, result.as_numpy(output["name"]).nbytes, f"binary_data_size of {output['name']}")
            require("data" not in output, "binary output with 'data'")

    def json_and_binary_outputs(self):
        outputs = [
            http_sync.InferRequestedOutput("label", binary_data=False),
            http_sync.InferRequestedOutput("probabilities", binary_data=True),
        ]
        result = self.infer(self.iris, outputs=outputs)
        self.iris.compare(result.as_numpy)
        require("data" in result.get_output("label"), "'label' has no data in JSON")
        require("data" not in result.get_output("probabilities"), "'probabilities' has data in JSON")

    def response_names_model_version_and_id(self):
        response = self.infer(self.iris, request_id="request 7/ä").get_response()
        equal(response["id"], "request 7/ä", "id")
        equal((response["model_name"], response["model_version"]), ("iris", "1"), "model")

    def chosen_output_alone(self):
        outputs = [http_sync.InferRequestedOutput("probabilities")]
        response = self.infer(self.iris, outputs=outputs).get_response()
        equal([output["name"] for output in response["outputs"]], ["probabilities"], "outputs")

    def chosen_version(self):
        result = self.infer(self.iris, model_version="1")
        equal(result.get_response()["model_version"], "1", "version")
        self.iris.compare(result.as_numpy)

    def request_compressed(self, algorithm):
        for binary in (True, False):
            self.iris.compare(self.infer(self.iris, binary, request_compression_algorithm=algorithm).as_numpy)

    def response_compressed(self, algorithm):
        self.iris.compare(self.infer(self.iris, response_compression_algorithm=algorithm).as_numpy)

    def response_is_compressed(self, algorithm):
        """What the client hides: the body is compressed, and the JSON length counts it uncompressed."""
        image = np.ones((200, 1, 8, 8), np.float32)
        tensor = http_sync.InferInput("image", list(image.shape), "FP32").set_data_from_numpy(image)
        body, json_size = http_sync.InferenceServerClient.generate_request_body([tensor])
        headers = {"Inference-Header-Content-Length": str(json_size), "Accept-Encoding": algorithm}
        connection = http.client.HTTPConnection(self.where.http, timeout=ANSWER_SECONDS)
        try:
            connection.request("POST", "/v2/models/digits/infer", body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        equal(response.status, 200, f"status with {content[:200]}")
        equal(response.getheader("Content-Encoding"), algorithm, "Content-Encoding")
        plain = gzip.decompress(content) if algorithm == "gzip" else zlib.decompress(content)
        answer = json.loads(plain[: int(response.getheader("Inference-Header-Content-Length"))])
        equal(answer["outputs"][0]["shape"], [200, 10], "shape")

    def error_with_compressed_response(self):
        """The client reads an error's body as it is, so an error must not be compressed."""
        wrong = self.iris
        refused(
            lambda: self.infer_as("no_such_model", http_inputs(wrong), response_compression_algorithm="gzip"),
            "404",
            "no_such_model",
        )

    def infer_as(self, model, inputs, **options):
        with self.client() as client:
            return client.infer(model, inputs, **options)

    def classification(self, binary):
        outputs = [http_sync.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)]
        result = self.infer(self.iris, outputs=outputs)
        equal(result.get_output("probabilities")["datatype"], "BYTES", "datatype")
        classes_of_iris(result.as_numpy("probabilities"), self.iris)

    def priority_timeout_and_parameters(self):
        parameters = {"text": "a", "number": 7, "flag": True, "share": 0.5}
        for more in ({"priority": 1}, {"timeout": 60_000_000}, {"parameters": parameters}):
            self.iris.compare(self.infer(self.iris, **more).as_numpy)

    def errors(self):
        for call, status, *words in bad_requests(self.infer_as, http_sync.InferInput, http_sync.InferRequestedOutput):
            refused(call, "404" if status == "NOT_FOUND" else "400", *words)
        with self.client() as client:
            require(client.is_server_live(), "not live after bad requests")

    def asynchronous(self):
        with self.client(concurrency=4) as client:
            waiting = [client.async_infer("iris", http_inputs(self.iris), request_id=str(k)) for k in range(16)]
            for k, request in enumerate(waiting):
                result = request.get_result(timeout=ANSWER_SECONDS)
                equal(result.get_response()["id"], str(k), "id")
                self.iris.compare(result.as_numpy)

    def aio(self):
        asyncio.run(self.aio_infer())

    async def aio_infer(self):
        """Also without `response_compression_algorithm` aiohttp accepts gzip and deflate, and br where it can."""
        async with http_aio.InferenceServerClient(self.where.http) as client:
            ways = [{}, {"request_compression_algorithm": "gzip"}, {"response_compression_algorithm": "deflate"}]
            calls = [client.infer("iris", http_inputs(self.iris), request_id=str(k), **ways[k % 3]) for k in range(12)]
            for k, result in enumerate(await asyncio.gather(*calls)):
                equal(result.get_response()["id"], str(k), "id")
                self.iris.compare(result.as_numpy)
            try:
                await client.infer("no_such_model", http_inputs(self.iris))
            except InferenceServerException as error:
                equal(error.status(), "404", f"status of '{error.message()}'")
            else:
                raise AssertionError("an unknown model answered")


class Grpc:
    """Checks over gRPC. Every public method is one check, apart from `infer`."""

    def __init__(self, where):
        self.where = where
        self.iris = Golden(where.data_dir, "iris", "1", "eight_rows")

    def client(self):
        return grpc.InferenceServerClient(self.where.grpc)

    def infer(self, golden, **options):
        with self.client() as client:
            return client.infer(golden.model, grpc_inputs(golden), **options)

    def golden(self, model, version, case):
        golden = Golden(self.where.data_dir, model, version, case)
        golden.compare(self.infer(golden).as_numpy)

    def response_names_model_version_and_id(self):
        response = self.infer(self.iris, request_id="request 7/ä").get_response()
        equal(response.id, "request 7/ä", "id")
        equal((response.model_name, response.model_version), ("iris", "1"), "model")
        equal(len(response.raw_output_contents), len(response.outputs), "raw outputs for raw inputs")

    def chosen_output_alone(self):
        response = self.infer(self.iris, outputs=[grpc.InferRequestedOutput("probabilities")]).get_response()
        equal([output.name for output in response.outputs], ["probabilities"], "outputs")

    def chosen_version(self):
        result = self.infer(self.iris, model_version="1")
        equal(result.get_response().model_version, "1", "version")
        self.iris.compare(result.as_numpy)

    def compressed(self):
        self.iris.compare(self.infer(self.iris, compression_algorithm="gzip").as_numpy)

    def classification(self):
        result = self.infer(self.iris, outputs=[grpc.InferRequestedOutput("probabilities", class_count=2)])
        equal(result.get_output("probabilities").datatype, "BYTES", "datatype")
        classes_of_iris(result.as_numpy("probabilities"), self.iris)

    def priority_timeout_and_parameters(self):
        parameters = {"text": "a", "number": 7, "flag": True, "share": 0.5}
        for more in ({"priority": 1}, {"timeout": 60_000_000}, {"parameters": parameters}):
            self.iris.compare(self.infer(self.iris, **more).as_numpy)

    def infer_as(self, model, inputs, **options):
        with self.client() as client:
            return client.infer(model, inputs, **options)

    def errors(self):
        for call, status, *words in bad_requests(self.infer_as, grpc.InferInput, grpc.InferRequestedOutput):
            refused(call, f"StatusCode.{status}", *words)
        with self.client() as client:
            require(client.is_server_live(), "not live after bad requests")

    def asynchronous(self):
        answers = queue.Queue()
        with self.client() as client:
            for k in range(16):
                client.async_infer(
                    "iris",
                    grpc_inputs(self.iris),
                    lambda result, error: answers.put((result, error)),
                    request_id=str(k),
                )
            seen = set()
            for _ in range(16):
                result, error = take(answers)
                require(error is None, f"error {error}")
                seen.add(result.get_response().id)
                self.iris.compare(result.as_numpy)
        equal(seen, {str(k) for k in range(16)}, "ids")

    def stream(self):
        """Good requests around a bad one: each has one answer, and the error travels beside the answers."""
        answers = queue.Queue()
        with self.client() as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for k in range(4):
                client.async_stream_infer("iris", grpc_inputs(self.iris), request_id=str(k))
            client.async_stream_infer("no_such_model", grpc_inputs(self.iris), request_id="bad")
            for k in range(4, 8):
                client.async_stream_infer("iris", grpc_inputs(self.iris), request_id=str(k))
            received = [take(answers) for _ in range(9)]
            client.stop_stream()
        require(answers.empty(), "more answers than requests")
        errors = [error for _, error in received if error is not None]
        equal(len(errors), 1, "errors")
        require("no_such_model" in errors[0].message(), f"message '{errors[0].message()}'")
        results = [result for result, error in received if error is None]
        equal({result.get_response().id for result in results}, {str(k) for k in range(8)}, "ids")
        for result in results:
            self.iris.compare(result.as_numpy)

    def stream_marks_the_final_response(self):
        answers = queue.Queue()
        with self.client() as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("iris", grpc_inputs(self.iris), enable_empty_final_response=True)
            result, error = take(answers)
            client.stop_stream()
        require(error is None, f"error {error}")
        require(answers.empty(), "more than one answer")
        self.iris.compare(result.as_numpy)
        require(
            result.get_response().parameters["triton_final_response"].bool_param, "triton_final_response is not true"
        )

    def aio(self):
        asyncio.run(self.aio_infer())

    async def aio_infer(self):
        async with grpc_aio.InferenceServerClient(self.where.grpc) as client:
            calls = [client.infer("iris", grpc_inputs(self.iris), request_id=str(k)) for k in range(16)]
            for k, result in enumerate(await asyncio.gather(*calls)):
                equal(result.get_response().id, str(k), "id")
                self.iris.compare(result.as_numpy)
            try:
                await client.infer("no_such_model", grpc_inputs(self.iris))
            except InferenceServerException as error:
                equal(error.status(), "StatusCode.NOT_FOUND", f"status of '{error.message()}'")
            else:
                raise AssertionError("an unknown model answered")

    def aio_stream(self):
        asyncio.run(self.aio_stream_infer())

    async def aio_stream_infer(self):
        async def requests():
            for k in range(5):
                model = "no_such_model" if k == 2 else "iris"
                yield {"model_name": model, "inputs": grpc_inputs(self.iris), "request_id": str(k)}

        seen, errors = set(), []
        async with grpc_aio.InferenceServerClient(self.where.grpc) as client:
            async for result, error in client.stream_infer(requests()):
                if error is not None:
                    errors.append(error)
                else:
                    seen.add(result.get_response().id)
                    self.iris.compare(result.as_numpy)
        equal(seen, {"0", "1", "3", "4"}, "ids")
        equal(len(errors), 1, "errors")


def take(answers):
    """The next (result, error) that a callback put into the queue."""
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except queue.Empty:
        raise AssertionError(f"no answer within {ANSWER_SECONDS} seconds") from None


def classes_of_iris(received, golden):
    """Two classes a row, the better first, each as "score:index:label"."""
    labels = ["setosa", "versicolor", "virginica"]
    scores = golden.outputs["probabilities"]
    equal(received.shape, (len(scores), 2), "shape")
    for row, texts in zip(scores, received):
        expected = np.argsort(-row)[:2]
        for index, text in zip(expected, texts):
            text = text.decode() if isinstance(text, bytes) else text
            score, number, label = text.split(":")
            equal((int(number), label), (int(index), labels[index]), f"class in '{text}'")
            np.testing.assert_allclose(float(score), row[index], **golden.tolerance)


def bad_requests(infer, tensor_class, output_class):
    """Calls that must fail: (call, name of the gRPC status, words of the message, ...)."""

    def tensor(name="input", shape=(1, 4), datatype="FP32", dtype=np.float32):
        return tensor_class(name, list(shape), datatype).set_data_from_numpy(np.zeros(shape, dtype))

    good = [tensor()]
    yield lambda: infer("no_such_model", good), "NOT_FOUND", "no_such_model"
    yield lambda: infer("iris", good, model_version="99"), "NOT_FOUND", "iris", "99"
    yield lambda: infer("iris", [tensor(shape=(1, 5))]), "INVALID_ARGUMENT", "input"
    yield lambda: infer("iris", [tensor(shape=(4,))]), "INVALID_ARGUMENT", "input"
    yield lambda: infer("iris", [tensor(datatype="INT32", dtype=np.int32)]), "INVALID_ARGUMENT", "input"
    yield lambda: infer("iris", [tensor(name="other")]), "INVALID_ARGUMENT", "other"
    yield lambda: infer("iris", [*good, tensor(name="other")]), "INVALID_ARGUMENT", "other"
    yield lambda: infer("iris", good, outputs=[output_class("other")]), "INVALID_ARGUMENT", "other"


def run(checks, where):
    over_http, over_grpc = Http(where), Grpc(where)
    for model, version, case in CASES:
        checks.run(f"http binary {model} {case}", over_http.golden, model, version, case, True)
        checks.run(f"http json {model} {case}", over_http.golden, model, version, case, False)
        checks.run(f"grpc {model} {case}", over_grpc.golden, model, version, case)
    for algorithm in ("gzip", "deflate"):
        checks.run(f"http request in {algorithm}", over_http.request_compressed, algorithm)
        checks.run(f"http response in {algorithm}", over_http.response_compressed, algorithm)
        checks.run(f"http response is really {algorithm}", over_http.response_is_compressed, algorithm)
    for binary in (True, False):
        checks.run(f"http classification {'binary' if binary else 'json'}", over_http.classification, binary)
    names = """without_outputs_all_come_as_binary json_and_binary_outputs response_names_model_version_and_id
        chosen_output_alone chosen_version error_with_compressed_response priority_timeout_and_parameters errors
        asynchronous aio"""
    for name in names.split():
        checks.run(f"http {name.replace('_', ' ')}", getattr(over_http, name))
    names = """response_names_model_version_and_id chosen_output_alone chosen_version compressed classification
        priority_timeout_and_parameters errors asynchronous stream stream_marks_the_final_response aio aio_stream"""
    for name in names.split():
        checks.run(f"grpc {name.replace('_', ' ')}", getattr(over_grpc, name))
