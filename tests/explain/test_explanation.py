"""Maps and boxes carried back to the radiograph's own pixels, for every fit, against drawn pictures and torch."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.special import expit
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from mxa.errors import ConfigError, DataError
from mxa.explain.explanation import choose_findings, explain, explain_grey, stretch
from mxa.labels import CHEXPERT14, LabelSet
from mxa.models.artifact import Architecture, Classifier
from mxa.models.build import build_model
from mxa.preprocess import FITS, Preprocess

SHAPES = [(100, 200), (200, 100), (101, 200), (173, 120), (150, 150)]


def classifier(name: str = "mxa_efficientvit_m0", fit: str = "squash") -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, 14, 128).eval()
    return Classifier(model, Architecture(name, {}), CHEXPERT14, Preprocess(size=128, fit=fit), {})


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


# ---------------------------------------------------------------------- boxes


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_in_the_networks_input_is_placed_to_the_pixel(shape: tuple[int, int], fit: str) -> None:
    """A white rectangle goes through the preprocessing; its box is read off the network's input and carried back."""
    height, width = shape
    drawn = (width // 2 - 31, height // 2 - 17, width // 2 + 23, height // 2 + 38)
    grey = np.zeros(shape, np.uint8)
    grey[drawn[1] : drawn[3], drawn[0] : drawn[2]] = 255
    contract = Preprocess(size=448, fit=fit, interpolation="bilinear")
    columns, rows = (np.flatnonzero(contract.resize(grey).max(axis) >= 128) for axis in (0, 1))
    box = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / contract.size
    (placed,) = contract.place({"block": box}, width, height).values()
    # An edge is read off with an error of half a pixel of the input, which is less than half a pixel of the picture.
    assert placed == pytest.approx(drawn, abs=0.75)
    assert tuple(round(edge) for edge in placed) == pytest.approx(drawn, abs=1)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("squash", (20.0, 30.0, 180.0, 90.0)),
        ("crop", (60.0, 30.0, 140.0, 90.0)),
        ("pad", (20.0, 10.0, 180.0, 100.0)),  # from 10 = 0.3 x 200 - 50 down to 130, cut at the picture's edge
    ],
)
def test_boxes_of_a_wide_picture(fit: str, expected: tuple[float, ...]) -> None:
    box = torch.tensor([0.1, 0.3, 0.9, 0.9])
    placed = Preprocess(fit=fit).place({"stages.0.blocks.0": box}, 200, 100)
    assert placed == {"stages.0.blocks.0": pytest.approx(expected, abs=1e-4)}


# ----------------------------------------------------------------------- maps


def torchs(cells: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    return interpolate(torch.from_numpy(cells)[None, None], (height, width), mode="bilinear")[0, 0].numpy()


def test_a_squashed_map_is_torchs_bilinear_one() -> None:
    cells = np.random.default_rng(0).normal(size=(4, 7))
    np.testing.assert_allclose(stretch(cells, (0, 0, 90, 130), 90, 130), torchs(cells, 130, 90), atol=1e-6)


def test_a_cropped_map_covers_the_central_square_alone() -> None:
    cells = np.random.default_rng(0).normal(size=(4, 4))
    expected = np.full((100, 160), np.nan)
    expected[:, 30:130] = torchs(cells, 100, 100)
    window = Preprocess(fit="crop").window(160, 100)
    np.testing.assert_allclose(stretch(cells, window, 160, 100), expected, atol=1e-6)
    window = Preprocess(fit="crop").window(100, 160)
    found = stretch(cells.T, window, 100, 160)
    np.testing.assert_allclose(found, expected.T, atol=1e-6)
    assert np.isnan(found).sum() == 60 * 100


def test_a_padded_map_is_cut_where_the_borders_were() -> None:
    cells = np.random.default_rng(0).normal(size=(4, 4))
    window = Preprocess(fit="pad").window(160, 100)
    np.testing.assert_allclose(stretch(cells, window, 160, 100), torchs(cells, 160, 160)[30:130], atol=1e-6)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_pixel_by_hand(shape: tuple[int, int], fit: str) -> None:
    """The definition, pixel by pixel, also where crop and pad begin on half a pixel."""
    height, width = shape
    cells = np.random.default_rng(1).normal(size=(3, 5))
    left, top, right, bottom = Preprocess(fit=fit).window(width, height)
    found = stretch(cells, (left, top, right, bottom), width, height)
    assert found.shape == shape
    assert found.dtype == np.float32
    for y in range(0, height, 7):
        for x in range(0, width, 9):
            u, v = (x + 0.5 - left) / (right - left), (y + 0.5 - top) / (bottom - top)
            if not (0 <= u <= 1 and 0 <= v <= 1):
                assert np.isnan(found[y, x])
                continue
            column, row = min(max(u * 5 - 0.5, 0), 4), min(max(v * 3 - 0.5, 0), 2)
            i, j = min(int(row), 1), min(int(column), 3)
            a, b = row - i, column - j
            expected = (
                (1 - a) * (1 - b) * cells[i, j]
                + (1 - a) * b * cells[i, j + 1]
                + a * (1 - b) * cells[i + 1, j]
                + a * b * cells[i + 1, j + 1]
            )
            assert found[y, x] == pytest.approx(expected, abs=1e-5)


def test_a_map_of_one_cell_is_constant() -> None:
    assert (stretch(np.array([[2.5]]), (0, 0, 20, 30), 20, 30) == 2.5).all()


class Brightness(nn.Module):
    """Finds white: the map is the mean grey of each cell of a 7 x 7 grid, for the first finding; for the second less
    of it.
    """

    num_features = 1

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.linear.weight.data[:] = torch.tensor([[1.0], [-2.0]])

    def forward_features(self, x: Tensor) -> Tensor:
        return avg_pool2d(x, x.shape[-1] // 7)

    def forward_head(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(120, 210), (210, 120)])
def test_the_map_lights_up_where_the_picture_does(shape: tuple[int, int], fit: str) -> None:
    """From the file's pixels through the network and back: the hottest pixel lies on a white spot off the centre."""
    height, width = shape
    top, left = height // 2 - 40, width // 2 + 12
    grey = np.zeros(shape, np.uint8)
    grey[top : top + 30, left : left + 30] = 255
    model = Classifier(
        Brightness().eval(), Architecture("own", {}), LabelSet("two", ("A", "B"), ("A", "B")), Preprocess(fit=fit), {}
    )
    one = explain_grey(model, grey)
    assert one.maps.shape == (2, 7, 7)
    for heat in (one.heat("A"), -one.heat("B")):
        y, x = np.unravel_index(np.nanargmax(heat), shape)
        assert top <= y < top + 30
        assert left <= x < left + 30


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize("fit", FITS)
def test_an_explanation_of_a_file(tmp_path: Path, fit: str) -> None:
    model, grey = classifier(fit=fit), noise(100, 160)
    file = tmp_path / "wide.png"
    Image.fromarray(grey).save(file)
    (one,) = explain(model, [file])
    pixels = torch.from_numpy(model.preprocess.resize(grey))[None, None]
    assert one.name == str(file)
    assert np.array_equal(one.grey, grey)
    np.testing.assert_allclose(one.logit, model.logits(pixels)[0], atol=1e-6)
    np.testing.assert_allclose(one.probability, expit(one.logit), rtol=1e-12)
    assert one.maps.shape == (14, 2, 2)
    np.testing.assert_allclose(one.maps.mean((1, 2)), one.logit, atol=1e-6)
    assert one.window == {"squash": (0, 0, 160, 100), "crop": (30, 0, 130, 100), "pad": (0, -30, 160, 130)}[fit]
    left, top, right, bottom = one.window
    for block, boxes in model.regions(pixels).items():
        x1, y1, x2, y2 = boxes[0].tolist()
        expected = (left + x1 * (right - left), max(top + y1 * (bottom - top), 0))
        assert one.boxes[block][:2] == pytest.approx(expected, abs=1e-4)
        expected = (left + x2 * (right - left), min(top + y2 * (bottom - top), 100))
        assert one.boxes[block][2:] == pytest.approx(expected, abs=1e-4)
    assert len(one.boxes) == 6


def test_each_finding_has_its_own_map_and_its_mean_is_the_logit() -> None:
    """Bilinear enlargement by whole numbers keeps the mean."""
    one = explain_grey(classifier(), noise(100, 160), "n")
    for j, finding in enumerate(CHEXPERT14):
        heat = one.heat(finding)
        assert heat.shape == (100, 160)
        assert heat.mean(dtype=np.float64) == pytest.approx(one.logit[j], abs=1e-6)
        np.testing.assert_allclose(heat, torchs(one.maps[j].astype(np.float64), 100, 160), atol=1e-6)
    with pytest.raises(ConfigError, match=r"'Edma'; did you mean 'Edema'"):
        one.heat("Edma")


def test_several_files_keep_their_order_and_a_missing_one_is_named(tmp_path: Path) -> None:
    files = []
    for i, shape in enumerate([(100, 160), (90, 60)]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(noise(*shape)).save(files[-1])
    model = classifier("efficientvit_m0")
    assert [(one.name, one.grey.shape) for one in explain(model, files)] == [
        (str(files[0]), (100, 160)),
        (str(files[1]), (90, 60)),
    ]
    assert explain(model, files)[0].boxes == {}
    with pytest.raises(DataError, match=r"gone\.png"):
        explain(model, [*files, tmp_path / "gone.png"])


def test_a_picture_that_cannot_be_padded_is_named(tmp_path: Path) -> None:
    Image.new("L", (16, 9500)).save(tmp_path / "long.png")
    with pytest.raises(DataError, match=r"long\.png: 16 x 9500 pixels would be padded"):
        explain(classifier("efficientvit_m0", fit="pad"), [tmp_path / "long.png"])


def test_unknown_views_are_refused_before_the_first_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="views is top; give some of frontal"):
        explain(classifier("efficientvit_m0"), [tmp_path / "gone.png"], views=["top"])


def test_the_findings_to_show() -> None:
    one = explain_grey(classifier(), noise(100, 100))
    order = sorted(zip(one.probability, CHEXPERT14, strict=True), reverse=True)
    assert choose_findings(one, (), 3) == tuple(name for _, name in order[:3]) == one.top(3)
    assert len(one.top(99)) == 14
    assert choose_findings(one, ["Edema", "Cardiomegaly"], 1) == ("Edema", "Cardiomegaly")
    with pytest.raises(ConfigError, match=r"did you mean 'Edema'"):
        choose_findings(one, ["Edma"], 3)
    with pytest.raises(ConfigError, match=r"name Edema twice"):
        choose_findings(one, ["Edema", "Fracture", "Edema"], 3)
    with pytest.raises(ConfigError, match=r"0 findings cannot be shown"):
        choose_findings(one, (), 0)
