"""Judges sources that are quantised: reads FOLDER/nets.json, writes FOLDER/verdict.json.

For each: how many codes differ from TFLite-micro's, and how many steps ONNX Runtime's answer on the source is away.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

import judge


def verdict(folder, net):
    name, (scale, zero), (out_scale, out_zero) = net["name"], net["input"], net["output"]
    model = (folder / f"{name}.tflite").read_bytes()
    shape = tuple(int(n) for n in judge.interpreter(model).get_input_details(0)["shape"])
    given = np.fromfile(folder / f"{name}.in.i8", np.int8).reshape(-1, int(np.prod(shape)))
    ours = np.fromfile(folder / f"{name}.out.i8", np.int8).reshape(len(given), -1)
    micro = judge.run(model, [row.reshape(shape) for row in given]).reshape(ours.shape)
    options = onnxruntime.SessionOptions()
    # as the source says it, pair by pair
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options)
    first = session.get_inputs()[0]
    values = ((given.astype(np.float32) - zero) * np.float32(scale)).reshape(-1, *shape[1:])
    # stored channels last, the source has them first
    rows = np.moveaxis(values, -1, 1)
    out = np.concatenate([session.run(None, {first.name: row[None]})[0] for row in rows])
    if out.ndim == 4:
        out = np.moveaxis(out, 1, -1)
    out = out.reshape(len(rows), -1)
    steps = np.abs(np.rint(out / np.float32(out_scale)) + out_zero - ours)
    return {"mismatches": int((micro != ours).sum()), "steps": int(steps.max()), "same": float((steps == 0).mean()),
            "operators": judge.operators(model)}


def main():
    onnxruntime.set_default_logger_severity(3)
    folder = Path(sys.argv[1])
    nets = json.loads((folder / "nets.json").read_text())
    (folder / "verdict.json").write_text(json.dumps({net["name"]: verdict(folder, net) for net in nets}))


if __name__ == "__main__":
    main()
