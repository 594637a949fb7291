"""TFLite-micro's own interpreter as a judge: what it computes, bit by bit, and what memory it takes."""

import os
import re
import sys
import tempfile

import numpy as np
from tflite_micro import runtime


def interpreter(model, arena=8 << 20):
    return runtime.Interpreter.from_bytes(model, arena_size=arena)


def allocates(model, arena):
    """Whether an arena of so many bytes is enough."""
    try:
        with quiet():
            interpreter(model, arena)
        return True
    except RuntimeError:
        return False


class quiet:
    """Catches what native code writes to its error stream; `text` after the block."""

    def __enter__(self):
        sys.stderr.flush()
        self.saved = os.dup(2)
        self.file = tempfile.TemporaryFile()
        os.dup2(self.file.fileno(), 2)
        return self

    def __exit__(self, *_):
        os.dup2(self.saved, 2)
        os.close(self.saved)
        self.file.seek(0)
        self.text = self.file.read().decode("utf-8", "replace")
        self.file.close()


def arena(model):
    """Head and total bytes, as its recorder counts them."""
    with quiet() as caught:
        interpreter(model).print_allocations()
    find = lambda what: int(re.search(rf"Arena allocation {what} (\d+)", caught.text)[1])
    return find("head"), find("total")


def run(model, rows):
    """Codes in, codes out, one row at a time."""
    it = interpreter(model)
    out = []
    for row in rows:
        it.set_input(row, 0)
        it.invoke()
        out.append(np.array(it.get_output(0)))
    return np.concatenate(out)


def run_float(model, rows):
    """Floats in, floats out, through the model's own scales."""
    it = interpreter(model)
    details, result = it.get_input_details(0), it.get_output_details(0)
    shape = tuple(details["shape"])
    if details["dtype"] == np.float32:
        return run(model, [row.reshape(shape) for row in rows])
    scale, zero = (details["quantization_parameters"][k][0] for k in ("scales", "zero_points"))
    codes = np.clip(np.round(rows / scale) + zero, -128, 127).astype(np.int8)
    out = run(model, [row.reshape(shape) for row in codes])
    scale, zero = (result["quantization_parameters"][k][0] for k in ("scales", "zero_points"))
    return (out.astype(np.float32) - zero) * scale


def sqnr(expected, got):
    """Signal to quantisation noise, in decibels."""
    expected = np.asarray(expected, np.float64).reshape(-1)
    noise = ((expected - np.asarray(got, np.float64).reshape(-1)) ** 2).sum()
    return float(10 * np.log10((expected**2).sum() / max(noise, 1e-30)))


def operators(model):
    """The operators in order, by the schema that comes with the interpreter."""
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    root = schema.ModelT.InitFromPackedBuf(model, 0)
    code = lambda operator: root.operatorCodes[operator.opcodeIndex]
    return [names[max(code(o).builtinCode, code(o).deprecatedBuiltinCode)] for o in root.subgraphs[0].operators]
