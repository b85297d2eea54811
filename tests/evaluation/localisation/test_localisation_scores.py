from dataclasses import replace

import numpy as np
import pytest
from marked_cases import blobs, box_scores, map_scores, point_scores, rectangle, simulate

from mxa.data.marks.marks import Mark
from mxa.evaluation.localisation import GRID, Located, choose_stage, learn, score
from mxa.evaluation.localisation.scores import SELECTIONS

BOX_MEASURES = {"iou", "tight_iou", "hit", "pointing", "inside", "covered"}
CASES = simulate()
TRAINING = learn(["A", "B", "A"], list(blobs(np.random.default_rng(9), 3, 16)))


def scored(located=CASES, trained=TRAINING, **options):
    return score(located, trained, **({"replicates": 20} | options))


FOUND = scored(best_stage="stage 2")


def rows_of(finding):
    return [i for i, name in enumerate(CASES.findings) if name == finding]


def test_every_row_is_there():
    blocks = ("stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0")
    assert set(FOUND.model) == {*blocks, "stage 1", "stage 2", "best stage", "union", "map"}
    assert FOUND.baselines == (
        "whole image", "centred box", "centred box per finding", "mean box", "mean box per finding",
        "most marked pixel", "most marked pixel per finding",
    )  # fmt: skip
    rows = {*FOUND.model, *FOUND.baselines, *(f"{name}, shuffled" for name in FOUND.model)}
    assert set(FOUND.scores) == rows
    for selection in FOUND.selections.values():
        assert set(selection.means) == rows
        assert set(selection.differences) == {"stage 1", "stage 2", "best stage", "union", "map"}
        for row, against in selection.differences.items():
            assert set(against) == {*FOUND.baselines, f"{row}, shuffled"}
    assert list(FOUND.selections) == list(SELECTIONS)


@pytest.mark.parametrize("row", ["stages.0.blocks.0", "stages.0.blocks.1", "stages.1.blocks.0", "union"])
def test_boxes_as_pixel_by_pixel(row):
    boxes = CASES.all_boxes()[row]
    expected = [box_scores(mask, box) for mask, box in zip(CASES.regions, boxes, strict=True)]
    assert set(FOUND.scores[row]) == BOX_MEASURES
    for name, values in FOUND.scores[row].items():
        np.testing.assert_allclose(values, [one[name] for one in expected], atol=1e-12, err_msg=name)


def test_maps_as_pixel_by_pixel():
    expected = [map_scores(*one) for one in zip(CASES.regions, CASES.maps, CASES.windows, strict=True)]
    assert set(FOUND.scores["map"]) == {"iou", "hit", "pointing", "inside"}
    for name, values in FOUND.scores["map"].items():
        np.testing.assert_allclose(values, [one[name] for one in expected], atol=1e-12, err_msg=name)


def test_shuffled_is_with_other_patients_of_the_same_finding():
    boxes = CASES.boxes["stages.1.blocks.0"]
    for finding in "ABC":
        for i in rows_of(finding):
            others = [j for j in rows_of(finding) if CASES.patients[j] != CASES.patients[i]]
            for row, one in (
                ("stage 2, shuffled", [box_scores(CASES.regions[i], boxes[j])["iou"] for j in others]),
                (
                    "map, shuffled",
                    [map_scores(CASES.regions[i], CASES.maps[j], CASES.windows[j])["iou"] for j in others],
                ),
            ):
                assert FOUND.scores[row]["iou"][i] == pytest.approx(sum(one) / len(one)), (row, i)


def test_each_region_of_a_stages_last_block_is_a_row():
    blocks = [f"1.blocks.{block}.regions.{region}" for block in (1, 0) for region in (1, 0)]
    cases = simulate(seed=3, blocks=("0.blocks.0", *blocks))
    assert cases.stages == {
        "stage 1": "stages.0.blocks.0",
        "stage 2, region 1": "stages.1.blocks.1.regions.0",
        "stage 2, region 2": "stages.1.blocks.1.regions.1",
    }
    found = score(cases, replicates=100, best_stage="stage 2, region 2")
    assert found.scores["best stage"]["iou"] is found.scores["stages.1.blocks.1.regions.1"]["iou"]
    one = replace(cases, boxes={name: np.tile([0.0, 0.0, 1e-3, 1e-3], (len(cases), 1)) for name in cases.boxes})
    one.boxes["stages.1.blocks.1.regions.0"] = cases.boxes["stages.1.blocks.1.regions.0"]
    assert choose_stage(one) == "stage 2, region 1"


def test_a_stage_is_its_last_block_and_the_best_one_is_as_chosen():
    for row, block in (
        ("stage 1", "stages.0.blocks.1"),
        ("stage 2", "stages.1.blocks.0"),
        ("best stage", "stages.1.blocks.0"),
    ):
        for ending in ("", ", shuffled"):
            assert FOUND.scores[row + ending]["iou"] is FOUND.scores[block + ending]["iou"]
        assert FOUND.selections["all"].means[row] == FOUND.selections["all"].means[block]
    assert FOUND.best_stage == "stage 2"
    assert FOUND.stages == {"stage 1": "stages.0.blocks.1", "stage 2": "stages.1.blocks.0"}
    plain = scored()
    assert plain.best_stage is None
    assert "best stage" not in plain.scores


def test_baselines_are_the_trained_boxes_and_points():
    for row, of in (("centred box", "centred"), ("mean box", "mean")):
        box = getattr(TRAINING.overall, of)
        expected = [box_scores(mask, box)["iou"] for mask in CASES.regions]
        np.testing.assert_allclose(FOUND.scores[row]["iou"], expected)
        expected = [
            box_scores(mask, getattr(TRAINING.findings[name], of))["iou"] if name in "AB" else np.nan
            for mask, name in zip(CASES.regions, CASES.findings, strict=True)
        ]
        np.testing.assert_allclose(FOUND.scores[f"{row} per finding"]["iou"], expected)
    hits = [point_scores(mask, TRAINING.overall.point)["hit"] for mask in CASES.regions]
    assert FOUND.scores["most marked pixel"]["hit"].tolist() == hits
    assert set(FOUND.scores["most marked pixel"]) == {"hit", "pointing"}
    whole = [mask.mean() for mask in CASES.regions]
    np.testing.assert_allclose(FOUND.scores["whole image"]["iou"], whole)


def test_a_finding_without_training_marks_has_no_baseline_of_its_own():
    means = FOUND.selections["all"].means["mean box per finding"]
    assert means["C"]["iou"].value is None
    assert means["C"]["iou"].reason == "no training mark of the finding"
    assert set(means["macro"]["iou"].over) == {"A", "B"}
    assert means["pooled"]["iou"].cases == len(rows_of("A")) + len(rows_of("B"))
    difference = FOUND.selections["all"].differences["union"]["mean box per finding"]
    assert difference["C"]["iou"].reason == "no training mark of the finding"
    assert difference["pooled"]["iou"].cases == len(rows_of("A")) + len(rows_of("B"))


def test_selections_are_the_cases_they_name():
    small = np.array([mask.mean() < 0.02 for mask in CASES.regions])
    kept = {"all": np.ones(len(CASES), bool), "single": CASES.single, "small": small, "large": ~small}
    assert 0 < CASES.single.sum() < len(CASES)
    assert small.any()
    for name, rows in kept.items():
        one = FOUND.selections[name]
        assert one.cases == rows.sum()
        assert one.patients == len({p for p, k in zip(CASES.patients, rows, strict=True) if k})
        assert one.means["union"]["pooled"]["iou"].value == pytest.approx(FOUND.scores["union"]["iou"][rows].mean())


def test_a_region_of_2_percent_is_not_small():
    masks = [rectangle(10, 0, 0, 2, 1), rectangle(10, 0, 0, 1, 1)]
    one = Located(
        ("a", "b"), ("p", "q"), ("A", "A"), np.ones(2, bool), tuple(masks), {"stages.0.blocks.0": np.ones((2, 4))}
    )
    found = score(one, replicates=5)
    assert (found.selections["small"].cases, found.selections["large"].cases) == (1, 1)
    assert found.selections["small"].means["whole image"]["pooled"]["iou"].value == pytest.approx(0.01)


def test_differences_are_of_the_means_and_paired():
    for row, baseline, name in (
        ("union", "mean box", "iou"),
        ("map", "most marked pixel", "hit"),
        ("stage 1", "stage 1, shuffled", "covered"),
    ):
        one = FOUND.selections["all"]
        difference = one.differences[row][baseline]["pooled"][name]
        assert difference.value == pytest.approx(
            one.means[row]["pooled"][name].value - one.means[baseline]["pooled"][name].value
        )
    against_points = FOUND.selections["all"].differences["union"]["most marked pixel"]["pooled"]
    assert set(against_points) == {"hit", "pointing"}


def test_a_box_that_is_the_baseline_differs_from_it_by_nothing():
    whole = {"stages.0.blocks.0": np.tile([0.0, 0, 1, 1], (len(CASES), 1))}
    found = scored(replace(CASES, boxes=whole, maps=None, windows=None))
    differences = found.selections["all"].differences["stage 1"]["whole image"]["pooled"]
    assert set(differences) == BOX_MEASURES
    for one in differences.values():
        assert (one.value, one.interval.low, one.interval.high) == (0, 0, 0)
    assert found.flat_maps is None
    assert "map" not in found.scores


def test_perfect_boxes_beat_every_baseline():
    rng = np.random.default_rng(4)
    masks, boxes = [], []
    for _ in range(30):
        x, y = rng.integers(0, 12, 2)
        masks.append(rectangle(16, x, y, x + 4, y + 3))
        boxes.append(np.array([x, y, x + 4, y + 3]) / 16)
    names = tuple(str(k) for k in range(30))
    one = Located(names, names, ("A",) * 30, np.ones(30, bool), tuple(masks), {"stages.0.blocks.0": np.array(boxes)})
    found = score(one, learn(["A"] * 30, masks), replicates=200)
    means, differences = found.selections["all"].means, found.selections["all"].differences["union"]
    assert {name: mean.value for name, mean in means["union"]["A"].items()} == dict.fromkeys(BOX_MEASURES, 1)
    for baseline, of in differences.items():
        assert of["pooled"]["hit"].interval.low > 0, baseline
    assert differences["union, shuffled"]["pooled"]["iou"].interval.low > 0.5


def test_equal_images_score_the_same_shuffled():
    mask = rectangle(16, 3, 4, 9, 12)
    one = Located(
        ("a", "b", "c"), ("p", "q", "r"), ("A",) * 3, np.ones(3, bool), (mask,) * 3,
        {"stages.0.blocks.0": np.tile([0.1, 0.2, 0.6, 0.7], (3, 1))},
        np.tile(np.arange(16.0).reshape(4, 4), (3, 1, 1)), np.tile([0.0, 0, 1, 1], (3, 1)),
    )  # fmt: skip
    found = score(one, replicates=5)
    for row in found.model:
        for name, values in found.scores[row].items():
            np.testing.assert_allclose(found.scores[f"{row}, shuffled"][name], values)


def test_a_single_patient_has_no_shuffled_pairing_and_no_interval():
    one = replace(CASES, patients=("p",) * len(CASES))
    found = score(one, replicates=5).selections["all"]
    for row in ("union, shuffled", "map, shuffled"):
        mean = found.means[row]["pooled"]["iou"]
        assert (mean.value, mean.reason) == (None, "no other patient has the finding")
    assert found.differences["union"]["union, shuffled"]["pooled"]["iou"].reason == "no other patient has the finding"
    mean = found.means["union"]["pooled"]["iou"]
    assert mean.value is not None
    assert mean.interval is None


def test_maps_without_boxes():
    found = scored(replace(CASES, boxes={}))
    assert found.model == ("map",)
    assert (found.stages, set(found.empty_boxes)) == ({}, set())


def test_flat_maps_and_empty_boxes_are_counted():
    maps = CASES.maps.copy()
    flat = [rows_of("A")[0], rows_of("A")[1], rows_of("B")[0]]
    maps[flat] = [[[-1.0] * 4] * 4, [[2.0] * 4] * 4, [[0.0] * 4] * 4]
    boxes = dict(CASES.boxes)
    boxes["stages.1.blocks.0"] = boxes["stages.1.blocks.0"].copy()
    boxes["stages.1.blocks.0"][:2, 2] = boxes["stages.1.blocks.0"][:2, 0]
    found = scored(replace(CASES, maps=maps, boxes=boxes), best_stage="stage 2")
    assert found.flat_maps == {"A": 2, "B": 1, "C": 0}
    assert found.empty_boxes == {
        "stages.0.blocks.0": 0, "stages.0.blocks.1": 0, "stages.1.blocks.0": 2,
        "union": 0, "stage 1": 0, "stage 2": 2, "best stage": 2,
    }  # fmt: skip
    assert not found.scores["map"]["pointing"][flat].any()


def test_findings_without_cases_have_a_reason():
    found = scored(findings=["C", "X", "A", "B"])
    assert found.findings == ("C", "X", "A", "B")
    mean = found.selections["all"].means["union"]["X"]["iou"]
    assert (mean.value, mean.reason) == (None, "no case")
    assert found.flat_maps["X"] == 0
    assert found.selections["all"].means["union"]["macro"]["iou"].over == ("C", "A", "B")


def test_the_seed_decides_and_the_level_widens():
    one = replace(CASES, boxes={"stages.0.blocks.0": CASES.boxes["stages.0.blocks.0"]}, maps=None)

    def interval(**options):
        return scored(one, None, **options).selections["all"].means["union"]["pooled"]["iou"].interval

    assert interval() == interval()
    assert interval(seed=1) != interval()
    narrow, wide = interval(level=0.5), interval(level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_best_stage_has_the_highest_mean_iou():
    mean = {
        name: np.mean([box_scores(m, b)["iou"] for m, b in zip(CASES.regions, CASES.boxes[block], strict=True)])
        for name, block in CASES.stages.items()
    }
    assert choose_stage(CASES) == max(mean, key=mean.get)
    swapped = replace(
        CASES,
        boxes={
            "stages.0.blocks.0": CASES.boxes["stages.1.blocks.0"],
            "stages.1.blocks.0": CASES.boxes["stages.0.blocks.1"],
        },
    )
    assert choose_stage(swapped) != choose_stage(CASES)


def test_marks_are_scored_on_their_grid():
    """A mark of a box that lies on the default grid, and the same box of a model."""
    box = np.array([[64, 32, 192, 128]]) / 256
    mark = Mark("a.png", "A", box, None)
    one = Located(("a.png",), ("p",), ("A",), np.ones(1, bool), (mark.region(GRID, GRID),), {"stages.0.blocks.0": box})
    assert one.grid == 256
    assert score(one, replicates=5).scores["union"]["iou"].tolist() == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_stage": "stage 3"}, "best_stage is 'stage 3'; the boxes have stage 1, stage 2"),
        ({"findings": ["A", "B"]}, "cases of C, which findings does not name"),
        ({"level": 95}, "level must be in"),
        ({"replicates": 0}, "replicates must be at least 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        scored(**options)


def test_without_boxes_no_stage_is_chosen():
    with pytest.raises(ValueError, match="no stage to choose"):
        choose_stage(replace(CASES, boxes={}))
