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
    shown = torch.tensor([0, 2])
    seen = student(pictures, here, shown)[0]
    assert not torch.allclose(seen, student(pictures, there, shown)[0])
    if arm in ("crop", "late"):
        crops = torch.stack(
            [
                crop(*one, side=oracle.LOOK if arm == "late" else oracle.SIZE)
                for one in zip(pictures, here, strict=False)
            ]
        )
        expected = student.network(crops) if arm == "crop" else student.network(pictures) + student.look(crops)
        torch.testing.assert_close(seen, expected, atol=1e-4, rtol=1e-3)
        return
    looked = student.network.forward_with_regions(pictures)[1]
    assert looked
    assert all(torch.equal(boxes, there) for boxes in looked.values())
    assert not any(".region." in name for name, _ in student.network.named_parameters()), "nothing left to predict with"


def test_a_learnt_second_look_trains_its_region(oracle: ModuleType) -> None:
    student = oracle.Student("learnt", 14).train()
    logits, _ = student(torch.randn(4, 1, oracle.SIZE, oracle.SIZE), torch.zeros(4, 4), torch.zeros(4).long())
    logits.square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in student.region.parameters())


def test_a_second_look_at_the_whole_is_told_nothing(oracle: ModuleType) -> None:
    student = oracle.Student("whole", 14).eval()
    pictures = torch.randn(2, 1, oracle.SIZE, oracle.SIZE)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 4)
    expected = student.network(pictures) + student.look(oracle.roi_pool(pictures, whole, (oracle.LOOK, oracle.LOOK)))
    for boxes in (torch.zeros(2, 4), torch.full((2, 4), 0.5)):
        torch.testing.assert_close(student(pictures, boxes, torch.zeros(2).long())[0], expected)


def test_marked_cells_are_those_of_the_mark(oracle: ModuleType, root: Path) -> None:
    """By a loop over cells; and the mark's middle lies in the middle of its window, but at the picture's edge."""
    _, split = oracle.read_splits(root)
    marks = read_marks(root, split.table).by_path()
    seen = 0
    for number, finding in enumerate(oracle.FINDINGS):
        for row, path in enumerate(split.table.frame["path"]):
            cells = split.cells[number, row].view(oracle.CELLS, oracle.CELLS).numpy()
            mark = marks.get(path, {}).get(finding)
            if mark is None:
                assert not cells.any()
                assert split.windows[number, row].isnan().all()
                continue
            x1, y1 = mark.boxes[:, :2].min(0)
            x2, y2 = mark.boxes[:, 2:].max(0)
            middle = (x1 + x2) / 2, (y1 + y2) / 2
            for i, j in np.ndindex(oracle.CELLS, oracle.CELLS):
                x, y = (j + 0.5) / oracle.CELLS, (i + 0.5) / oracle.CELLS
                home = (i, j) == (int(middle[1] * oracle.CELLS), int(middle[0] * oracle.CELLS))
                assert cells[i, j] == (home or (x1 <= x <= x2 and y1 <= y <= y2))
            left, top, right, bottom = split.windows[number, row].tolist()
            assert right - left == pytest.approx(oracle.WINDOW) == bottom - top
            assert left - 1e-6 <= middle[0] <= right + 1e-6 and top - 1e-6 <= middle[1] <= bottom + 1e-6
            seen += 1
    assert seen > 3


def test_a_marked_arm_looks_at_the_window_that_it_is_given_or_finds(oracle: ModuleType) -> None:
    torch.manual_seed(0)
    student = oracle.Student("marked", 14).eval()
    pictures = torch.randn(2, 1, oracle.SIZE, oracle.SIZE)
    given = oracle.window(torch.tensor([9, 50]))
    boxes = torch.stack([given[0], torch.full((4,), torch.nan)])
    logits, cells = student(pictures, boxes, torch.tensor([1, 2]))
    looked = torch.stack([given[0], oracle.window(cells[1, 2].argmax())])
    crops = oracle.roi_pool(pictures, looked, (oracle.LOOK, oracle.LOOK))
    torch.testing.assert_close(logits, student.network(pictures) + student.look(crops), atol=1e-4, rtol=1e-3)
    first = student.network.stages[0](student.network.patch_embed(pictures))
    torch.testing.assert_close(cells, student.finder(first), atol=1e-4, rtol=1e-3)


def test_the_loss_of_finding_is_a_cross_entropy(oracle: ModuleType) -> None:
    scores = torch.randn(3, 3, oracle.CELLS**2, dtype=torch.float64)
    cells = torch.zeros(scores.shape, dtype=torch.bool)
    assert oracle.finding_loss(scores, cells) == 0
    cells[0, 1, 5] = cells[2, 0, 7] = cells[2, 0, 8] = True
    one = nnf.cross_entropy(scores[0, 1][None], torch.tensor([5]))
    two = (nnf.cross_entropy(scores[2, 0].expand(2, -1), torch.tensor([7, 8]))).mean()
    torch.testing.assert_close(oracle.finding_loss(scores, cells), (one + two) / 2)


def test_hits_are_counted_beside_the_cell_marked_most_often(oracle: ModuleType) -> None:
    cells = torch.zeros(3, 4, oracle.CELLS**2, dtype=torch.bool)
    cells[0, 0, [3, 4]] = cells[0, 1, 4] = cells[0, 2, 9] = cells[1, 0, 1] = cells[2, 3, 6] = True
    chosen = torch.tensor([[3, 0, 0], [4, 0, 0], [4, 0, 0], [0, 0, 6]])
    found = oracle.count_hits(chosen, cells, cells)
    assert found["Lung Lesion"] == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["Pneumothorax"] == (0, 1)
    assert found["Fracture"] == (1, 1)


def test_scores_and_summary(oracle: ModuleType, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "oracle.json"
    command = [str(root), "--arms", "plain", "map", "--epochs", "1", "--replicates", "50", "--json", str(file)]
    oracle.main(command)
    found = json.loads(file.read_text())
    assert set(found["arms"]) == {"plain", "map", "map, elsewhere"}
    training, validation = oracle.read_splits(root)
    assert found["images"] == [len(training.table), len(validation.table)]
    scores = oracle.train_and_score("map", 0, 1, training, validation).logits
    for number, finding in enumerate(oracle.FINDINGS):
        column = validation.table.labels.index(finding)
        truth = validation.table.target[:, column]
        for side in ("map", "map, elsewhere"):
            area = roc_auc_score(truth, scores[side][:, number])
            assert found["arms"][side]["auroc"][finding] == [pytest.approx(area, abs=1e-4)]
    for side in ("map", "map, elsewhere"):
        difference = found["arms"][side]["mean"][0] - found["arms"]["plain"]["mean"][0]
        assert found["arms"][side]["minus plain"]["estimate"] == pytest.approx(difference, abs=2e-4)
