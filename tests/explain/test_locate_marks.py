"""Boxes and maps of marked pictures: against drawn rectangles to the pixel, and each picture explained alone."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from deploy import small
from mxa.data.marks import Mark
from mxa.data.table import META_COLUMNS, Table
from mxa.errors import ConfigError, DataError
from mxa.explain.explanation import explain_grey
from mxa.explain.locate import locate, regions_on_grid
from mxa.labels import CHEXPERT14, LabelPolicy, LabelSet, label_set
from mxa.models.artifact import Architecture, Classifier
from mxa.models.build import build_model
from mxa.models.efficientvit import MxaEfficientVit
from mxa.preprocess import Preprocess

TWO = label_set(["Bright", "Dark"])
BLOCK = "stages.0.blocks.0"
CELLS = 4


class Finder(MxaEfficientVit):
    """Looks at what is bright: its box is that of the bright pixels, its map the mean brightness of 4 x 4 cells."""

    def __init__(self, power: int = 1) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.power = power

    def forward_with_regions(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        side = x.shape[-1]
        boxes = []
        for picture in x[:, 0]:
            rows, columns = (torch.nonzero((picture > 0.5).any(axis)).ravel() for axis in (1, 0))
            boxes.append(torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / side)
        return self.forward_head(avg_pool2d(x, side // CELLS)), {BLOCK: torch.stack(boxes)}

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x.mean((2, 3)) ** self.power * self.weight


def finder(fit: str, size: int, power: int = 1) -> Classifier:
    contract = Preprocess(size=size, fit=fit, interpolation="box", mean=0.0, std=1.0)
    return Classifier(Finder(power).eval(), Architecture("finder", {}), TWO, contract, {})


def plain(name: str) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_model(name, 14, 128).eval(), Architecture(name, {}), CHEXPERT14, Preprocess(size=128), {})


def write(folder: Path, pictures: dict[str, npt.NDArray[np.uint8]], labels: LabelSet) -> Table:
    """Image files, each of a patient of its own, and their table."""
    for name, grey in pictures.items():
        Image.fromarray(grey).save(folder / name)
    frame = pd.DataFrame(dict.fromkeys(META_COLUMNS, ""), index=range(len(pictures)))
    frame = frame.assign(path=list(pictures), patient=[f"of {name}" for name in pictures], split="test", row=0)
    shape = (len(pictures), len(labels))
    return Table.build(
        frame.assign(age=np.nan), np.zeros(shape), np.ones(shape, bool), labels, LabelPolicy(), folder, "made"
    )


def mark(path: str, finding: str) -> Mark:
    return Mark(path, finding, np.array([[0.25, 0.5, 0.5, 1.0]]), None)


def rectangle(height: int, width: int, x1: int, y1: int, x2: int, y2: int) -> npt.NDArray[np.uint8]:
    grey = np.zeros((height, width), np.uint8)
    grey[y1:y2, x1:x2] = 255
    return grey


@pytest.mark.parametrize(
    ("fit", "size", "shape", "drawn", "window", "seen"),
    [
        # the network's pixels are the picture's own, or two of them side by side
        ("squash", 64, (64, 128), (20, 8, 60, 33), (0, 0, 128, 64), (20, 8, 60, 33)),
        ("crop", 64, (64, 96), (30, 8, 50, 33), (16, 0, 80, 64), (30, 8, 50, 33)),
        ("crop", 64, (64, 96), (5, 8, 50, 33), (16, 0, 80, 64), (16, 8, 50, 33)),  # begins beyond the window
        ("crop", 64, (96, 64), (30, 24, 50, 91), (0, 16, 64, 80), (30, 24, 50, 80)),
        ("pad", 96, (64, 96), (5, 8, 50, 33), (0, -16, 96, 80), (5, 8, 50, 33)),
        ("pad", 96, (96, 64), (5, 8, 50, 96), (-16, 0, 80, 96), (5, 8, 50, 96)),
    ],
)
def test_boxes_windows_and_maps_are_exact(
    fit: str,
    size: int,
    shape: tuple[int, int],
    drawn: tuple[int, int, int, int],
    window: tuple[int, int, int, int],
    seen: tuple[int, int, int, int],
    tmp_path: Path,
) -> None:
    height, width = shape
    grey = rectangle(height, width, *drawn)
    table = write(tmp_path, {"a.png": grey}, TWO)
    found = locate(finder(fit, size), table, [mark("a.png", "Dark"), mark("a.png", "Bright")], grid=8)
    scale = np.array([width, height, width, height])
    np.testing.assert_allclose(found.boxes[BLOCK] * scale, [seen, seen], atol=1e-4)
    assert found.windows is not None
    np.testing.assert_allclose(found.windows * scale, [window, window], atol=1e-9)
    # What each cell of the map covers, cut out of the picture by hand; beyond its edges there is black.
    left, top, right, bottom = window
    around = np.pad(grey / 255, 16)[16 + top : 16 + bottom, 16 + left : 16 + right]
    rows, columns = (bottom - top) // CELLS, (right - left) // CELLS
    cells = [
        [around[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].mean() for j in range(CELLS)]
        for i in range(CELLS)
    ]
    assert found.maps is not None
    np.testing.assert_allclose(found.maps, [-np.array(cells), cells], atol=1e-6)
    assert found.findings == ("Dark", "Bright")
    assert found.regions[0].tolist() == rectangle(8, 8, 2, 4, 4, 8).astype(bool).tolist()


def noise(count: int) -> dict[str, npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    shapes = [(150, 150), (100, 180), (180, 100), (101, 133)]
    return {f"{i}.png": rng.integers(0, 60 + 20 * i, shapes[i % 4]).astype(np.uint8) for i in range(count)}


@pytest.mark.parametrize(("fit", "workers"), [("squash", 0), ("crop", 1), ("pad", 0)])
def test_each_case_is_its_picture_explained_alone(
    fit: str, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of three; some pictures are not marked, and the marks come in no order."""
    monkeypatch.setattr("mxa.explain.locate.BATCH_SIZE", 3)
    pictures, classifier = noise(9), small.classifier(side=128)
    classifier = replace(classifier, preprocess=replace(classifier.preprocess, fit=fit))
    nn.init.normal_(classifier.model.get_submodule("head.linear").weight)
    table = write(tmp_path, pictures, CHEXPERT14)
    marked = [("7", "Edema"), ("1", "Fracture"), ("2", "Edema"), ("1", "Edema"), ("5", "Pneumonia"), ("3", "Edema")]
    marked += [("7", "Atelectasis"), ("8", "Edema"), ("6", "Edema")]
    found = locate(classifier, table, [mark(f"{name}.png", finding) for name, finding in marked], workers=workers)
    assert sorted(zip(found.paths, found.findings, strict=True)) == sorted((f"{n}.png", f) for n, f in marked)
    assert found.patients == tuple(f"of {path}" for path in found.paths)
    assert found.single.tolist() == [path not in {"1.png", "7.png"} for path in found.paths]
    assert found.maps is not None and found.windows is not None
    assert found.maps.shape == (9, 2, 2)
    for own in (found.maps, *found.boxes.values()):
        assert np.ptp(own, axis=0).max() > 2e-3, "they differ between pictures, or nothing is compared"
    for k, (path, finding) in enumerate(zip(found.paths, found.findings, strict=True)):
        grey = pictures[path]
        height, width = grey.shape
        scale = np.array([width, height, width, height])
        alone = explain_grey(classifier, grey)
        np.testing.assert_allclose(found.maps[k], alone.maps[CHEXPERT14.index(finding)], atol=1e-3)
        np.testing.assert_allclose(found.windows[k] * scale, alone.window, atol=1e-9)
        assert list(found.boxes) == list(alone.boxes)
        for block, boxes in found.boxes.items():
            np.testing.assert_allclose(boxes[k] * scale, alone.boxes[block], atol=1e-3)


def test_a_network_has_what_it_has(tmp_path: Path) -> None:
    table = write(tmp_path, {"a.png": rectangle(64, 64, 20, 8, 60, 33)}, TWO)
    bent = locate(finder("squash", 64, power=2), table, [mark("a.png", "Bright")])
    assert bent.maps is None
    np.testing.assert_allclose(bent.boxes[BLOCK] * 64, [[20, 8, 60, 33]], atol=1e-4)
    table = write(tmp_path, noise(1), CHEXPERT14)
    without = locate(plain("efficientvit_m0"), table, [mark("0.png", "Edema")])
    assert without.boxes == {}
    assert without.maps is not None and without.maps.shape == (1, 2, 2)


def test_a_network_with_neither_is_refused(tmp_path: Path) -> None:
    table = write(tmp_path, noise(1), CHEXPERT14)
    with pytest.raises(
        ConfigError, match=r"test_convnext has no MXA regions, and there is no exact .* map of test_convnext: its head"
    ):
        locate(plain("test_convnext"), table, [mark("0.png", "Edema")])


def test_a_mask_too_small_for_the_grid_counts_as_its_box(caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((1000, 1000), bool)
    mask[305, 701] = True
    tiny = replace(mark("a", "Edema"), mask=mask, boxes=np.array([[0.701, 0.305, 0.702, 0.306]]))
    assert not tiny.region(8, 8).any()
    with caplog.at_level(logging.INFO, "mxa.explain.locate"):
        found = regions_on_grid([tiny, mark("b", "Edema")], 8)
    assert np.argwhere(found[0]).tolist() == [[2, 5]]
    assert found[1].sum() == 8
    assert caplog.messages == ["1 of 2 masks are too small for a grid of 8: their boxes count"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    model = finder("squash", 64)
    table = write(tmp_path, {"a.png": rectangle(64, 64, 20, 8, 60, 33)}, TWO)
    with pytest.raises(DataError, match=r"no image is marked"):
        locate(model, table, [])
    with pytest.raises(ValueError, match=r"1 marked images are not in the table, such as b\.png"):
        locate(model, table, [mark("b.png", "Bright")])
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        locate(model, table, [mark("a.png", "Bright")])
