"""Talks to the zoo with Triton's Python clients: http, http.aio, grpc, grpc.aio.

The server serves models/zoo. Answers are compared with the golden files. `triton_infer.py` holds the checks that send
requests to models, this file those that ask about the server and its models, and the command.

    python triton_client.py --http HOST:PORT --grpc HOST:PORT [--data-dir models/zoo]
"""

import asyncio
import pathlib

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

import triton_infer
from checks import ZOO, Checks, equal, parser, require
from golden import Golden

EXTENSIONS = {
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
}
SIGNATURES = {
    "iris": ([("input", "FP32", [-1, 4])], [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 3])]),
    "digits": ([("image", "FP32", [-1, 1, 8, 8])], [("probabilities", "FP32", [-1, 10])]),
    "breast_cancer": ([("features", "FP32", [-1, 30])], [("label", "INT64", [-1]), ("probabilities", "FP32", [-1, 2])]),
    "diabetes": ([("features", "FP32", [-1, 10])], [("progression", "FP32", [-1, 1])]),
}
DURATIONS = {"success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"}
STATISTICS = {
    "name",
    "version",
    "last_inference",
    "inference_count",
    "execution_count",
    "inference_stats",
    "batch_stats",
}
STATISTICS_OPTIONAL = {"response_stats", "memory_usage"}
READS_MAX = 1000


def health(client):
    require(client.is_server_live(), "not live")
    require(client.is_server_ready(), "not ready")
    for model in SIGNATURES:
        require(client.is_model_ready(model), f"{model} is not ready")
    require(client.is_model_ready("iris", "1"), "iris version 1 is not ready")


def unknown_not_ready(client):
    for name, version in (("no_such_model", ""), ("iris", "99")):
        try:
            require(not client.is_model_ready(name, version), f"{name} '{version}' is ready")
        except tritonclient.utils.InferenceServerException as error:
            equal(error.status(), "StatusCode.NOT_FOUND", f"status for {name} '{version}'")


async def aio_questions(client):
    """The asynchronous clients ask the same; that they work is what is checked."""
    require(await client.is_server_live(), "not live")
    require(await client.is_server_ready(), "not ready")
    require(await client.is_model_ready("iris"), "iris is not ready")
    as_json = {"as_json": True} if isinstance(client, tritonclient.grpc.aio.InferenceServerClient) else {}
    equal((await client.get_server_metadata(**as_json))["name"], "gannet", "server name")
    equal((await client.get_model_metadata("iris", **as_json))["name"], "iris", "model name")
    config = await client.get_model_config("iris", **as_json)
    equal(config.get("config", config)["name"], "iris", "name in the configuration")
    statistics = await client.get_inference_statistics("iris", **as_json)
    equal(statistics["model_stats"][0]["name"], "iris", "name in the statistics")
    index = await client.get_model_repository_index(**as_json)
    require("iris" in str(index), f"iris is not in the index {index}")


def server_metadata(metadata):
    equal(metadata["name"], "gannet", "name")
    require(isinstance(metadata["version"], str) and metadata["version"], "no version")
    missing = EXTENSIONS - set(metadata["extensions"])
    require(not missing, f"extensions {sorted(missing)} are missing in {metadata['extensions']}")


def model_metadata(metadata_of):
    for model, (inputs, outputs) in SIGNATURES.items():
        metadata = metadata_of(model)
        equal(metadata["name"], model, "name")
        expected = "2" if model == "digits" else "1"
        require(expected in metadata["versions"], f"version '{expected}' is not in {metadata['versions']}")
        require(metadata["platform"], "no platform")
        for kind, tensors in (("inputs", inputs), ("outputs", outputs)):
            # protobuf's JSON writes 64-bit integers as strings.
            actual = [(t["name"], t["datatype"], [int(size) for size in t["shape"]]) for t in metadata[kind]]
            equal(actual, tensors, f"{kind} of {model}")


def model_config(config_of):
    """Where max_batch_size is above zero, `dims` leave the batch dimension out."""
    for model, (inputs, outputs) in SIGNATURES.items():
        config = config_of(model)
        equal(config["name"], model, "name")
        require(int(config.get("max_batch_size", 0)) >= 1, f"max_batch_size of {model}: {config.get('max_batch_size')}")
        require(config.get("platform") or config.get("backend"), "neither platform nor backend")
        for kind, tensors in (("input", inputs), ("output", outputs)):
            actual = [(t["name"], t["data_type"], [int(size) for size in t.get("dims", [])]) for t in config[kind]]
            # A tensor of one number a row has no dimensions left; Triton then writes [1] and a reshape.
            actual = [(name, kind, [] if dims == [1] and name == "label" else dims) for name, kind, dims in actual]
            expected = [(name, f"TYPE_{datatype}", shape[1:]) for name, datatype, shape in tensors]
            equal(actual, expected, f"{kind} of {model}")


def statistics_shape(statistics, versioned):
    """HTTP: every field is there, with nothing added, and numbers are numbers."""
    for entry in statistics["model_stats"] + versioned["model_stats"]:
        fields = set(entry)
        equal(fields - STATISTICS_OPTIONAL, STATISTICS, f"fields of {entry.get('name')}")
        equal(set(entry["inference_stats"]), DURATIONS, "fields of inference_stats")
        require(isinstance(entry["version"], str), "version is not a string")
        for duration in entry["inference_stats"].values():
            equal(set(duration), {"count", "ns"}, "fields of a duration")
            require(all(isinstance(number, int) for number in duration.values()), f"not integers: {duration}")
        for batch in entry["batch_stats"]:
            equal(
                set(batch), {"batch_size", "compute_input", "compute_infer", "compute_output"}, "fields of batch_stats"
            )
    equal({entry["name"] for entry in versioned["model_stats"]}, {"iris"}, "models in the statistics of iris version 1")
    missing = set(SIGNATURES) - {entry["name"] for entry in statistics["model_stats"]}
    require(not missing, f"statistics without {missing}")


class Counts:
    """Sums of one model's statistics, read over gRPC."""

    def __init__(self, client):
        entry = client.get_inference_statistics("iris", "1").model_stats[0]
        stats = entry.inference_stats
        self.requests = stats.success.count
        self.rows = entry.inference_count
        self.runs = entry.execution_count
        self.parts = [
            stats.queue.count,
            stats.compute_input.count,
            stats.compute_infer.count,
            stats.compute_output.count,
        ]
        self.infer_ns, self.success_ns = stats.compute_infer.ns, stats.success.ns
        self.last_ms = entry.last_inference
        self.batch_rows = sum(batch.batch_size * batch.compute_infer.count for batch in entry.batch_stats)
        self.batch_runs = sum(batch.compute_infer.count for batch in entry.batch_stats)


def statistics_count(where):
    """Two requests of one row and one of eight: 3 requests, 10 rows, 1 to 3 runs of the model."""
    with tritonclient.grpc.InferenceServerClient(where.grpc) as client:
        before = Counts(client)
        for case in ("one_row", "one_row", "eight_rows"):
            golden = Golden(where.data_dir, "iris", "1", case)
            client.infer("iris", triton_infer.grpc_inputs(golden))
        # A server may count a moment after it answered.
        reads = (Counts(client) for _ in range(READS_MAX))
        after = next((counts for counts in reads if counts.requests >= before.requests + 3), None)
    require(after is not None, "the requests were not counted")
    equal(after.requests - before.requests, 3, "requests")
    equal(after.rows - before.rows, 10, "rows")
    require(1 <= after.runs - before.runs <= 3, f"{after.runs - before.runs} runs of the model")
    equal([b - a for a, b in zip(before.parts, after.parts)], [3, 3, 3, 3], "queue and compute counts")
    equal(after.batch_rows - before.batch_rows, 10, "rows in batch_stats")
    equal(after.batch_runs - before.batch_runs, after.runs - before.runs, "runs in batch_stats")
    require(after.infer_ns > before.infer_ns, "compute_infer took no time")
    require(after.success_ns - before.success_ns >= after.infer_ns - before.infer_ns, "success is shorter than compute")
    require(
        after.last_ms >= before.last_ms > 1_600_000_000_000 or before.last_ms == 0, f"last_inference {after.last_ms}"
    )


def repository_index(entries):
    ready = {(entry["name"], entry.get("version", "")) for entry in entries if entry.get("state") == "READY"}
    expected = {("iris", "1"), ("digits", "2"), ("breast_cancer", "1"), ("diabetes", "1")}
    require(expected <= ready, f"not ready: {sorted(expected - ready)} in {entries}")


def unknown_metadata(client, status):
    for call in (client.get_model_metadata, client.get_model_config, client.get_inference_statistics):
        triton_infer.refused(lambda: call("no_such_model"), status, "no_such_model")


def questions(checks, where):
    def over_http(name, check):
        def run():
            with tritonclient.http.InferenceServerClient(where.http) as client:
                return check(client)

        checks.run(f"http {name}", run)

    def over_grpc(name, check):
        def run():
            with tritonclient.grpc.InferenceServerClient(where.grpc) as client:
                return check(client)

        checks.run(f"grpc {name}", run)

    over_http("health", health)
    over_grpc("health", health)
    over_http("unknown is not ready", unknown_not_ready)
    over_grpc("unknown is not ready", unknown_not_ready)
    over_http("server metadata", lambda c: server_metadata(c.get_server_metadata()))
    over_grpc("server metadata", lambda c: server_metadata(c.get_server_metadata(as_json=True)))
    over_http("model metadata", lambda c: model_metadata(c.get_model_metadata))
    over_grpc("model metadata", lambda c: model_metadata(lambda m: c.get_model_metadata(m, as_json=True)))
    over_http("model config", lambda c: model_config(c.get_model_config))
    over_grpc("model config", lambda c: model_config(lambda m: c.get_model_config(m, as_json=True)["config"]))
    over_http("versioned metadata", lambda c: equal(c.get_model_metadata("iris", "1")["name"], "iris", "name"))
    over_http("versioned config", lambda c: equal(c.get_model_config("iris", "1")["name"], "iris", "name"))
    over_http("unknown model metadata", lambda c: unknown_metadata(c, "404"))
    over_grpc("unknown model metadata", lambda c: unknown_metadata(c, "StatusCode.NOT_FOUND"))
    over_http("repository index", lambda c: repository_index(c.get_model_repository_index()))
    over_grpc("repository index", lambda c: repository_index(c.get_model_repository_index(as_json=True)["models"]))
    stats = "statistics shape"
    over_http(stats, lambda c: statistics_shape(c.get_inference_statistics(), c.get_inference_statistics("iris", "1")))
    checks.run("grpc statistics count", statistics_count, where)

    async def over_aio(client):
        async with client:
            await aio_questions(client)

    # The clients of asyncio want a running loop when they are made, so they are made inside it.
    async def http_aio():
        await over_aio(tritonclient.http.aio.InferenceServerClient(where.http))

    async def grpc_aio():
        await over_aio(tritonclient.grpc.aio.InferenceServerClient(where.grpc))

    checks.run("http.aio questions", lambda: asyncio.run(http_aio()))
    checks.run("grpc.aio questions", lambda: asyncio.run(grpc_aio()))


def main():
    command = parser("Triton's clients against the zoo.")
    command.add_argument("--data-dir", type=pathlib.Path, default=ZOO, help="the folder of the zoo, for golden files")
    where = command.parse_args()
    checks = Checks()
    questions(checks, where)
    triton_infer.run(checks, where)
    checks.finish()


if __name__ == "__main__":
    main()
