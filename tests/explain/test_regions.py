"""Boxes carried back to the picture's own pixels, and drawn in red where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from mxa.data.options import DataOptions, read
from mxa.errors import ConfigError, DataError
from mxa.explain.regions import RED, RegionPicture, find_regions, region_figure, shared_finding_figure
from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier
from mxa.models.build import build_model
from mxa.preprocess import Preprocess


def classifier(name: str = "mxa_efficientvit_m0", fit: str = "squash") -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, 14, 64).eval()
    return Classifier(model, Architecture(name, {}), CHEXPERT14, Preprocess(size=64, fit=fit), {})


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 200)).astype(np.uint8)).save(file)
    return file


def test_a_picture_that_cannot_be_padded_is_named(tmp_path: Path) -> None:
    Image.new("L", (16, 9500)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long\.png: 16 x 9500 pixels would be padded"):
        find_regions(classifier(fit="pad"), [tmp_path / "long.png"])


@pytest.mark.parametrize(("fit", "window"), [("squash", (0, 0, 200, 100)), ("crop", (50, 0, 150, 100))])
def test_boxes_in_the_pictures_pixels(picture: Path, fit: str, window: tuple[int, int, int, int]) -> None:
    model = classifier(fit=fit)
    (found,) = find_regions(model, [picture])
    assert found.grey.shape == (100, 200)
    pixels = torch.from_numpy(model.preprocess.resize(found.grey))[None, None]
    left, top, right, bottom = window
    for name, boxes in model.regions(pixels).items():
        x1, y1, x2, y2 = boxes[0].tolist()
        expected = [
            left + x1 * (right - left),
            top + y1 * (bottom - top),
            left + x2 * (right - left),
            top + y2 * (bottom - top),
        ]
        assert found.boxes[name] == pytest.approx(expected, abs=1e-4)


def test_a_model_without_mxa_has_nothing_to_show(picture: Path) -> None:
    with pytest.raises(ConfigError, match="no MXA block"):
        find_regions(classifier("efficientvit_m0"), [picture])


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        find_regions(classifier(), [tmp_path / "gone.png"])


def test_the_last_box_of_each_stage_is_drawn_in_red() -> None:
    boxes = {
        "stages.0.blocks.0": (1.0, 2.0, 11.0, 22.0),
        "stages.2.blocks.0": (0.0, 0.0, 5.0, 5.0),
        "stages.2.blocks.1": (3.0, 4.0, 13.0, 24.0),
    }
    figure = region_figure([RegionPicture(np.zeros((30, 30), np.uint8), boxes)] * 2, ["a", "b"], columns=2)
    for ax, caption in zip(figure.axes, "ab", strict=True):
        frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert [(f.get_x(), f.get_y(), f.get_width(), f.get_height()) for f in frames] == [
            (0.5, 1.5, 10, 20),
            (2.5, 3.5, 10, 20),
        ]
        assert {f.get_edgecolor() for f in frames} == {to_rgba(RED)}
        assert ax.get_title() == caption


def test_all_regions_of_a_stages_last_block_are_drawn() -> None:
    boxes = {
        f"stages.1.blocks.{block}.regions.{region}": (block, region, block + 10.0, region + 10.0)
        for block in range(2)
        for region in range(3)
    }
    figure = region_figure([RegionPicture(np.zeros((30, 30), np.uint8), boxes)], ["a"], columns=1)
    frames = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [(f.get_x(), f.get_y()) for f in frames] == [(0.5, region - 0.5) for region in range(3)]
    assert len(figure.legends[0].get_lines()) == 1


def test_radiographs_that_share_a_finding_name_all_they_have(tiny_chexpert: Path) -> None:
    table = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    column = CHEXPERT14.index("Edema")
    frontal = (table.frame["view"] == "frontal").to_numpy()
    rows = [row for row in range(len(table)) if frontal[row] and table.target[row, column] == 1]
    assert 1 < len(rows) < frontal.sum()
    captions = [
        f"{table.frame['patient'][row]}\n"
        + " ".join(code for code, value in zip(CHEXPERT14.codes, table.target[row], strict=True) if value == 1)
        for row in rows
    ]
    for count in (8, 1):
        figure = shared_finding_figure(classifier(), table, "Edema", count)
        shown = [ax for ax in figure.axes if ax.images]
        assert [ax.get_title() for ax in shown] == captions[:count]
    assert all(" ED" in f" {caption}".replace("\n", " ") for caption in captions)
    files = table.files()
    for ax, row in zip(
        [ax for ax in shared_finding_figure(classifier(), table, "Edema").axes if ax.images], rows, strict=True
    ):
        with Image.open(files[row]) as picture:
            assert np.array_equal(np.asarray(ax.images[0].get_array()), np.asarray(picture.convert("L")))


def test_a_finding_that_nobody_has_is_not_shown(tiny_chexpert: Path) -> None:
    table = read(DataOptions(root=str(tiny_chexpert))).split("valid")
    without = table.take(table.target[:, CHEXPERT14.index("Edema")] == 0)
    lateral = table.take((table.frame["view"] == "lateral").to_numpy())
    for one in (without, lateral):
        with pytest.raises(DataError, match="no frontal image has Edema"):
            shared_finding_figure(classifier(), one, "Edema")
    with pytest.raises(ConfigError, match="'Edma'; did you mean 'Edema'"):
        shared_finding_figure(classifier(), table, "Edma")
    with pytest.raises(ConfigError, match="no MXA block"):
        shared_finding_figure(classifier("efficientvit_m0"), table, "Edema")
