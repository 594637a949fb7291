"""Reads the golden files of the zoo and compares answers with them. It knows numpy, and no client."""

import json

import numpy as np

from checks import equal, require

DTYPES = {"FP32": np.float32, "INT64": np.int64}


class Golden:
    """One golden file: `inputs` and `outputs` are arrays by name."""

    def __init__(self, zoo, model, version, case):
        content = json.loads((zoo / model / version / "golden" / f"{case}.json").read_text())
        self.model, self.version = model, version
        self.inputs = arrays(content["request"]["inputs"])
        self.outputs = arrays(content["response"]["outputs"])
        self.tolerance = content["tolerance"]
        self.rows = len(next(iter(self.inputs.values())))

    def compare(self, answer):
        """`answer(name)` gives one output as an array. Integers must be equal, floats close."""
        for name, expected in self.outputs.items():
            actual = answer(name)
            require(actual is not None, f"output '{name}' is missing")
            equal(actual.dtype, expected.dtype, f"element type of '{name}'")
            equal(actual.shape, expected.shape, f"shape of '{name}'")
            if expected.dtype.kind == "f":
                np.testing.assert_allclose(actual, expected, **self.tolerance, err_msg=name)
            else:
                np.testing.assert_array_equal(actual, expected, err_msg=name)


def arrays(tensors):
    return {t["name"]: np.array(t["data"], DTYPES[t["datatype"]]).reshape(t["shape"]) for t in tensors}
