"""Trains every model of the zoo from data that ships inside scikit-learn and writes models/zoo/<model>/<version>/.

Seeds are fixed, and linear algebra runs in one thread on a fixed instruction set, so a second run with the packages of
`requirements.lock` writes the same bytes (`--output` elsewhere and compare). This file holds the models: training,
the ONNX graph, the held-out metrics. `data.py` holds the data and its split, `network.py` the layers,
`artifacts.py` writes the other files; `gannet baseline make` makes baseline.json of the rows that `data.py` writes.

    python models/zoo/train.py [--output DIR]
"""

import os

# Set before numpy is imported: both choose their kernels once, from the CPU that they find.
os.environ.update(OPENBLAS_NUM_THREADS="1", OPENBLAS_CORETYPE="Haswell")
os.environ["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512_ICL AVX512_SPR"

import argparse
import pathlib
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import skl2onnx
import threadpoolctl
from onnx import TensorProto, helper
from sklearn import ensemble, linear_model, metrics, pipeline, preprocessing

import artifacts
import network
from data import Data, load_breast_cancer, load_diabetes, load_digits, load_iris

OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8  # The one that came with opset 17.
TRAIN_SEED = 1


@dataclass
class Trained:
    """One version of one model, ready to be written. `facts` are the measured lines of its card."""

    name: str
    version: str
    data: Data
    model: onnx.ModelProto
    facts: list
    training: str


def model_of(nodes, initializers, inputs, outputs, name):
    """A checked ONNX model. `inputs` and `outputs` are (name, element type, shape after the batch dimension)."""
    infos = [
        [helper.make_tensor_value_info(n, element, ["batch", *shape]) for n, element, shape in tensors]
        for tensors in (inputs, outputs)
    ]
    graph = helper.make_graph(nodes, name, *infos, initializer=initializers)
    opsets = [helper.make_opsetid("", OPSETS[""])]
    model = helper.make_model(graph, producer_name="gannet zoo", opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, x):
    """All outputs of the model for `x`, by name, as ONNX Runtime computes them on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    values = session.run(None, {session.get_inputs()[0].name: x})
    return dict(zip([output.name for output in session.get_outputs()], values))


def classifier_facts(data, model, reference, framework):
    """Held-out metrics of a classifier, and how far ONNX Runtime is from `reference`, the framework's probabilities."""
    probabilities = run(model, data.x)["probabilities"]
    truth, rows = data.y[data.held_out], probabilities[data.held_out].astype(np.float64)
    rows /= rows.sum(axis=1, keepdims=True)  # FP32 rows sum to one only to seven digits.
    same = int((probabilities.argmax(1) == reference.argmax(1)).sum())
    facts = [
        ("held-out accuracy", f"{metrics.accuracy_score(truth, rows.argmax(1)):.4f}"),
        ("held-out log loss", f"{metrics.log_loss(truth, rows):.4f}"),
        ("held-out macro F1", f"{metrics.f1_score(truth, rows.argmax(1), average='macro'):.4f}"),
    ]
    if len(data.class_names) == 2:
        facts.append(("held-out ROC AUC", f"{metrics.roc_auc_score(truth, rows[:, 1]):.4f}"))
    difference = np.abs(probabilities - reference).max()
    agreement = f"{same} of {len(data.x)} rows get the same class, probabilities differ by at most {difference:.0e}"
    return facts + [(f"ONNX Runtime against {framework}, all rows", agreement)]


def train_iris():
    data = load_iris()
    rows = data.x[data.train]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    rng = np.random.default_rng(TRAIN_SEED)
    layers = [network.Dense(rng, 4, 16), network.Relu(), network.Dense(rng, 16, 3)]
    network.train(layers, (rows - mean) / std, data.y[data.train], rng, epochs=100, rate=1e-2)
    reference = network.predict(layers, (data.x - mean) / std)
    # The standardisation moves into the first layer, so the model takes plain centimetres.
    weight, bias = layers[0].parameters
    layers[0].parameters = [weight / std[:, None], bias - (mean / std) @ weight]
    nodes, initializers = network.to_onnx(layers, "input", "probabilities")
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], name="label", axis=1, keepdims=0))
    outputs = [("label", TensorProto.INT64, []), ("probabilities", TensorProto.FLOAT, [3])]
    model = model_of(nodes, initializers, [("input", TensorProto.FLOAT, [4])], outputs, "iris")
    training = (
        "A multilayer perceptron 4-16-3 with ReLU, trained in numpy: softmax cross-entropy, Adam, 100 epochs, 32 rows a "
        "step, rate 0.01 on a half cosine. Standardisation is folded into the first layer."
    )
    return Trained("iris", "1", data, model, classifier_facts(data, model, reference, "numpy"), training)


def train_digits(version):
    """Version 1 is one small convolution; version 2 has two, a hidden layer, and sees shifted images."""
    data = load_digits()
    rng = np.random.default_rng(TRAIN_SEED)
    if version == "1":
        layers = [network.Conv(rng, 1, 8), network.Relu(), network.MaxPool(), network.Flatten()]
        layers += [network.Dense(rng, 128, 10)]
        schedule = dict(epochs=15, rate=1e-2)
        net = "convolution (8 filters 3x3), ReLU, 2x2 max pooling, one dense layer; 15 epochs, rate 0.01"
    else:
        layers = [network.Conv(rng, 1, 16), network.Relu(), network.Conv(rng, 16, 32), network.Relu()]
        layers += [network.MaxPool(), network.Flatten()]
        layers += [network.Dense(rng, 512, 64), network.Relu(), network.Dense(rng, 64, 10)]
        schedule = dict(epochs=40, rate=2e-3, augment=network.shift_images)
        net = (
            "convolution (16 filters 3x3), ReLU, convolution (32 filters 3x3), ReLU, 2x2 max pooling, dense layer of 64, "
            "ReLU, dense layer of 10; 40 epochs, rate 0.002, each image moved at random by up to one pixel"
        )
    scaled = data.x / np.float32(16)
    network.train(layers, scaled[data.train], data.y[data.train], rng, **schedule)
    reference = network.predict(layers, scaled)
    # Pixels are 0..16. Padding is zero on either scale, so the factor moves into the first weights exactly.
    layers[0].parameters[0] /= np.float32(16)
    nodes, initializers = network.to_onnx(layers, "image", "probabilities")
    outputs = [("probabilities", TensorProto.FLOAT, [10])]
    model = model_of(nodes, initializers, [("image", TensorProto.FLOAT, [1, 8, 8])], outputs, "digits")
    training = f"A convolutional net, trained in numpy with Adam, 32 images a step: {net} on a half cosine."
    return Trained("digits", version, data, model, classifier_facts(data, model, reference, "numpy"), training)


def convert(estimator, data, input_name, renamed, shapes, options=None):
    """An estimator as ONNX, with its outputs renamed and every shape stated."""
    kinds = [(input_name, skl2onnx.common.data_types.FloatTensorType([None, data.x.shape[1]]))]
    model = skl2onnx.convert_sklearn(
        estimator, "estimator", kinds, target_opset=OPSETS, options=options, model_optim=False
    )
    for node in model.graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
        node.input[:] = [renamed.get(name, name) for name in node.input]
    for info in [*model.graph.input, *model.graph.output]:
        info.name = renamed.get(info.name, info.name)
        dims = info.type.tensor_type.shape.dim
        del dims[:]
        dims.add().dim_param = "batch"
        for size in shapes[info.name]:
            dims.add().dim_value = size
    # The converter lists what it used in an order that changes, and names itself: neither may change the bytes.
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in sorted(OPSETS.items()))
    model.producer_name, model.producer_version, model.domain, model.doc_string = "gannet zoo", "", "", ""
    model.model_version, model.ir_version = 0, IR_VERSION
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def round_to_float32(values):
    return values.astype(np.float32).astype(np.float64)


def floor_to_float32(values):
    """The largest FP32 values not above `values`: an FP32 number is <= the one exactly when it is <= the other."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float64)


def train_breast_cancer():
    data = load_breast_cancer()
    # The model computes with FP32. Parameters that fit FP32 let scikit-learn and ONNX Runtime take the same branches.
    scaler = preprocessing.StandardScaler().fit(data.x[data.train])
    scaler.mean_, scaler.scale_ = round_to_float32(scaler.mean_), round_to_float32(scaler.scale_)
    trees = ensemble.GradientBoostingClassifier(n_estimators=100, max_depth=3, subsample=0.7, random_state=TRAIN_SEED)
    trees.fit(scaler.transform(data.x[data.train]), data.y[data.train])
    for tree in trees.estimators_[:, 0]:
        tree.tree_.threshold[:] = floor_to_float32(tree.tree_.threshold)
    estimator = pipeline.make_pipeline(scaler, trees)
    options = {id(scaler): {"div": "div"}, id(estimator): {"zipmap": False}}
    shapes = {"features": [30], "label": [], "probabilities": [2]}
    model = convert(estimator, data, "features", {}, shapes, options)
    training = (
        "A scikit-learn pipeline: StandardScaler, then GradientBoostingClassifier with 100 trees of depth 3, each on 70 % "
        "of the rows."
    )
    facts = classifier_facts(data, model, estimator.predict_proba(data.x), "scikit-learn")
    return Trained("breast_cancer", "1", data, model, facts, training)


def train_diabetes():
    data = load_diabetes()
    estimator = linear_model.RidgeCV(alphas=np.logspace(-3, 1, 9))
    estimator.fit(data.x[data.train], data.y[data.train])
    shapes = {"features": [10], "progression": [1]}
    model = convert(estimator, data, "features", {"variable": "progression"}, shapes)
    answers, reference = run(model, data.x)["progression"][:, 0], estimator.predict(data.x)
    truth, held_out = data.y[data.held_out], answers[data.held_out]
    facts = [
        ("held-out R2", f"{metrics.r2_score(truth, held_out):.4f}"),
        ("held-out mean absolute error", f"{metrics.mean_absolute_error(truth, held_out):.2f}"),
        ("held-out root mean squared error", f"{metrics.root_mean_squared_error(truth, held_out):.2f}"),
        ("ONNX Runtime against scikit-learn, all rows", f"at most {np.abs(answers - reference).max():.0e} apart"),
    ]
    training = (
        "Ridge regression (scikit-learn RidgeCV); its penalty was chosen from nine between 0.001 and 10 by leave-one-out on "
        "the training rows."
    )
    return Trained("diabetes", "1", data, model, facts, training)


def main():
    parser = argparse.ArgumentParser(description="Train the zoo.")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    output = parser.parse_args().output
    with threadpoolctl.threadpool_limits(1):
        zoo = [train_iris(), train_digits("1"), train_digits("2"), train_breast_cancer(), train_diabetes()]
        for trained in zoo:
            folder = output / trained.name / trained.version
            artifacts.write(folder, trained, run)
            print(folder, f"{(folder / 'model.onnx').stat().st_size} bytes", *trained.facts, sep="\n  ")


if __name__ == "__main__":
    main()
