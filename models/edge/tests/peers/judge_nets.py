"""Judges compiled nets: reads FOLDER/nets.json, writes FOLDER/verdict.json.

For each net: are the executor's codes those of TFLite-micro, what memory does its recorder count, does the declared
arena work and 32 bytes less fail, does LiteRT run the file, and does ONNX Runtime compute what the float executor does.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import judge


def codes(folder, name, kind, size):
    return np.fromfile(folder / f"{name}.{kind}.i8", np.int8).reshape(-1, size)


def litert(model, rows, kind):
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=kind)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    out = []
    for row in rows:
        interpreter.set_tensor(given["index"], row.reshape(given["shape"]))
        interpreter.invoke()
        out.append(interpreter.get_tensor(got["index"]).reshape(-1).copy())
    return np.stack(out)


def verdict(folder, net):
    name = net["name"]
    model = (folder / f"{name}.tflite").read_bytes()
    details = judge.interpreter(model).get_input_details(0)
    shape = tuple(int(n) for n in details["shape"])
    given = codes(folder, name, "in", int(np.prod(shape)))
    expected = np.fromfile(folder / f"{name}.out.i8", np.int8).reshape(len(given), -1)
    got = judge.run(model, [row.reshape(shape) for row in given]).reshape(len(given), -1)
    head, total = judge.arena(model)
    required = net["required"]
    result = {
        "rows": len(given),
        "mismatches": int((got != expected).sum()),
        "head": head,
        "total": total,
        "required_works": judge.allocates(model, required),
        "less_works": judge.allocates(model, required - 32),
        "operators": judge.operators(model),
    }
    few = given[:4]
    lite = [litert(model, few, kind) for kind in (OpResolverType.BUILTIN_REF, OpResolverType.AUTO)]
    result["litert_steps"] = [int(np.abs(out.astype(int) - expected[:4]).max()) for out in lite]
    if "onnx" in net:
        session = onnxruntime.InferenceSession(net["onnx"])
        first = session.get_inputs()[0]
        lengths = [n if isinstance(n, int) else 1 for n in first.shape]
        rows = np.fromfile(folder / f"{name}.float_in.f32", np.float32).reshape(-1, *lengths[1:])
        want = np.concatenate([session.run(None, {first.name: row[None]})[0] for row in rows]).reshape(len(rows), -1)
        ours = np.fromfile(folder / f"{name}.float_out.f32", np.float32).reshape(len(rows), -1)
        result["float_error"] = float(np.abs(want - ours).max() / max(np.abs(want).max(), 1e-9))
        stored = np.fromfile(folder / f"{name}.float_stored.f32", np.float32).reshape(len(rows), -1)
        lite = litert((folder / f"{name}.float.tflite").read_bytes(), stored, OpResolverType.BUILTIN_REF)
        result["float_file_error"] = float(np.abs(want - lite).max() / max(np.abs(want).max(), 1e-9))
    return result


def main():
    folder = Path(sys.argv[1])
    nets = json.loads((folder / "nets.json").read_text())
    (folder / "verdict.json").write_text(json.dumps({net["name"]: verdict(folder, net) for net in nets}))


if __name__ == "__main__":
    main()
