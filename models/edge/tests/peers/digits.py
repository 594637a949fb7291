"""Writes scikit-learn's digits as the samples of a net: calibrate, score, and the held-out rows with their labels.

The split is the zoo's (models/zoo/train.py): none of the held-out rows was seen in training.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from sklearn import datasets, model_selection

CALIBRATE = 100
SCORE = 512


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    bunch = datasets.load_digits()
    images = bunch.data.astype(np.float32).reshape(-1, 1, 8, 8)
    rows = np.arange(len(images))
    train, held_out = model_selection.train_test_split(rows, test_size=0.25, random_state=7, stratify=bunch.target)
    # calibration sees training rows alone; scoring sees every held-out row, and training rows that calibration did not
    calibrate = train[:CALIBRATE]
    score = np.concatenate([held_out, train[CALIBRATE:]])[:SCORE]
    for name in sys.argv[2:] or ["digits"]:
        images[calibrate].tofile(folder / f"{name}.calibrate.f32")
        images[score].tofile(folder / f"{name}.score.f32")
        images[held_out].tofile(folder / f"{name}.held_out.f32")
        bunch.target[held_out].astype(np.uint8).tofile(folder / f"{name}.labels.u8")


if __name__ == "__main__":
    main()
