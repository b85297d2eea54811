"""Training with boxes that are told: what is shown to whom, and what the script makes of it."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from sklearn.metrics import roc_auc_score

from mxa.data.marks import read_marks
from mxa.data.phantom import make_phantom

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def oracle() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("oracle")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantom(tmp_path_factory.mktemp("oracle") / "p", images=400, size=64, workers=1)


def test_own_boxes_hold_the_marks_and_others_are_drawn(oracle: ModuleType, root: Path) -> None:
    for split in oracle.read_splits(root):
        marks = read_marks(root, split.table).by_path()
        told, elsewhere = split.told.numpy(), split.elsewhere.numpy()
        for number, finding in enumerate(oracle.FINDINGS):
            having = [finding in marks.get(path, {}) for path in split.table.frame["path"]]
            own = told[number, having]
            for row, box in zip(np.flatnonzero(having), own, strict=True):
                parts = marks[split.table.frame["path"].iloc[row]][finding].boxes
                assert (box[:2] <= parts[:, :2] + 1e-6).all()
                assert (box[2:] >= parts[:, 2:] - 1e-6).all()
            sides = told[..., 2:] - told[..., :2]
            assert sides.min() > oracle.LEAST - 1e-6
            assert told.min() >= 0 and told.max() <= 1 + 1e-6
            np.testing.assert_array_equal(told[number][~np.array(having)], elsewhere[number][~np.array(having)])
            known = {tuple(box) for box in own}
            assert {tuple(box) for box in elsewhere[number]} <= known, "only boxes of marks are shown"
            itself = (elsewhere[number, having] == own).all(1)
            assert not itself.any() or len(known) < len(own), "nobody draws his own"


def crop(picture: torch.Tensor, box: torch.Tensor, side: int) -> torch.Tensor:
    """By slicing; the edges must be those of pixels, and the side no smaller than the crop."""
    x1, y1, x2, y2 = (box * picture.shape[-1]).round().int().tolist()
    part = picture[None, :, y1:y2, x1:x2]
    return nnf.interpolate(part, (side, side), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("arm", ["map", "stem", "image", "crop", "late"])
def test_a_told_arm_looks_where_it_is_told(oracle: ModuleType, arm: str) -> None:
    torch.manual_seed(0)
    student = oracle.Student(arm, 14).eval()
    pictures = torch.randn(2, 1, oracle.SIZE, oracle.SIZE)
    here = torch.tensor([[0.0, 0.0, 0.25, 0.375], [0.5, 0.375, 0.875, 0.75]])
    there = here.flip(0)
    assert not torch.allclose(student(pictures, here), student(pictures, there))
    if arm in ("crop", "late"):
        crops = torch.stack(
            [
                crop(*one, side=oracle.LOOK if arm == "late" else oracle.SIZE)
                for one in zip(pictures, here, strict=False)
            ]
        )
        expected = student.network(crops) if arm == "crop" else student.network(pictures) + student.look(crops)
        torch.testing.assert_close(student(pictures, here), expected, atol=1e-4, rtol=1e-3)
        return
    shown = student.network.forward_with_regions(pictures)[1]
    assert shown
    assert all(torch.equal(boxes, there) for boxes in shown.values())
    assert not any(".region." in name for name, _ in student.network.named_parameters()), "nothing left to predict with"


def test_a_learnt_second_look_trains_its_region(oracle: ModuleType) -> None:
    student = oracle.Student("learnt", 14).train()
    student(torch.randn(4, 1, oracle.SIZE, oracle.SIZE), torch.zeros(4, 4)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in student.region.parameters())


def test_a_second_look_at_the_whole_is_told_nothing(oracle: ModuleType) -> None:
    student = oracle.Student("whole", 14).eval()
    pictures = torch.randn(2, 1, oracle.SIZE, oracle.SIZE)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 4)
    expected = student.network(pictures) + student.look(oracle.roi_pool(pictures, whole, (oracle.LOOK, oracle.LOOK)))
    for boxes in (torch.zeros(2, 4), torch.full((2, 4), 0.5)):
        torch.testing.assert_close(student(pictures, boxes), expected)


def test_scores_and_summary(oracle: ModuleType, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "oracle.json"
    command = [str(root), "--arms", "plain", "map", "--epochs", "1", "--replicates", "50", "--json", str(file)]
    oracle.main(command)
    found = json.loads(file.read_text())
    assert set(found["arms"]) == {"plain", "map", "map, elsewhere"}
    training, validation = oracle.read_splits(root)
    assert found["images"] == [len(training.table), len(validation.table)]
    scores = oracle.train_and_score("map", 0, 1, training, validation)
    for number, finding in enumerate(oracle.FINDINGS):
        column = validation.table.labels.index(finding)
        truth = validation.table.target[:, column]
        for side in ("map", "map, elsewhere"):
            area = roc_auc_score(truth, scores[side][:, number])
            assert found["arms"][side]["auroc"][finding] == [pytest.approx(area, abs=1e-4)]
    for side in ("map", "map, elsewhere"):
        difference = found["arms"][side]["mean"][0] - found["arms"]["plain"]["mean"][0]
        assert found["arms"][side]["minus plain"]["estimate"] == pytest.approx(difference, abs=2e-4)
