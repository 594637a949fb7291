"""Judges random graphs: reads FOLDER/graphs.json, writes FOLDER/verdict.json, a list of what is wrong."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

import judge


def faults(folder, graph):
    name = graph["name"]
    model = (folder / f"{name}.tflite").read_bytes()
    operators = judge.operators(model)
    # native code may end the process: the last line printed says at which graph
    print(f"seed {name}: {operators}", flush=True)
    try:
        with judge.quiet() as caught:
            shape = tuple(int(n) for n in judge.interpreter(model).get_input_details(0)["shape"])
    except RuntimeError as error:
        yield f"seed {name}: TFLite-micro refuses it: {error} {caught.text[-300:]} {operators}"
        return
    given = np.fromfile(folder / f"{name}.in.i8", np.int8).reshape(-1, int(np.prod(shape)))
    expected = np.fromfile(folder / f"{name}.out.i8", np.int8).reshape(len(given), -1)
    got = judge.run(model, [row.reshape(shape) for row in given]).reshape(len(given), -1)
    if (got != expected).any():
        yield f"seed {name}: {(got != expected).sum()} codes differ, by up to {np.abs(got.astype(int) - expected).max()}: {operators}"
    head, total = judge.arena(model)
    if total != graph["arena"]:
        yield f"seed {name}: arena {graph['arena']}, the recorder says {head} + {total - head}: {operators}"
    if not judge.allocates(model, graph["required"]):
        yield f"seed {name}: an arena of {graph['required']} is not enough: {operators}"
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
    first = session.get_inputs()[0]
    rows = np.fromfile(folder / f"{name}.float_in.f32", np.float32).reshape(-1, *first.shape[1:])
    want = np.concatenate([session.run(None, {first.name: row[None]})[0] for row in rows]).reshape(len(rows), -1)
    ours = np.fromfile(folder / f"{name}.float_out.f32", np.float32).reshape(len(rows), -1)
    error = np.abs(want - ours).max() / max(np.abs(want).max(), 1e-6)
    if not error < 1e-4:
        yield f"seed {name}: float is {error} off ONNX Runtime: {operators}"


def main():
    onnxruntime.set_default_logger_severity(3)
    folder = Path(sys.argv[1])
    graphs = json.loads((folder / "graphs.json").read_text())
    (folder / "verdict.json").write_text(json.dumps([fault for graph in graphs for fault in faults(folder, graph)]))


if __name__ == "__main__":
    main()
