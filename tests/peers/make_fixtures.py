"""Writes tests/fixtures/models/<name>/model.onnx: tiny ONNX models, each the smallest that shows one behaviour.

It runs with the packages of models/zoo/requirements.lock, runs every model once in ONNX Runtime and writes the same bytes
on every run. What each model computes stands at its function.

    python tests/peers/make_fixtures.py [--output DIR]
"""

import argparse
import pathlib

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import skl2onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

DATATYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "fp32": TensorProto.FLOAT,
    "fp64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}
FP32, INT64 = TensorProto.FLOAT, TensorProto.INT64
OPSETS = {"": 17, "ai.onnx.ml": 1}
IR_VERSION = 8  # The one that came with opset 17.
SLOW_STEPS = 80


def model(nodes, inputs, outputs, initializers=None):
    """A checked model. Tensors are (name, element type, shape); `initializers` maps names to arrays."""
    infos = [[helper.make_tensor_value_info(*tensor) for tensor in tensors] for tensors in (inputs, outputs)]
    values = [numpy_helper.from_array(np.asarray(array), name) for name, array in (initializers or {}).items()]
    graph = helper.make_graph(nodes, "fixture", *infos, initializer=values)
    made = helper.make_model(graph, producer_name="gannet fixtures", ir_version=IR_VERSION)
    return sign(made)


def sign(made):
    """States the opsets in a fixed order and removes what names the tool that made the model."""
    del made.opset_import[:], made.metadata_props[:]
    domains = {node.domain for node in made.graph.node}
    made.opset_import.extend(helper.make_opsetid(d, v) for d, v in sorted(OPSETS.items()) if d == "" or d in domains)
    made.producer_name, made.producer_version, made.domain, made.doc_string = "gannet fixtures", "", "", ""
    made.ir_version, made.model_version = IR_VERSION, 0
    onnx.checker.check_model(made, full_check=True)
    return made


def identity(element):
    """y = x for one element type, [batch, n]."""
    shape = ["batch", "n"]
    return model([helper.make_node("Identity", ["x"], ["y"])], [("x", element, shape)], [("y", element, shape)])


def add_sub():
    """sum = a + b and diff = a - b: two inputs, two outputs."""
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["diff"])]
    shape = ["batch", 4]
    return model(nodes, [("a", FP32, shape), ("b", FP32, shape)], [("sum", FP32, shape), ("diff", FP32, shape)])


def add_constant(constant, shape):
    """y = x + constant. `add_one` and `add_two` have one signature, so that a test sees which of them answered."""
    nodes = [helper.make_node("Add", ["x", "constant"], ["y"])]
    return model(nodes, [("x", FP32, shape)], [("y", FP32, shape)], {"constant": np.float32(constant)})


def add_one_fails():
    """y = x + 1 for [batch, 3], but a first value of 8 or more fails the run: it is the place in a table of eight."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("Cast", ["column"], ["place"], to=INT64),
        helper.make_node("Gather", ["table", "place"], ["zero"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["y"]),
    ]
    constants = {"first": np.array([0]), "table": np.zeros(8, np.float32), "one": np.float32(1)}
    shape = ["batch", 3]
    return model(nodes, [("x", FP32, shape)], [("y", FP32, shape)], constants)


def add_one_crashes():
    """y = x + 1 for [batch, 3], but a first value of 8 or more makes it a slice whose step is 0, which no kernel can do."""
    nodes = [
        helper.make_node("Gather", ["x", "first"], ["column"], axis=1),
        helper.make_node("ReduceMax", ["column"], ["largest"], axes=[0, 1], keepdims=0),
        helper.make_node("Less", ["largest", "eight"], ["good"]),
        helper.make_node("Cast", ["good"], ["number"], to=INT64),
        helper.make_node("Reshape", ["number", "one_value"], ["step"]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Slice", ["sum", "from", "to", "axis", "step"], ["y"]),
    ]
    constants = {"first": np.array([0]), "eight": np.float32(8), "one": np.float32(1), "one_value": np.array([1])}
    constants |= {"from": np.array([0]), "to": np.array([3]), "axis": np.array([1])}
    shape = ["batch", 3]
    return model(nodes, [("x", FP32, shape)], [("y", FP32, shape)], constants)


def add_one_slow():
    """y = x + 1 for [batch, 3], after some 20 to 50 ms: `slow` on a cube of ones, which x times 0 keeps from being folded."""
    made = slow()
    graph = made.graph
    nodes = [
        helper.make_node("Gather", ["x", "column_0"], ["column"], axis=1),
        helper.make_node("Mul", ["column", "nothing"], ["nothing_of_x"]),
        helper.make_node("Add", ["nothing_of_x", "start"], ["slow_x"]),
        *graph.node,
        helper.make_node("Add", ["x", "slow_y"], ["y"]),
    ]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [{"x": "slow_x", "y": "slow_y"}.get(name, name) for name in names]
    constants = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
    constants |= {"column_0": np.array([0]), "nothing": np.float32(0), "start": np.float32(1)}
    shape = ["batch", 3]
    return model(nodes, [("x", FP32, shape)], [("y", FP32, shape)], constants)


def seq_len():
    """y = the sum of x over a second dynamic dimension, counting the places where mask is not zero."""
    nodes = [
        helper.make_node("Cast", ["mask"], ["weight"], to=FP32),
        helper.make_node("Mul", ["x", "weight"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "axis"], ["y"], keepdims=1),
    ]
    inputs = [("x", FP32, ["batch", "seq"]), ("mask", INT64, ["batch", "seq"])]
    return model(nodes, inputs, [("y", FP32, ["batch", 1])], {"axis": np.array([1])})


def gather():
    """y = a table's element at x: 0, 10, ... 70. An index that is not from -8 to 7 fails the whole run."""
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    shape = ["batch", 1]
    return model(nodes, [("x", INT64, shape)], [("y", FP32, shape)], {"table": np.arange(0, 80, 10, np.float32)})


def two_outputs_dynamic():
    """y = x, and indices = where x is not zero, as [2, count]: the first dimension of that output is no batch."""
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("NonZero", ["x"], ["indices"])]
    outputs = [("y", FP32, ["batch", 4]), ("indices", INT64, [2, "count"])]
    return model(nodes, [("x", FP32, ["batch", 4])], outputs)


def slow():
    """y = x for [batch, 1] up to rounding, after 80 products of a 256x256 matrix a row: some 20 to 50 ms on one core.

    Every matrix element is x, and each product averages it with 256 times 1/256. The time grows with the rows.
    """
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("MatMul", ["h", "average"], ["h_next"])],
        "body",
        [
            helper.make_tensor_value_info("step", INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", FP32, ["batch", 256, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h_next", FP32, ["batch", 256, 256]),
        ],
    )
    part = numpy_helper.from_array(np.array([1 / 256], np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["square"], ["average"], value=part),
        helper.make_node("Unsqueeze", ["x", "last"], ["point"]),
        helper.make_node("Expand", ["point", "cube"], ["first"]),
        helper.make_node("Loop", ["steps", "", "first"], ["h_end"], body=body),
        helper.make_node("ReduceMean", ["h_end"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last_of_mean"], ["y"]),
    ]
    constants = {
        "square": np.array([256, 256]),
        "last": np.array([2]),
        "cube": np.array([1, 256, 256]),
        "steps": np.array(SLOW_STEPS),
        "last_of_mean": np.array([1]),
    }
    return model(nodes, [("x", FP32, ["batch", 1])], [("y", FP32, ["batch", 1])], constants)


def zipmap(names):
    """Logistic regression on iris whose `probabilities` are a sequence of maps; string labels where `names` is true."""
    iris = load_iris()
    labels = iris.target_names[iris.target] if names else iris.target
    estimator = LogisticRegression(max_iter=1000).fit(iris.data, labels)
    kinds = [("input", skl2onnx.common.data_types.FloatTensorType([None, 4]))]
    made = skl2onnx.convert_sklearn(estimator, "fixture", kinds, target_opset={"": 17, "ai.onnx.ml": 1})
    for info in [made.graph.input[0], made.graph.output[0]]:
        info.type.tensor_type.shape.dim[0].Clear()
        info.type.tensor_type.shape.dim[0].dim_param = "batch"
    return sign(made)


def external_data_weights():
    """64x64 of small multiples of 1/8, so that products of small integers are exact: ((7 i + 3 j) mod 11 - 5) / 8."""
    i, j = np.indices((64, 64))
    return (((7 * i + 3 * j) % 11 - 5) / 8).astype(np.float32)


def external_data():
    """y = x W, with W in the file weights.bin beside the model."""
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    shape = ["batch", 64]
    return model(nodes, [("x", FP32, shape)], [("y", FP32, shape)], {"weight": external_data_weights()})


def fixtures():
    """Every fixture by name."""
    made = {f"identity_{name}": identity(element) for name, element in DATATYPES.items()}
    return made | {
        "add_sub": add_sub(),
        "add_one": add_constant(1, ["batch", 3]),
        "add_two": add_constant(2, ["batch", 3]),
        "add_a_little_more": add_constant(1.01, ["batch", 3]),
        "add_one_crashes": add_one_crashes(),
        "add_one_fails": add_one_fails(),
        "add_one_slow": add_one_slow(),
        "unbatched": add_constant(1, [3]),
        "fixed_batch": add_constant(1, [2, 3]),
        "seq_len": seq_len(),
        "gather": gather(),
        "two_outputs_dynamic": two_outputs_dynamic(),
        "slow": slow(),
        "zipmap": zipmap(names=False),
        "zipmap_string": zipmap(names=True),
        "external_data": external_data(),
    }


def try_out(path):
    """Runs the model once on two rows: a fixture that ONNX Runtime has no kernel for must not be written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    sizes = {"batch": 2, "n": 3, "seq": 5}
    feeds = {}
    for tensor in session.get_inputs():
        shape = [sizes.get(size, size) for size in tensor.shape]
        if tensor.type == "tensor(string)":
            feeds[tensor.name] = np.full(shape, "a", object)
        elif tensor.type == "tensor(bfloat16)":
            # Python can pass BF16 only as a value of ONNX Runtime.
            ones = np.ones(shape, ml_dtypes.bfloat16).view(np.uint16)
            value = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(ones, TensorProto.BFLOAT16)
            session.run_with_ort_values(None, {tensor.name: value})
            return
        else:
            names = {"float": "float32", "double": "float64"}
            element = tensor.type.removeprefix("tensor(").removesuffix(")")
            feeds[tensor.name] = np.ones(shape, names.get(element, element))
    session.run(None, feeds)


def main():
    parser = argparse.ArgumentParser(description="Write the fixture models.")
    default = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
    parser.add_argument("--output", type=pathlib.Path, default=default)
    output = parser.parse_args().output
    for name, made in fixtures().items():
        path = output / name / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "external_data":
            (path.parent / "weights.bin").unlink(missing_ok=True)
            onnx.external_data_helper.convert_model_to_external_data(made, location="weights.bin", size_threshold=0)
            onnx.save_model(made, path)
            (path.parent / "weights.bin").chmod(0o644)
        else:
            path.write_bytes(made.SerializeToString(deterministic=True))
        try_out(path)
        print(f"{name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
