"""Trains a model anew from what a server captured, and registers it, so that its alias begins a rollout there.

    retrain.py --table CAPTURE/MODEL/DIGEST --labels outcomes.csv --tracking http://127.0.0.1:5000 --model NAME --alias live

The captured inputs come out of the Delta table, the outcomes out of a CSV file with the columns request_id and label; they
are joined by the request's id. The new model takes and gives what the old one did.
"""

import argparse
import csv

import mlflow
import mlflow.onnx
import numpy
from deltalake import DeltaTable
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument("--table", required=True, help="the model's folder below capture.root")
arguments.add_argument("--labels", required=True, help="CSV with request_id and label")
arguments.add_argument("--tracking", required=True, help="the tracking server")
arguments.add_argument("--model", required=True, help="the registered model")
arguments.add_argument("--alias", required=True, help="the alias that servers follow")
arguments.add_argument("--input", default="features", help="the model's input")
options = arguments.parse_args()

with open(options.labels, newline="") as file:
    labels = {row["request_id"]: int(row["label"]) for row in csv.DictReader(file)}
column = f"in_{options.input}"
captured = DeltaTable(options.table).to_pyarrow_table(columns=["request_id", column]).to_pylist()
joined = [(row[column], labels[row["request_id"]]) for row in captured if row["request_id"] in labels]
x = numpy.array([values for values, _ in joined], dtype=numpy.float32)
y = numpy.array([label for _, label in joined], dtype=numpy.int64)
print(f"{len(captured)} captured, {len(joined)} with a label, {y.sum()} of class 1")

model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
converted = to_onnx(
    model, x[:1], target_opset=17, options={"zipmap": False}, initial_types=None, name=options.model
)
# the names that the old model has
for node in converted.graph.node:
    node.input[:] = [options.input if name == "X" else name for name in node.input]
converted.graph.input[0].name = options.input

mlflow.set_tracking_uri(options.tracking)
mlflow.set_experiment("retraining")
with mlflow.start_run():
    mlflow.log_metric("accuracy", float(model.score(x, y)))
    logged = mlflow.onnx.log_model(
        converted,
        name=options.model,
        signature=infer_signature({options.input: x[:2]}),
        input_example={options.input: x[:2]},
        registered_model_name=options.model,
    )
version = str(logged.registered_model_version)
mlflow.MlflowClient().set_registered_model_alias(options.model, options.alias, version)
print(f"version {version} of '{options.model}' is '{options.alias}' now")
