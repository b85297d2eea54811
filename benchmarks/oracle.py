"""What is a region worth that looks in the right place? Train on a phantom with boxes that are told, not predicted.

    mxa data phantom ROOT --images 20000
    python benchmarks/oracle.py ROOT [--arms plain mxa map] [--seeds 0 1] [--epochs 3]

M0 at 128 px, scored on the validation split for small and focal findings. An image has a box for each of these: around
its own mark where it has the finding, around another image's, drawn at random, where it has not; so a box alone says
nothing of its finding. In training a step shows each image one of its boxes; scoring shows each finding its own.

    plain   no block
    mxa     the paper's block, its gate open, its box predicted
    map     the same, box told
    stem    a block in the first stage only, crop from the stem's map of twice the resolution, box told
    image   the same, crop from the picture and through a patch embedding of its own, box told
    crop    no block; the network sees nothing but the crop, enlarged to the picture's size: what a region can tell
    late    no block; a second network sees the crop at half the picture's size, logits are added, box told
    learnt  the same, box from the moments of a map, predicted from the patch embedding
    whole   the same, box the whole picture: what the second network alone brings
    located no second network; the first stage's map learns from the marks which of its cells each finding lies in
    marked  the same with a second network: in training it sees a window around the mark, where there is none (and in
            scoring always) one around the cell that was chosen

Told arms are also scored with all boxes drawn from other images ("elsewhere"): what they owe to the right place. For
the last two it is also told how often the chosen cell lies in the mark ("hits"), beside the cell that is marked most
often in training.
"""

import argparse
import copy
import datetime
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from record import positive
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from mxa.data.decode import decode_all
from mxa.data.loader import EpochSampler
from mxa.data.marks import read_marks
from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.evaluation.bootstrap import Bootstrap, Draws, mean_over_runs
from mxa.labels import LabelPolicy
from mxa.models.build import build_model
from mxa.models.efficientvit import MxaEfficientVit
from mxa.models.mxa import Mxa
from mxa.models.mxa.region import MomentRegion
from mxa.models.mxa.sampling import roi_pool
from mxa.preprocess import Preprocess
from mxa.training.clipping import AdaptiveClip
from mxa.training.losses import masked_bce_with_logits
from mxa.training.provenance import environment

FloatArray = npt.NDArray[np.float32]
FINDINGS = ("Lung Lesion", "Pneumothorax", "Fracture")
OPEN = {"mxa_spatial_bias": 0.0}
FIRST = {"mxa_stages": (0,), **OPEN}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("efficientvit_m0", {}),
    "mxa": ("mxa_efficientvit_m0", OPEN),
    "map": ("mxa_efficientvit_m0", OPEN),
    "stem": ("mxa_efficientvit_m0", {"mxa_source": "stem", **FIRST}),
    "image": ("mxa_efficientvit_m0", FIRST),
    "crop": ("efficientvit_m0", {}),
    "late": ("efficientvit_m0", {}),
    "learnt": ("efficientvit_m0", {}),
    "whole": ("efficientvit_m0", {}),
    "located": ("efficientvit_m0", {}),
    "marked": ("efficientvit_m0", {}),
}
TOLD = ("map", "stem", "image", "crop", "late")
FINDING = ("located", "marked")
"""Arms that learn from the marks."""
SIZE, LOOK, EMBEDDED = 128, 64, 64
"""Sides of the picture and of the second look in pixels; channels of the patch embedding."""
LEAST = 0.25
"""A told box is at least this wide and high: two pixels of the first stage's map."""
CELLS, WINDOW = 8, 0.375
"""Side of the first stage's map; side of the window around a cell, in parts of the picture's."""
BATCH = 32
LR = 1e-3


@dataclass(frozen=True)
class Split:
    """Images with their boxes.

    Attributes:
        table: N rows.
        pixels: (N, S, S) uint8.
        told: (F, N, 4) boxes to show for each finding, own marks first.
        elsewhere: (F, N, 4) boxes of other images only.
        windows: (F, N, 4) windows around the cells that the own marks' middles lie in, NaN where there is no mark.
        cells: (F, N, CELLS^2) which cells' middles lie in the own mark, and the one that its middle lies in.
    """

    table: Table
    pixels: Tensor
    told: Tensor
    elsewhere: Tensor
    windows: Tensor
    cells: Tensor


@dataclass(frozen=True)
class Scored:
    """What a trained arm gives on the validation images.

    Attributes:
        logits: (N, F) by side: as the arm is, and for told arms told elsewhere.
        hits: for arms that learn from the marks, by finding: the share of marks that the chosen cell lies in, and that
            the cell does which is marked most often in training.
    """

    logits: dict[str, npt.NDArray[np.float64]]
    hits: dict[str, tuple[float, float]]


class Told(nn.Module):
    """A region predictor that says what it was told for this batch: :attr:`boxes` (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = torch.empty(0, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4)."""
        return self.boxes


class Whole(nn.Module):
    """A region predictor that knows one box."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4)."""
        return x.new_tensor([[0.0, 0.0, 1.0, 1.0]]).expand(len(x), 4)


class Finder(nn.Module):
    """Scores of the first stage's cells for each finding."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(EMBEDDED, EMBEDDED, 3, padding=1)
        self.scores = nn.Conv2d(EMBEDDED, len(FINDINGS), 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, CELLS, CELLS) -> (B, F, CELLS^2)."""
        scores: Tensor = self.scores(self.hidden(x).relu()).flatten(2)
        return scores


def window(cells: Tensor) -> Tensor:
    """(...,) numbers of cells -> (..., 4) windows around their middles, moved into the picture."""
    middle = torch.stack([cells % CELLS, cells // CELLS], -1).add(0.5) / CELLS
    start = (middle - WINDOW / 2).clamp(0, 1 - WINDOW)
    return torch.cat([start, start + WINDOW], -1)


class PictureCrop(nn.Module):
    """An MXA block whose map is that of the picture's crop: (B, C, H, W) -> F_MXA and boxes, as the block."""

    def __init__(self, block: Mxa, embed: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.pictures = torch.empty(0)
        self.embed = copy.deepcopy(embed)  # magnified pictures have other statistics

    def forward(self, x: Tensor, stem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pictures are :attr:`pictures` (B, 1, S, S)."""
        assert self.block.region is not None
        boxes = self.block.region(x)
        crop = self.embed(roi_pool(self.pictures, boxes))
        return self.block.spatial(self.block.channel(crop)), boxes


class Student(nn.Module):
    """One arm's network, told where to look where the arm is.

    Args:
        arm: its name.
        labels: number of findings.
    """

    def __init__(self, arm: str, labels: int) -> None:
        super().__init__()
        name, options = ARMS[arm]
        self.network = build_model(name, labels, SIZE, options=options).to(memory_format=torch.channels_last)
        self.told = Told()
        self.sees_crop = arm == "crop"
        self.look = build_model(name, labels, LOOK) if arm in ("late", "learnt", "whole", "marked") else None
        self.finder = Finder() if arm in FINDING else None
        self.region = MomentRegion(EMBEDDED) if arm == "learnt" else Whole() if arm == "whole" else None
        if arm in TOLD:
            for module in self.network.modules():
                if isinstance(module, Mxa):
                    module.region = self.told
        self.first = torch.empty(0)
        self.network.get_submodule("stages.0").register_forward_hook(self._keep)
        self.crop: PictureCrop | None = None
        if arm == "image":
            assert isinstance(self.network, MxaEfficientVit)
            mixer = self.network.stages[0].blocks[0].mixer
            mixer.mxa = self.crop = PictureCrop(mixer.mxa, self.network.patch_embed)

    def _keep(self, module: nn.Module, inputs: object, first: Tensor) -> None:
        """The first stage's map, for the finder."""
        self.first = first

    def forward(self, pictures: Tensor, boxes: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and where the findings seem to be.

        Args:
            pictures: (B, 1, S, S), scaled.
            boxes: (B, 4); NaN where one is to be found.
            shown: (B,) the finding, of :data:`FINDINGS`, that each box is for.

        Returns:
            Logits (B, L) and scores of cells (B, F, CELLS^2); none of these, (B, 0, 0), where the arm does not learn
            from the marks.
        """
        self.told.boxes = boxes
        if self.crop is not None:
            self.crop.pictures = pictures
        logits: Tensor = self.network(roi_pool(pictures, boxes) if self.sees_crop else pictures)
        cells = pictures.new_empty(len(pictures), 0, 0)
        if self.finder is not None:
            cells = self.finder(self.first)
            chosen = window(cells[torch.arange(len(cells)), shown].argmax(1))
            boxes = torch.where(boxes.isnan(), chosen, boxes)
        if self.look is not None:
            cut = boxes if self.region is None else self.region(self.network.get_submodule("patch_embed")(pictures))
            logits = logits + self.look(roi_pool(pictures, cut, (LOOK, LOOK)))
        return logits, cells


def main(argv: Sequence[str] | None = None) -> None:
    """Train the arms, score them, write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("root", type=Path, help="a phantom with its masks")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=positive, default=3)
    parser.add_argument("--jobs", type=positive, default=1, help="arms that train side by side, one thread each")
    parser.add_argument("--replicates", type=positive, default=2000, help="of the bootstrap over patients")
    parser.add_argument("--json", type=Path, help="write the result here instead of to standard output")
    options = parser.parse_args(argv)
    training, validation = read_splits(options.root)
    runs = [(arm, seed) for seed in options.seeds for arm in options.arms]
    with ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:
        jobs = {run: pool.submit(train_and_score, *run, options.epochs, training, validation) for run in runs}
        scores = {run: job.result() for run, job in jobs.items()}
    result = {
        "benchmark": "oracle",
        "date": datetime.date.today().isoformat(),
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "machine": environment(),
        "images": [len(training.table), len(validation.table)],
        "arms": summarise(scores, validation.table, options.seeds, options.replicates),
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.json is None:
        sys.stdout.write(text)
    else:
        options.json.write_text(text, encoding="utf-8")


def read_splits(root: Path) -> tuple[Split, Split]:
    """The phantom's training and validation images with the boxes to show."""
    policy = LabelPolicy(uncertain="u-ones", blank="negative")
    table = read(DataOptions(root=str(root), dataset="chexpert", policy=policy))
    parts = table.split("train"), table.split("valid")
    generator = np.random.default_rng(0)
    training, validation = (_read_split(root, part, generator) for part in parts)
    return training, validation


def _read_split(root: Path, table: Table, generator: np.random.Generator) -> Split:
    own = own_boxes(root, table)
    elsewhere = np.stack([_drawn(boxes, generator) for boxes in own])
    told = np.where(np.isnan(own), elsewhere, own)
    pixels = torch.from_numpy(decode_all(table.files(), Preprocess(size=SIZE)))
    windows, cells = marked_cells(own_boxes(root, table, enlarge=False))
    return Split(table, pixels, torch.from_numpy(told), torch.from_numpy(elsewhere), windows, cells)


def marked_cells(tight: FloatArray) -> tuple[Tensor, Tensor]:
    """Windows (F, N, 4) and cells (F, N, CELLS^2) of marks' boxes (F, N, 4), as :class:`Split` has them."""
    boxes = torch.from_numpy(tight)
    marked = ~boxes[..., 0].isnan()
    inner = ((boxes[..., :2] + boxes[..., 2:]) / 2 * CELLS).nan_to_num().long().clamp(0, CELLS - 1)
    home = inner[..., 1] * CELLS + inner[..., 0]
    at = (torch.arange(CELLS) + 0.5) / CELLS
    x, y = at.repeat(CELLS), at.repeat_interleave(CELLS)
    low, high = boxes[..., :2, None], boxes[..., 2:, None]
    inside = (x >= low[..., 0, :]) & (x <= high[..., 0, :]) & (y >= low[..., 1, :]) & (y <= high[..., 1, :])
    cells = inside.scatter(-1, home[..., None], value=True) & marked[..., None]
    windows = torch.where(marked[..., None], window(home), torch.nan)
    return windows, cells


def own_boxes(root: Path, table: Table, *, enlarge: bool = True) -> FloatArray:
    """(F, N, 4) boxes around the whole of an image's mark of each finding, NaN where it has none."""
    marks = read_marks(root, table).by_path()
    own = np.full((len(FINDINGS), len(table), 4), np.nan, dtype=np.float32)
    for row, path in enumerate(table.frame["path"]):
        for number, finding in enumerate(FINDINGS):
            mark = marks.get(path, {}).get(finding)
            if mark is not None:
                low, high = mark.boxes[:, :2].min(0), mark.boxes[:, 2:].max(0)
                own[number, row] = enlarged(low, high) if enlarge else np.concatenate([low, high])
    return own


def enlarged(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Corners x1, y1, x2, y2 of a box half as large again, at least LEAST wide and high, moved into the picture."""
    size = np.clip(1.5 * (high - low), LEAST, 1)
    start = np.clip((low + high - size) / 2, 0, 1 - size)
    return np.concatenate([start, start + size])


def _drawn(boxes: FloatArray, generator: np.random.Generator) -> FloatArray:
    """For each of N images a box of one of the others, as likely each."""
    having = np.flatnonzero(~np.isnan(boxes[:, 0]))
    if len(having) < 2:
        raise SystemExit("the phantom is too small: a finding is marked in fewer than two images of a split")
    drawn = generator.choice(having, len(boxes))
    itself = drawn == np.arange(len(boxes))
    drawn[itself] = having[(np.searchsorted(having, drawn[itself]) + 1) % len(having)]
    return boxes[drawn]


def train_and_score(arm: str, seed: int, epochs: int, training: Split, validation: Split) -> Scored:
    """An arm after its last epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    student = Student(arm, len(training.table.labels))
    train(student, seed, epochs, training, training.windows if arm == "marked" else training.told)
    sides = {arm: validation.told} | ({f"{arm}, elsewhere": validation.elsewhere} if arm in TOLD else {})
    if arm == "marked":
        sides = {arm: torch.full_like(validation.told, torch.nan)}
    found = {side: score(student, validation, boxes) for side, boxes in sides.items()}
    hits = {}
    if arm in FINDING:
        hits = count_hits(found[arm][1], training.cells, validation.cells)
    return Scored({side: logits for side, (logits, _) in found.items()}, hits)


def count_hits(chosen: Tensor, before: Tensor, cells: Tensor) -> dict[str, tuple[float, float]]:
    """By finding: how many of the marks the chosen cell lies in, and the cell that was marked most often before.

    Args:
        chosen: (N, F) cells.
        before: (F, M, CELLS^2) marked cells of the training images.
        cells: (F, N, CELLS^2) marked cells.
    """
    found = {}
    for number, finding in enumerate(FINDINGS):
        having = cells[number].any(1)
        marked = cells[number, having]
        own = marked.gather(1, chosen[having, number, None]).float().mean()
        found[finding] = float(own), float(marked[:, before[number].sum(0).argmax()].float().mean())
    return found


def train(student: Student, seed: int, epochs: int, split: Split, boxes: Tensor) -> None:
    """AdamW by a cosine schedule, clipped as in mxa train; which box an image shows depends on seed, epoch and row."""
    steps = len(split.table) // BATCH
    target, mask = torch.from_numpy(split.table.target), torch.from_numpy(split.table.mask)
    optimizer = torch.optim.AdamW(student.parameters(), LR, weight_decay=0.025, fused=True)
    schedule = CosineLRScheduler(
        optimizer,
        t_initial=epochs * steps,
        lr_min=LR / 100,
        warmup_t=steps // 2,
        warmup_lr_init=LR / 1000,
        t_in_epochs=False,
    )
    # The last two are the head; of two networks the second one's, or the region's.
    clip = AdaptiveClip(list(student.parameters())[:-2], 0.02)
    sampler = EpochSampler(len(split.table), shuffle=True, seed=seed, step=BATCH)
    student.train()
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        shown = torch.from_numpy(np.random.default_rng((seed, epoch)).integers(len(FINDINGS), size=len(split.table)))
        rows = torch.tensor([row for _, row in sampler]).view(-1, BATCH)
        for step, batch in enumerate(rows):
            logits, cells = student(scaled(split, batch), boxes[shown[batch], batch], shown[batch])
            loss = masked_bce_with_logits(logits, target[batch], mask[batch])
            if student.finder is not None:
                loss = loss + finding_loss(cells, split.cells[:, batch].transpose(0, 1))
            optimizer.zero_grad()
            loss.backward()
            clip()
            optimizer.step()
            schedule.step_update(epoch * steps + step + 1)


def finding_loss(scores: Tensor, cells: Tensor) -> Tensor:
    """Cross-entropy of (B, F, CELLS^2) scores with the marked cells, as likely each; 0 where nothing is marked."""
    number = cells.sum(2)
    wanted = cells / number.clamp(min=1)[..., None]
    return -(wanted * scores.log_softmax(2)).sum() / (number > 0).sum().clamp(min=1)


def scaled(split: Split, rows: Tensor) -> Tensor:
    """Pictures (B, 1, S, S) as the network sees them."""
    return Preprocess(size=SIZE).scale(split.pixels[rows].unsqueeze(1).float())


@torch.no_grad()
def score(student: Student, split: Split, boxes: Tensor) -> tuple[npt.NDArray[np.float64], Tensor]:
    """(N, F) logits and chosen cells, each finding's with its own box shown."""
    student.eval()
    columns = [split.table.labels.index(finding) for finding in FINDINGS]
    logits = np.empty((len(split.table), len(FINDINGS)))
    chosen = torch.full(logits.shape, -1)
    for rows in torch.arange(len(split.table)).split(256):
        pictures = scaled(split, rows)
        for number, column in enumerate(columns):
            shown = torch.full((len(rows),), number)
            found, cells = student(pictures, boxes[number, rows], shown)
            logits[rows, number] = found[:, column].double().numpy()
            if student.finder is not None:
                chosen[rows, number] = cells[:, number].argmax(1)
    return logits, chosen


def summarise(scores: dict[tuple[str, int], Scored], table: Table, seeds: Sequence[int], drawn: int) -> dict[str, Any]:
    """By arm: AUROC of each finding and their mean, per seed, and the mean difference from plain with its interval."""
    columns = [table.labels.index(finding) for finding in FINDINGS]
    target, mask = table.target[:, columns], table.mask[:, columns]
    draws = Draws(table.frame["patient"].astype(str).tolist(), replicates=drawn)
    sides = dict.fromkeys(side for found in scores.values() for side in found.logits)
    found = {
        side: [draws.auroc(scores[side.split(",")[0], seed].logits[side], target, mask) for seed in seeds]
        for side in sides
    }
    summary = {side: _arm(ones, found.get("plain") if side != "plain" else None) for side, ones in found.items()}
    for (arm, _), one in scores.items():
        if one.hits:
            summary[arm].setdefault("hits", []).append(
                {name: np.round(two, 4).tolist() for name, two in one.hits.items()}
            )
    return summary


def _arm(ones: Sequence[Bootstrap], plain: Sequence[Bootstrap] | None) -> dict[str, Any]:
    areas = np.stack([one.estimate for one in ones])
    found: dict[str, Any] = {
        "auroc": {finding: areas[:, number].round(4).tolist() for number, finding in enumerate(FINDINGS)},
        "mean": areas.mean(1).round(4).tolist(),
    }
    if plain is not None:
        difference = mean_over_runs([one.minus(other).macro() for one, other in zip(ones, plain, strict=True)])
        interval = difference.interval()
        assert interval is not None
        found["minus plain"] = interval.to_dict() | {"p": difference.p_value()}
    return found


if __name__ == "__main__":
    main()
