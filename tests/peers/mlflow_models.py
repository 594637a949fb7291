"""Logs models to a tracking server as people do, registers them, and prints what became of them as JSON.

iris: two versions of a classifier of scikit-learn, converted and logged as ONNX (external data, signature, example)
wide: a matrix of 48 MB, to be interrupted
pickled: the classifier as scikit-learn's own flavour
exported, scripted, module: one net of PyTorch, as mlflow.pytorch logs it by itself (torch.export's "pt2"), as
    TorchScript, and as a pickled module
"""

import json
import os
import sys
import warnings

# the libraries for graphics cards are empty ones
sys.setdlopenflags(os.RTLD_LAZY)

warnings.filterwarnings("ignore")

import mlflow
import mlflow.onnx
import mlflow.pytorch
import mlflow.sklearn
import numpy
import torch
from mlflow.models import infer_signature
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
mlflow.set_experiment("irises")
told = {}

x, y = load_iris(return_X_y=True)
x = x.astype(numpy.float32)


def net(size, seed):
    """y = x W with an external weight."""
    weight = numpy.random.default_rng(seed).standard_normal((size, size)).astype(numpy.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", size])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


with mlflow.start_run() as run:
    for regularisation in (1.0, 0.01):
        model = LogisticRegression(C=regularisation, max_iter=500).fit(x, y)
        converted = to_onnx(model, x[:1], options={"zipmap": False}, target_opset=17)
        probabilities = model.predict_proba(x[:2]).astype(numpy.float32)
        signature = infer_signature(
            {"X": x[:2]}, {"label": model.predict(x[:2]), "probabilities": probabilities}
        )
        logged = mlflow.onnx.log_model(
            converted,
            name="iris",
            signature=signature,
            input_example={"X": x[:2]},
            registered_model_name="iris",
        )
        told.setdefault("iris", []).append(
            {
                "model_id": logged.model_id,
                "input": x[:2].ravel().tolist(),
                "probabilities": probabilities.ravel().tolist(),
            }
        )
    client.set_registered_model_alias("iris", "champion", "1")
    for seed in (1, 2):
        mlflow.onnx.log_model(net(64 if seed == 1 else 3500, seed), name="wide", registered_model_name="wide")
    client.set_registered_model_alias("wide", "champion", "1")
    mlflow.sklearn.log_model(
        model, name="pickled", registered_model_name="pickled", serialization_format="cloudpickle"
    )
    client.set_registered_model_alias("pickled", "champion", "1")
    torch.manual_seed(7)
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(dim=1))
    scores = network(torch.from_numpy(x[:2])).detach().numpy()
    told["scores"] = scores.ravel().tolist()
    signature = infer_signature(x[:2], scores)
    script = torch.jit.script(network)
    for name, logged, how in (
        ("exported", network, {}),
        ("scripted", script, {"serialization_format": "pickle"}),
        ("module", network, {"serialization_format": "pickle"}),
    ):
        mlflow.pytorch.log_model(
            logged, name=name, signature=signature, input_example=x[:2], registered_model_name=name, **how
        )
        client.set_registered_model_alias(name, "champion", "1")
    told["run"] = run.info.run_id

print(json.dumps(told))
