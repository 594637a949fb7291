"""The data sets of the zoo and how they are split, and their training rows as CSV: what `gannet baseline make` reads.

    python models/zoo/data.py DIR
"""

import csv
import pathlib
import sys
from dataclasses import dataclass, field

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

SPLIT_SEED = 7


@dataclass
class Data:
    """A data set as the model receives it: `x` is FP32 with the shape of the input tensor."""

    feature_names: list
    x: np.ndarray
    y: np.ndarray
    class_names: list = field(default_factory=list)
    held_out_share: float = 0.25

    def __post_init__(self):
        stratify = self.y if self.class_names else None
        rows = np.arange(len(self.x))
        self.train, self.held_out = train_test_split(
            rows, test_size=self.held_out_share, random_state=SPLIT_SEED, stratify=stratify
        )


def load_iris():
    bunch = datasets.load_iris()
    names = [str(name) for name in bunch.target_names]
    return Data(list(bunch.feature_names), bunch.data.astype(np.float32), bunch.target, names, held_out_share=0.3)


def load_digits():
    bunch = datasets.load_digits()
    images = bunch.data.astype(np.float32).reshape(-1, 1, 8, 8)
    return Data(list(bunch.feature_names), images, bunch.target, [str(digit) for digit in range(10)])


def load_breast_cancer():
    bunch = datasets.load_breast_cancer()
    names = [str(name) for name in bunch.feature_names]
    class_names = [str(name) for name in bunch.target_names]
    return Data(names, bunch.data.astype(np.float32), bunch.target, class_names)


def load_diabetes():
    bunch = datasets.load_diabetes()
    return Data(list(bunch.feature_names), bunch.data.astype(np.float32), bunch.target)


LOADERS = {
    "iris": load_iris,
    "digits": load_digits,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, load in LOADERS.items():
        data = load()
        rows = data.x[data.train].reshape(len(data.train), -1)
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(data.feature_names)
            writer.writerows([[str(value) for value in row] for row in rows])
        print(folder / f"{name}.csv", f"{len(rows)} rows")


if __name__ == "__main__":
    main()
