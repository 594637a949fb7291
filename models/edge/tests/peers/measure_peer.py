"""Measures the peer (onnx2tf with TensorFlow) on the nets of the proof: bytes, operators, arena and SQNR.

    cargo run -p gannet-edge --example nets -- NETS     the nets and their samples
    python digits.py NETS                               the zoo's digits and their samples
    pip install onnx2tf==1.29.24 tensorflow==2.19.0     once, in an environment of its own
    python measure_peer.py NETS --onnx2tf PATH          in the judges' environment (judge.lock); writes peer.json

The peer gets the same calibration samples as the compiler, and is judged on the same samples by the same
interpreter: TFLite-micro. It downloads an array for models with three channels, whatever it is given; an array of its
name in the working folder spares that.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

import judge

VERSION = "onnx2tf 1.29.24, tensorflow 2.19"


def channels_last(x):
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1)


def convert(path, samples, onnx2tf, folder):
    np.save(folder / "cal.npy", channels_last(samples))
    np.save(folder / "calibration_image_sample_data_20x128x128x3_float32.npy", np.zeros((20, 128, 128, 3), np.float32))
    name = onnx.load(path).graph.input[0].name
    # the peer writes over its input: it gets a copy
    (folder / "net.onnx").write_bytes(path.read_bytes())
    command = [onnx2tf, "-i", "net.onnx", "-o", "out", "-oiqt", "-qt", "per-channel"]
    command += ["-cind", name, "cal.npy", "0", "1", "-n"]
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    found = list((folder / "out").glob("*_full_integer_quant.tflite"))
    if not found:
        sys.exit(f"{path}: no model was written\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return found[0].read_bytes()


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("nets", type=Path)
    arguments.add_argument("--onnx2tf", default="onnx2tf")
    arguments.add_argument("--only", nargs="*")
    arguments.add_argument("--keep", type=Path)
    given = arguments.parse_args()
    target = Path(__file__).with_name("peer.json")
    result = json.loads(target.read_text()) if target.exists() else {"peer": VERSION, "nets": {}}
    for path in sorted(given.nets.glob("*.onnx")):
        if given.only and path.stem not in given.only:
            continue
        session = onnxruntime.InferenceSession(str(path))
        shape = [1 if not isinstance(n, int) else n for n in session.get_inputs()[0].shape]
        load = lambda kind: np.fromfile(path.with_suffix(f".{kind}.f32"), np.float32).reshape(-1, *shape[1:])
        with tempfile.TemporaryDirectory() as folder:
            model = convert(path, load("calibrate"), given.onnx2tf, Path(folder))
        if given.keep:
            (given.keep / f"{path.stem}.peer.tflite").write_bytes(model)
        score = load("score")
        expected = np.concatenate([session.run(None, {session.get_inputs()[0].name: row[None]})[0] for row in score])
        head, total = judge.arena(model)
        got = judge.run_float(model, channels_last(score))
        entry = {
            "onnx_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": len(model),
            "operators": judge.operators(model),
            "arena_head": head,
            "arena_total": total,
            "sqnr_db": round(judge.sqnr(expected, got), 2),
            "samples": len(score),
        }
        result["nets"][path.stem] = entry
        print(path.stem, entry, flush=True)
        target.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
