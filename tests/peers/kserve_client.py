"""Talks to the zoo with the KServe SDK: its asynchronous REST (protocol v2) and gRPC inference clients.

python kserve_client.py --http HOST:PORT --grpc HOST:PORT [--data-dir models/zoo]
"""

import asyncio
import logging
import pathlib
import sys

# The SDK parses the command line while it is imported, and fails on options that it does not know.
ARGUMENTS, sys.argv[1:] = sys.argv[1:], []

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from checks import ZOO, Checks, equal, parser, require
from golden import Golden

CASES = [("iris", "one_row"), ("iris", "eight_rows"), ("diabetes", "eight_rows")]
MODELS = ("iris", "diabetes")


def request_of(golden, how, **more):
    """An InferRequest. `how` is "binary" (raw bytes), or "list" (JSON data over REST, typed contents over gRPC)."""
    tensors = []
    for name, array in golden.inputs.items():
        tensor = InferInput(name, list(array.shape), "FP32")
        if how == "binary":
            tensor.set_data_from_numpy(array, binary_data=True)
        else:
            tensor.data = [float(element) for element in array.ravel()]
        tensors.append(tensor)
    return InferRequest(model_name=golden.model, infer_inputs=tensors, **more)


def compare(golden, response):
    def answer(name):
        output = response.get_output_by_name(name)
        return None if output is None else output.as_numpy()

    golden.compare(answer)
    equal(response.model_name, golden.model, "model name")


class Rest:
    """Checks over REST. Every method is one check."""

    def __init__(self, address, zoo):
        self.base, self.zoo = f"http://{address}", zoo

    def client(self):
        return InferenceRESTClient(RESTConfig(protocol="v2", retries=0))

    async def health(self):
        async with self.client() as client:
            equal(await client.is_server_live(self.base), True, "live")
            equal(await client.is_server_ready(self.base), True, "ready")
            for model in MODELS:
                equal(await client.is_model_ready(self.base, model), True, f"{model} ready")
            equal(await client.is_model_ready(self.base, "no_such_model"), False, "unknown model ready")

    async def infer(self, model, case, how):
        golden = Golden(self.zoo, model, "1", case)
        async with self.client() as client:
            request = request_of(golden, how, request_id="rest-7")
            response = await client.infer(self.base, request, model_name=model)
        equal(response.id, "rest-7", "id")
        compare(golden, response)

    async def infer_plain_dict(self):
        golden = Golden(self.zoo, "iris", "1", "eight_rows")
        rows = golden.inputs["input"].tolist()
        body = {"inputs": [{"name": "input", "shape": [8, 4], "datatype": "FP32", "data": rows}]}
        async with self.client() as client:
            compare(golden, await client.infer(self.base, body, model_name="iris"))

    async def binary_outputs(self):
        golden = Golden(self.zoo, "iris", "1", "eight_rows")
        request = request_of(golden, "binary", parameters={"binary_data_output": True})
        headers = {}
        async with self.client() as client:
            response = await client.infer(self.base, request, model_name="iris", response_headers=headers)
        require("inference-header-content-length" in headers, f"no length of the JSON part in {headers}")
        compare(golden, response)

    async def chosen_output(self):
        golden = Golden(self.zoo, "iris", "1", "eight_rows")
        outputs = [RequestedOutput("probabilities", {"binary_data": True})]
        async with self.client() as client:
            request = request_of(golden, "list", request_outputs=outputs)
            response = await client.infer(self.base, request, model_name="iris")
        equal([output.name for output in response.outputs], ["probabilities"], "outputs")
        np.testing.assert_allclose(response.outputs[0].as_numpy(), golden.outputs["probabilities"], **golden.tolerance)

    async def unknown_model(self):
        golden = Golden(self.zoo, "iris", "1", "one_row")
        try:
            async with self.client() as client:
                await client.infer(self.base, request_of(golden, "list"), model_name="no_such_model")
        except httpx.HTTPStatusError as error:
            equal(error.response.status_code, 404, "status")
            # The client shows the server's message only for the content type application/json, without parameters.
            require("no_such_model" in str(error).split(", '404")[0], f"message: {error}")
        else:
            raise AssertionError("an unknown model answered")

    async def wrong_shape(self):
        tensor = InferInput("input", [1, 5], "FP32", data=[0.0] * 5)
        try:
            async with self.client() as client:
                await client.infer(self.base, InferRequest("iris", [tensor]), model_name="iris")
        except httpx.HTTPStatusError as error:
            equal(error.response.status_code, 400, "status")
        else:
            raise AssertionError("a wrong shape was accepted")

    async def concurrent(self):
        golden = Golden(self.zoo, "iris", "1", "eight_rows")
        async with self.client() as client:
            answers = await asyncio.gather(
                *[client.infer(self.base, request_of(golden, "binary"), model_name="iris") for _ in range(16)]
            )
        for response in answers:
            compare(golden, response)


class Grpc:
    """Checks over gRPC. Every method is one check."""

    def __init__(self, address, zoo):
        self.address, self.zoo = address, zoo

    def client(self):
        return InferenceGRPCClient(self.address, retries=0)

    async def health(self):
        async with self.client() as client:
            equal(await client.is_server_live(), True, "live")
            equal(await client.is_server_ready(), True, "ready")
            for model in MODELS:
                equal(await client.is_model_ready(model), True, f"{model} ready")

    async def unknown_model_ready(self):
        async with self.client() as client:
            try:
                equal(await client.is_model_ready("no_such_model"), False, "unknown model ready")
            except grpc.RpcError as error:
                equal(error.code(), grpc.StatusCode.NOT_FOUND, "status")

    async def infer(self, model, case, how):
        golden = Golden(self.zoo, model, "1", case)
        async with self.client() as client:
            response = await client.infer(request_of(golden, how, request_id="grpc-7"))
        equal(response.id, "grpc-7", "id")
        equal(response.model_version, "1", "model version")
        compare(golden, response)

    async def chosen_version_and_output(self):
        golden = Golden(self.zoo, "iris", "1", "eight_rows")
        outputs = [RequestedOutput("label")]
        async with self.client() as client:
            request = request_of(golden, "binary", model_version="1", request_outputs=outputs)
            response = await client.infer(request)
        equal([output.name for output in response.outputs], ["label"], "outputs")
        equal(response.outputs[0].as_numpy().tolist(), golden.outputs["label"].tolist(), "labels")

    async def unknown_model(self):
        golden = Golden(self.zoo, "iris", "1", "one_row")
        request = request_of(golden, "binary")
        request.model_name = "no_such_model"
        await self.fails(request, grpc.StatusCode.NOT_FOUND)

    async def wrong_shape(self):
        tensor = InferInput("input", [1, 5], "FP32", data=[0.0] * 5)
        await self.fails(InferRequest("iris", [tensor]), grpc.StatusCode.INVALID_ARGUMENT)

    async def fails(self, request, code):
        try:
            async with self.client() as client:
                await client.infer(request)
        except grpc.RpcError as error:
            equal(error.code(), code, "status")
            require(error.details(), "the error has no message")
        else:
            raise AssertionError("the request was accepted")


def main():
    command = parser("KServe's clients against the zoo.")
    command.add_argument("--data-dir", type=pathlib.Path, default=ZOO, help="the folder of the zoo, for golden files")
    where = command.parse_args(ARGUMENTS)
    logging.disable(logging.CRITICAL)  # The SDK logs every error that a check provokes.
    rest, over_grpc = Rest(where.http, where.data_dir), Grpc(where.grpc, where.data_dir)
    checks = Checks()

    def run(name, check, *arguments):
        checks.run(name, lambda: asyncio.run(check(*arguments)))

    for kind, peer in (("rest", rest), ("grpc", over_grpc)):
        run(f"{kind} health", peer.health)
        for model, case in CASES:
            for how in ("list", "binary"):
                run(f"{kind} infer {model} {case} {how}", peer.infer, model, case, how)
        run(f"{kind} unknown model", peer.unknown_model)
        run(f"{kind} wrong shape", peer.wrong_shape)
    run("rest infer plain dict", rest.infer_plain_dict)
    run("rest binary outputs", rest.binary_outputs)
    run("rest chosen output", rest.chosen_output)
    run("rest concurrent", rest.concurrent)
    run("grpc unknown model ready", over_grpc.unknown_model_ready)
    run("grpc chosen version and output", over_grpc.chosen_version_and_output)
    checks.finish()


if __name__ == "__main__":
    main()
