"""Writes the files of one zoo version: model.onnx, labels.txt, golden/ and card.md.

It knows the formats (README.md describes them) and the data sets' origins, and nothing about training.
"""

import json

import numpy as np

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}
DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}

UCI = (
    "Origin: the UCI Machine Learning Repository, which lists it under Creative Commons Attribution 4.0 (CC BY 4.0). The "
    "copy inside scikit-learn is used, unchanged."
)
ABOUT = {
    "iris": {
        "title": "Iris species from four measurements",
        "data": "Iris (R. A. Fisher, 1936): 150 flowers, 50 of each of three species, four lengths in centimetres. "
        + UCI,
        "input": "`input`: sepal length, sepal width, petal length, petal width, in centimetres.",
        "use": "Examples and tests: the smallest model that has two outputs.",
        "limits": "150 flowers, of three species, measured by one person. It answers for any four numbers, also for those "
        "of another plant. Versicolor and virginica overlap, so most mistakes are between these two.",
    },
    "digits": {
        "title": "Handwritten digits on 8x8 pixels",
        "data": "Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998), its test part: 1797 images of "
        "8x8 pixels from 13 writers. " + UCI,
        "input": "`image`: one channel of 8x8 pixels, each the count 0..16 of ink dots in a 4x4 square of the scan.",
        "use": "Examples and tests: image tensors, and two versions of one model for changes of version.",
        "limits": "Training and held-out images come from the same 13 writers, so the accuracy on other people's writing is "
        "lower. The image must be cut, centred and counted down to 8x8 in the way of the data set.",
    },
    "breast_cancer": {
        "title": "Breast tumours, malignant or benign",
        "data": "Breast Cancer Wisconsin, Diagnostic (W. Wolberg, W. N. Street and O. Mangasarian, 1995): 569 tumours (212 "
        "malignant, 357 benign), 30 numbers about the cell nuclei in an image of each. " + UCI,
        "input": "`features`: the 30 numbers in the order of `baseline.json`, in the units of the data set.",
        "use": "Examples and tests: a scaler and a tree ensemble from a scikit-learn pipeline. Not for medical use.",
        "limits": "One clinic, one instrument, before 1995. Class 0 is malignant and class 1 benign. Probabilities of "
        "boosted trees are overconfident and were not calibrated.",
    },
    "diabetes": {
        "title": "Progression of diabetes after one year",
        "data": 'Diabetes (B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least Angle Regression", 2004): 442 '
        "patients, ten numbers each and a measure of the disease one year later. Its source states no licence; the copy "
        "inside scikit-learn (BSD 3-clause) is used, unchanged.",
        "input": "`features`: age, sex, bmi, bp and s1..s6, each centred and scaled so that its squares sum to one over the "
        "data set. Raw measurements give nonsense.",
        "use": "Examples and tests: regression with one output. Not for medical use.",
        "limits": "Explains about half of the variance. The scaling used all 442 rows, the held-out ones too, because the "
        "data set is published like that.",
    },
}


def write(folder, trained, run):
    """Writes every file of `trained` below `folder`. `run(model, x)` gives the model's outputs by name."""
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(trained.model.SerializeToString(deterministic=True))
    data = trained.data
    if data.class_names:
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in data.class_names))
    for case, rows in cases(trained, run).items():
        golden = golden_of(trained.model, data.x[rows], run)
        (folder / "golden" / f"{case}.json").write_text(json.dumps(golden) + "\n")
    (folder / "card.md").write_text(card_of(trained, (folder / "model.onnx").stat().st_size))


def cases(trained, run):
    """Rows of the golden files, all held out: one; eight; and the three that are the hardest to answer."""
    held_out = trained.data.held_out
    scores = list(run(trained.model, trained.data.x[held_out]).values())[-1]
    if trained.data.class_names:
        ordered = np.sort(scores, axis=1)
        hardest = held_out[np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")[:3]]
        return {"one_row": held_out[:1], "eight_rows": held_out[:8], "least_certain": hardest}
    order = held_out[np.argsort(scores[:, 0], kind="stable")]
    return {"one_row": held_out[:1], "eight_rows": held_out[:8], "extremes": order[[0, len(order) // 2, -1]]}


def golden_of(model, x, run):
    """Request and response in the JSON form of the Open Inference Protocol."""
    inputs = {model.graph.input[0].name: x}
    return {
        "request": {"inputs": tensors_of(inputs, digits=None)},
        # Six digits are finer than the tolerance, and hide the last bits, in which CPUs differ.
        "response": {"outputs": tensors_of(run(model, x), digits=6)},
        "tolerance": TOLERANCE,
    }


def tensors_of(values, digits):
    return [
        {
            "name": n,
            "shape": list(v.shape),
            "datatype": DATATYPES[v.dtype],
            "data": [number(e, digits) for e in v.ravel()],
        }
        for n, v in values.items()
    ]


def number(value, digits):
    """A JSON number: the shortest that reads back as the same value, or one rounded to significant digits."""
    if isinstance(value, np.integer):
        return int(value)
    short = float(f"{value:.{digits}g}") if digits else float(str(value))
    assert digits or np.float32(short) == value
    return short


def card_of(trained, size):
    about, data = ABOUT[trained.name], trained.data
    outputs = {
        "label": "`label`: the index of the most probable class, INT64.",
        "probabilities": f"`probabilities`: one for each of {len(data.class_names)} classes, in the order of `labels.txt`.",
        "progression": "`progression`: the expected measure of the disease, 25 to 346 in the data set.",
    }
    how = "stratified by class, " if data.class_names else ""
    split = (
        f"{len(data.train)} rows for training and {len(data.held_out)} held out, {how}seed 7. No model was "
        "fitted to the held-out rows, but their figures were seen while the settings of the training were chosen, so they "
        "may be a little too good. The golden files are held-out rows."
    )
    lines = [f"# {about['title']} (`{trained.name}`, version {trained.version})", ""]
    lines += ["## Data", "", about["data"], "", "## Input and output", "", f"* {about['input']}"]
    lines += [f"* {outputs[output.name]}" for output in trained.model.graph.output]
    lines += ["", "## Training", "", f"{trained.training} Seed 1. The file has {size} bytes."]
    lines += ["", "## Split", "", split]
    lines += ["", "## Figures", "", "| | |", "|---|---|", *[f"| {name} | {value} |" for name, value in trained.facts]]
    lines += ["", "## Intended use", "", about["use"], "", "## Limits", "", about["limits"], ""]
    return "\n".join(lines)
