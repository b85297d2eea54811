"""A model that needs no network, small pictures, and a run of its own process."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mxa.archive import writers
from mxa.archive.run import ArchiveOptions, predict_archive
from mxa.archive.sources import Sources
from mxa.evaluation.calibration import Calibration, Temperature
from mxa.evaluation.thresholds import OperatingPoint
from mxa.evaluation.tuning import Tuning
from mxa.labels import label_set
from mxa.predictor import Predictor
from mxa.preprocess import Preprocess

FINDINGS = ("Edema", "Fracture")
SIDE = 32


@dataclass
class Halves:
    """The logits are the brightness of the left and right half, the boxes a fixed one and a brighter half."""

    name: str = "halves"
    pause: float = 0.0

    def __call__(self, pixels):
        time.sleep(self.pause)
        halves = pixels[:, 0].astype(np.float32).reshape(len(pixels), SIDE, 2, SIDE // 2).mean(axis=(1, 3))
        logits = (halves - 128) / 32
        left = np.where(halves[:, 0] > halves[:, 1], 0, 0.5).astype(np.float32)
        moving = np.stack([left, 0 * left, left + 0.5, 0 * left + 1], axis=1)
        fixed = np.tile(np.float32([0.1, 0.2, 0.7, 0.9]), (len(pixels), 1))
        return logits, {"stages.0.blocks.0": fixed, "stages.1.blocks.0": moving}


def predictor(pause=0.0, notes=(), fit="pad"):
    point = OperatingPoint("youden", FINDINGS, (0.4, None), {"Fracture": "no positives"})
    tuning = Tuning(
        {"youden": point},
        {
            "temperature": Calibration(
                "temperature", FINDINGS, {"Edema": Temperature(2.0)}, {"Fracture": "no positives"}
            )
        },
    )
    contract = Preprocess(size=SIDE, fit=fit)
    return Predictor(Halves(pause=pause), label_set(list(FINDINGS)), contract, tuning, "c0ffee", {}, notes)


def pixels(number, height=24, width=40):
    return np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)


def write_pictures(folder, count):
    """PNGs named by number, every tenth one broken."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(pixels(i, 20 + i % 7)).save(folder / f"{i:04}.png")
    for i in range(9, count, 10):
        (folder / f"{i:04}.png").write_bytes(b"broken")
    return folder


if __name__ == "__main__":
    folder, out, workers, resume = sys.argv[1:]
    writers.PART_ROWS = 8
    options = ArchiveOptions("youden", "temperature", batch_size=4, workers=int(workers), resume=resume == "resume")
    summary = predict_archive(predictor(0.05), Sources((folder,)), Path(out), options)
    sys.stderr.write("\n".join(summary.lines()) + "\n")
    sys.exit(0 if summary.good else 1)
