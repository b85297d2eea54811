"""A small network with MXA in all stages, its saved folder, and its exports; each is made once per process."""

import atexit
import functools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from mxa.deploy.export import FORMATS, export_model
from mxa.evaluation import calibration
from mxa.evaluation.metrics import sigmoid
from mxa.evaluation.thresholds import Rule, choose_operating_point
from mxa.evaluation.tuning import Tuning
from mxa.labels import CHEXPERT14, LabelSet
from mxa.models.artifact import Architecture, Classifier, save
from mxa.models.build import build_model
from mxa.models.mxa import RegionPredictor, SpatialAttention
from mxa.preprocess import Preprocess

SIDE = 64
NAME = "mxa_efficientvit_m0"
# Maps of 4, 2 and 1 pixels a side; the windows of 3 do not fit into the first.
OPTIONS = {"embed_dim": [16, 32, 48], "depth": [1, 1, 1], "num_heads": [2, 2, 2], "window_size": [3, 2, 2]}


def classifier(
    name: str = NAME, side: int = SIDE, options: dict[str, object] | None = None, labels: LabelSet = CHEXPERT14
) -> Classifier:
    """A network whose every part matters: batch norm statistics of its own, gates half open, boxes that move."""
    torch.manual_seed(0)
    options = OPTIONS if options is None else options
    model = build_model(name, len(labels), side, options=options)
    contract = Preprocess(size=side, fit="pad")
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, RegionPredictor):
            nn.init.normal_(module.head.weight, std=0.5)
        elif isinstance(module, SpatialAttention):
            nn.init.zeros_(module.conv.bias)
    for parameter_name, parameter in model.named_parameters():
        if "attention_biases" in parameter_name:
            nn.init.normal_(parameter)
    model.train()
    with torch.no_grad():
        model(contract.scale(torch.from_numpy(pictures(16, side)).float()))
    return Classifier(model.eval(), Architecture(name, options), labels, contract, {"note": "test"})


def pictures(count: int, side: int = SIDE) -> np.ndarray:
    """(count, 1, side, side) uint8: soft blobs and noise, every picture another."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / side
    centre, width = rng.random((count, 2, 1, 1)), 0.1 + 0.3 * rng.random((count, 1, 1))
    blob = np.exp(-((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2) / width**2)
    noise = rng.normal(0, 20, (count, side, side))
    return np.clip(40 + 170 * blob + noise, 0, 255).astype(np.uint8)[:, None]


def tuning() -> Tuning:
    """Operating points and calibrations of made-up validation images without a positive of the first finding."""
    rng = np.random.default_rng(0)
    target = (rng.random((40, 14)) < 0.4).astype(float)
    target[:, 0] = 0
    mask = np.ones(target.shape, dtype=bool)
    logit = rng.normal(size=target.shape) + target
    points = {
        rule: choose_operating_point(Rule.parse(rule), sigmoid(logit), target, mask, CHEXPERT14)
        for rule in ("youden", "cost=3")
    }
    calibrations = {kind: calibration.fit(kind, logit, target, mask, CHEXPERT14) for kind in calibration.KINDS}
    return Tuning(points, calibrations, {"dataset": "somewhere", "split": "valid", "images": 40})


@functools.cache
def workplace() -> Path:
    """A temporary folder of this process."""
    folder = tempfile.TemporaryDirectory(prefix="mxa-test-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def saved() -> Path:
    """The saved model. Do not change its files."""
    return save(replace(classifier(), tuning=tuning().to_dict()), workplace() / "model")


@functools.cache
def images() -> tuple[Path, ...]:
    """Seven pictures of unequal sides."""
    files = tuple(workplace() / f"{i}.png" for i in range(7))
    for i, (file, grey) in enumerate(zip(files, pictures(7, 100)[:, 0], strict=True)):
        Image.fromarray(grey[: 70 + i]).save(file)
    return files


@functools.cache
def exported(format_name: str) -> Path:
    """The saved model in one of the formats, with its report beside it. Do not change the file."""
    out = workplace() / f"small{FORMATS[format_name].suffix}"
    export_model(saved(), out, format_name, images())
    return out
