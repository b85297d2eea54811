"""The figure's pixels, boxes, maps and words are those of the explanation, and nothing overlaps."""

import json
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

import dicom_files
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.thresholds import BELOW_ZERO, OperatingPoint
from mxa.evaluation.tuning import Tuning
from mxa.explain import figure as module
from mxa.explain.explanation import Explanation, explain_grey
from mxa.explain.figure import AGAINST, EVIDENCE, FOR, MAX_PICTURES, explanation_figure, write_explanations
from mxa.explain.regions import STYLES
from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier, fingerprint, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess


def classifier(name: str = "mxa_efficientvit_m0", fit: str = "squash") -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, 14, 128).eval()
    torch.nn.init.normal_(model.head.linear.weight)
    return Classifier(model, Architecture(name, {}), CHEXPERT14, Preprocess(size=128, fit=fit), {})


def noise(height: int, width: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width)).astype(np.uint8)


def point(threshold: float | None, rule: str = "youden") -> OperatingPoint:
    reasons = dict.fromkeys(CHEXPERT14, "no positives") if threshold is None else {}
    return OperatingPoint(rule, CHEXPERT14.findings, (threshold,) * 14, reasons)


def panels(figure: Figure) -> list[list[Axes]]:
    """Axes by row: the radiograph, then the maps; scales are left out."""
    rows: list[list[Axes]] = []
    for ax in figure.axes:
        if ax.get_title(loc="left").endswith(("pixels", "%")):
            rows.append([])
        if ax.get_title(loc="left"):
            rows[-1].append(ax)
    return rows


def pixels(ax: Axes) -> npt.NDArray[np.uint8]:
    """The axes as they are drawn, (h, w, 3)."""
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())
    box = ax.get_window_extent()
    top = drawn.shape[0] - round(box.y1)
    return drawn[top : top + round(box.height), round(box.x0) : round(box.x1), :3]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


# ------------------------------------------------------------------ radiograph


@pytest.mark.parametrize("shape", [(150, 210), (210, 151), (333, 250), (487, 600), (801, 799)])
def test_a_pixel_of_the_radiograph_is_a_whole_number_of_pixels_of_the_figure(shape: tuple[int, int]) -> None:
    one = explain_grey(classifier("efficientvit_m0"), noise(*shape), "p.png")
    figure = explanation_figure(classifier("efficientvit_m0"), [one], count=1)
    ax = panels(figure)[0][0]
    drawn = pixels(ax)
    times = drawn.shape[0] // shape[0]
    assert times >= 1
    assert np.array_equal(drawn, np.kron(one.grey, np.ones((times, times), np.uint8))[:, :, None].repeat(3, axis=2))
    assert ax.get_title(loc="left") == f"p.png\n{shape[1]} x {shape[0]} pixels"


def test_a_smaller_radiograph_beside_a_larger_one_keeps_all_its_pixels() -> None:
    model = classifier("efficientvit_m0")
    found = [explain_grey(model, noise(*shape)) for shape in ((1000, 700), (601, 500))]
    for (ax, *_), one in zip(panels(explanation_figure(model, found, count=1)), found, strict=True):
        box = ax.get_window_extent()
        assert box.height >= one.grey.shape[0] - 0.01
        assert box.width / box.height == pytest.approx(one.grey.shape[1] / one.grey.shape[0], rel=2e-3)


def test_a_figure_that_would_be_too_large_says_how_much_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FIGURE_PIXELS", 1_000_000)
    model = classifier()
    figure = explanation_figure(model, [explain_grey(model, noise(1500, 1500), "p.png")])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.prod(canvas.get_width_height()) == pytest.approx(1_000_000, rel=0.01)
    ax = panels(figure)[0][0]
    share = ax.get_window_extent().height / 1500
    assert ax.get_title(loc="left") == f"p.png\n1500 x 1500 pixels, drawn at {share:.0%}"


# ----------------------------------------------------------------------- boxes


def test_the_last_box_of_each_stage_is_drawn_and_explained() -> None:
    model = classifier()
    boxes = {
        "stages.0.blocks.0": (1.0, 2.0, 11.0, 22.0),
        "stages.2.blocks.0": (0.0, 0.0, 5.0, 5.0),
        "stages.2.blocks.1": (3.0, 4.0, 13.0, 24.0),
    }
    figure = explanation_figure(model, [replace(explain_grey(model, noise(30, 40)), boxes=boxes)])
    main, *maps = panels(figure)[0]
    frames = [patch for patch in main.patches if isinstance(patch, Rectangle)]
    assert [(f.get_xy(), f.get_width(), f.get_height(), f.get_linestyle()) for f in frames] == [
        ((0.5, 1.5), 10, 20, STYLES[0]),
        ((2.5, 3.5), 10, 20, STYLES[2]),
    ]
    assert all(not ax.patches for ax in maps)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["MXA box, stage 1", "MXA box, stage 3"]


def test_without_mxa_there_is_nothing_to_explain() -> None:
    model = classifier("efficientvit_m0")
    figure = explanation_figure(model, [explain_grey(model, noise(30, 40))])
    assert not figure.legends
    assert not panels(figure)[0][0].patches


# ------------------------------------------------------------------------ maps


def test_maps_of_a_row_share_one_scale_around_zero() -> None:
    model = classifier()
    found = [explain_grey(model, noise(60, 80)), explain_grey(model, np.zeros((50, 50), np.uint8))]
    figure = explanation_figure(model, found, findings=["Edema", "Cardiomegaly"])
    scales = [ax for ax in figure.axes if ax.get_ylabel() == "evidence for the finding, logits"]
    for one, (_, *maps), scale in zip(found, panels(figure), scales, strict=True):
        largest = max(abs(one.maps[CHEXPERT14.index(finding)]).max() for finding in ("Edema", "Cardiomegaly"))
        assert scale.get_ylim() == pytest.approx((-largest, largest))
        for ax, finding in zip(maps, ("Edema", "Cardiomegaly"), strict=True):
            grey, heat = ax.images
            assert np.array_equal(grey.get_array(), one.grey[:, :, None].repeat(3, axis=2))
            np.testing.assert_array_equal(heat.get_array(), one.heat(finding))
            assert heat.get_clim() == pytest.approx((-largest, largest))
            assert heat.get_cmap() == EVIDENCE
            assert heat.get_extent() == grey.get_extent()


def test_zero_is_clear_and_the_ends_differ() -> None:
    assert EVIDENCE(0.5)[3] == 0
    assert EVIDENCE(np.nan)[3] == 0
    assert EVIDENCE(1.0)[:3] == pytest.approx(to_rgb(FOR))
    assert EVIDENCE(0.0)[:3] == pytest.approx(to_rgb(AGAINST))
    alpha = EVIDENCE(np.linspace(0, 1, 257))[:, 3]
    assert (np.diff(alpha[:129]) < 0).all()
    assert (np.diff(alpha[128:]) > 0).all()


def test_the_map_is_laid_over_the_radiograph_where_it_belongs() -> None:
    """Evidence for in the left half, against in the right: orange and blue, as drawn."""
    model = classifier("efficientvit_m0")
    one = explain_grey(model, np.full((80, 80), 128, np.uint8))
    cells = np.tile(np.array([5, 5, -5, -5], np.float32), (14, 4, 1))
    drawn = pixels(panels(explanation_figure(model, [replace(one, maps=cells)], count=1))[0][1]).astype(int)
    height, width, _ = drawn.shape
    left, right = drawn[height // 2, width // 8], drawn[height // 2, -width // 8]
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50


@pytest.mark.parametrize(
    ("shape", "bands"),
    [
        ((60, 100), [(0, 0, 20, 60), (80, 0, 100, 60)]),
        ((100, 61), [(0, 0, 61, 19.5), (0, 80.5, 61, 100)]),
        ((60, 60), []),
    ],
)
def test_what_a_crop_left_out_is_hatched(shape: tuple[int, int], bands: list[tuple[float, ...]]) -> None:
    model = classifier("efficientvit_m0", fit="crop")
    figure = explanation_figure(model, [explain_grey(model, noise(*shape))])
    for ax in panels(figure)[0]:
        drawn = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
        edges = [
            (p.get_x() + 0.5, p.get_y() + 0.5, p.get_x() + 0.5 + p.get_width(), p.get_y() + 0.5 + p.get_height())
            for p in drawn
        ]
        assert edges == [pytest.approx(band) for band in bands]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert legends == (["not seen by the network"] if bands else [])


def test_a_padded_picture_is_seen_entirely() -> None:
    model = classifier("efficientvit_m0", fit="pad")
    figure = explanation_figure(model, [explain_grey(model, noise(60, 100))])
    assert not figure.legends
    assert all(not ax.patches for ax in panels(figure)[0])
    assert not np.isnan(panels(figure)[0][1].images[1].get_array()).any()


# ----------------------------------------------------------------------- words


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for row in panels(figure) for ax in row[1:]]


def surely(probability: float) -> Explanation:
    """Probabilities of 0.2 but for Edema."""
    one = explain_grey(classifier(), noise(40, 40))
    logit = np.full(14, np.log(0.2 / 0.8))
    logit[CHEXPERT14.index("Edema")] = np.log(probability / (1 - probability))
    return replace(one, logit=logit)


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (None, "0.83"),
        (point(0.41), "0.83, above 0.41 (youden)"),
        (point(0.9, "sensitivity=0.9"), "0.83, not above 0.90 (sensitivity=0.9)"),
        (point(0.8302), "0.8300, not above 0.8302 (youden)"),
        (point(0.829), "0.830, above 0.829 (youden)"),
        (point(BELOW_ZERO), "0.83, above 0.00 (youden)"),
        (point(None), "0.83, no threshold (youden)"),
    ],
)
def test_a_panel_says_which_finding_and_how_sure(chosen: OperatingPoint | None, text: str) -> None:
    figure = explanation_figure(classifier(), [surely(0.83)], count=1, point=chosen)
    assert titles(figure) == [f"Edema\n{text}"]


def test_a_probability_on_the_threshold_is_not_above_it() -> None:
    one = surely(0.5)
    assert one.probability[CHEXPERT14.index("Edema")] == 0.5
    assert titles(explanation_figure(classifier(), [one], count=1, point=point(0.5))) == [
        "Edema\n0.5000, not above 0.5000 (youden)"
    ]


def test_the_most_probable_findings_of_each_row_or_the_named_ones() -> None:
    model = classifier()
    found = [explain_grey(model, noise(60, 80)), explain_grey(model, np.zeros((50, 50), np.uint8))]
    assert found[0].top(3) != found[1].top(3)
    shown = [title.split("\n")[0] for title in titles(explanation_figure(model, found))]
    assert shown == [*found[0].top(3), *found[1].top(3)]
    named = explanation_figure(model, found, findings=["Fracture", "Edema"])
    assert [title.split("\n")[0] for title in titles(named)] == ["Fracture", "Edema"] * 2


def test_the_foot_says_what_made_the_figure() -> None:
    model = classifier(fit="pad")
    figure = explanation_figure(
        model, [explain_grey(model, noise(60, 80))], point=point(0.5), model_hash="0123456789" * 6
    )
    said = words(figure)
    for part in (
        "mxa_efficientvit_m0 012345678901;",
        "contract 1: 128 px, pad, bicubic",
        "uncalibrated",
        "thresholds: youden",
        "2 x 2 cells",
        "Research software, not for clinical use",
    ):
        assert part in said
    assert "no thresholds" in words(explanation_figure(model, [explain_grey(model, noise(60, 80))]))


def test_a_name_is_written_as_it_is_and_a_long_one_keeps_its_end() -> None:
    model = classifier()
    (ax, *_), *_ = panels(explanation_figure(model, [explain_grey(model, noise(60, 80), "a$b$_c.png")]))
    assert ax.get_title(loc="left").startswith("a$b$_c.png\n")
    assert not ax._left_title.get_parse_math()
    long = "/".join(f"folder{i}" for i in range(40)) + "/view1_frontal.jpg"
    (ax, *_), *_ = panels(explanation_figure(model, [explain_grey(model, noise(60, 80), long)]))
    name = ax.get_title(loc="left").split("\n")[0]
    assert name[0] == "…"
    assert long.endswith(name[1:])
    assert name.endswith("folder39/view1_frontal.jpg")


@pytest.mark.parametrize("count", [1, 3, 6])
def test_nothing_overlaps_and_nothing_is_cut(count: int) -> None:
    model = classifier(fit="crop")
    long = "/a/rather/long/path/to/a/radiograph/patient00001/study1/view1_frontal.jpg"
    shapes = [(150, 150), (40, 400), (400, 40), (16, 900)]
    found = [explain_grey(model, noise(*shape), long) for shape in shapes]
    names = ["Enlarged Cardiomediastinum", *(name for name in CHEXPERT14 if name != "Enlarged Cardiomediastinum")]
    figure = explanation_figure(model, found, findings=names[:count], point=point(0.5, "sensitivity=0.95"))
    FigureCanvasAgg(figure).draw()
    boxes = {"foot": figure.texts[0].get_window_extent(), "key": figure.legends[0].get_window_extent()}
    for i, ax in enumerate(figure.axes):
        # Titles and tick labels included.
        boxes[f"panel {i} {ax.get_title(loc='left')}"] = ax.get_tightbbox()
    page = figure.bbox
    for name, box in boxes.items():
        assert page.x0 <= box.x0 < box.x1 <= page.x1, name
        assert page.y0 <= box.y0 < box.y1 <= page.y1, name
    for (a, first), (b, second) in combinations(boxes.items(), 2):
        assert not first.overlaps(second), (a, b)


# ------------------------------------------------------------------- wrong use


def test_wrong_arguments_are_explained() -> None:
    model = classifier()
    one = explain_grey(model, noise(40, 40))
    with pytest.raises(ConfigError, match=r"did you mean 'Edema'"):
        explanation_figure(model, [one], findings=["Edma"])
    with pytest.raises(ConfigError, match=r"0 findings"):
        explanation_figure(model, [one], count=0)
    for wrong in ([], [one] * (MAX_PICTURES + 1)):
        with pytest.raises(ValueError, match=rf"^{len(wrong)} explanations do not fit"):
            explanation_figure(model, wrong)
    other = OperatingPoint("youden", ("A",), (0.5,), {})
    with pytest.raises(ValueError, match=r"operating point is of \('A',\)"):
        explanation_figure(model, [one], point=other)


# ------------------------------------------------------------------------ file


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "p.png"
    Image.fromarray(noise(900, 700)).save(file)
    return file


def saved(folder: Path, tuned: bool = True) -> Path:
    points = {rule: point(value, rule) for rule, value in (("youden", 0.5), ("f1", 0.0001))}
    tuning = Tuning(points).to_dict() if tuned else {}
    return save(replace(classifier(), tuning=tuning), folder / "model")


def test_from_files_to_a_file_at_full_resolution(tmp_path: Path, picture: Path) -> None:
    out = tmp_path / "out.png"
    (one,) = write_explanations(saved(tmp_path), [picture], out, count=1)
    assert one.name == str(picture)
    with Image.open(out) as image:
        drawn = np.asarray(image.convert("RGB"))
    # An unbroken column of the radiograph, left of all boxes, is found in the figure as it is.
    left = int(min(x1 for x1, _, _, _ in one.boxes.values())) - 8
    assert left > 4
    strip = one.grey[:, left // 2]
    height = len(strip)
    columns = np.lib.stride_tricks.sliding_window_view(drawn[:, : drawn.shape[1] // 2, 0], height, axis=0)
    assert (columns == strip).all(-1).any()


def test_youden_decides_unless_told_otherwise(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(module, "save", lambda figure, _, dpi: drawn.append(figure))
    model = saved(tmp_path)
    write_explanations(model, [picture], tmp_path / "a.png")
    write_explanations(model, [picture], tmp_path / "a.png", operating_point="f1", findings=["Edema"])
    write_explanations(saved(tmp_path / "plain", tuned=False), [picture], tmp_path / "a.png")
    assert [len(titles(figure)) for figure in drawn] == [3, 1, 3]
    assert all(re.search(r"above 0\.50* \(youden\)$", title) for title in titles(drawn[0]))
    assert re.fullmatch(r"Edema\n[\d.]+, above [\d.]+ \(f1\)", titles(drawn[1])[0])
    assert all("(" not in title for title in titles(drawn[2]))
    assert fingerprint(model)[:12] in words(drawn[0])


def test_wrong_options_are_explained(tmp_path: Path, picture: Path) -> None:
    model = saved(tmp_path)
    with pytest.raises(ConfigError, match=r"out\.jpg: a figure is written as \.png, \.pdf, \.svg"):
        write_explanations(model, [picture], tmp_path / "out.jpg")
    with pytest.raises(ConfigError, match=r"25 images do not fit"):
        write_explanations(model, [picture] * 25, tmp_path / "out.png")
    with pytest.raises(ConfigError, match=r"0 images do not fit"):
        write_explanations(model, [], tmp_path / "out.png")
    with pytest.raises(ConfigError, match=r"no operating point 'cost=5'.*youden, f1"):
        write_explanations(model, [picture], tmp_path / "out.png", operating_point="cost=5")
    with pytest.raises(DataError, match=r"cannot write .*gone.*check its folder"):
        write_explanations(model, [picture], tmp_path / "gone" / "out.png", count=1)
    assert not (tmp_path / "out.png").exists()


def test_garbled_operating_points_are_the_models_fault(tmp_path: Path, picture: Path) -> None:
    model = saved(tmp_path)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tuning": {"operating_points": {}}}))
    with pytest.raises(ArtifactError, match=r"model: .*are garbled .*choose them anew with `mxa calibrate`"):
        write_explanations(model, [picture], tmp_path / "out.png")


def test_dicom_files_and_their_reservations(tmp_path: Path) -> None:
    """Refused, or drawn with the reason on the picture."""
    model = saved(tmp_path / "model")
    file = tmp_path / "hand.dcm"
    dicom_files.write(file, noise(90, 70).astype(np.uint16), BitsStored=12, BodyPartExamined="HAND")
    with pytest.raises(DataError, match=r"hand\.dcm: not taken as a chest radiograph: .*HAND"):
        write_explanations(model, [file], tmp_path / "page.png")
    (one,) = write_explanations(model, [file], tmp_path / "page.png", force=True)
    assert any("HAND" in note for note in one.notes)
    assert one.grey.shape == (90, 70)
    figure = explanation_figure(classifier(), [one])
    assert "HAND" in " ".join(text.get_text() for ax in figure.axes for text in ax.texts)
