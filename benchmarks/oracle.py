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

Told arms are also scored with all boxes drawn from other images ("elsewhere"): what they owe to the right place.
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
}
TOLD = ("map", "stem", "image", "crop", "late")
SIZE, LOOK, EMBEDDED = 128, 64, 64
"""Sides of the picture and of the second look in pixels; channels of the patch embedding."""
LEAST = 0.25
"""A told box is at least this wide and high: two pixels of the first stage's map."""
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
    """

    table: Table
    pixels: Tensor
    told: Tensor
    elsewhere: Tensor


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
        self.look = build_model(name, labels, LOOK) if arm in ("late", "learnt", "whole") else None
        self.region = MomentRegion(EMBEDDED) if arm == "learnt" else Whole() if arm == "whole" else None
        if arm in TOLD:
            for module in self.network.modules():
                if isinstance(module, Mxa):
                    module.region = self.told
        self.crop: PictureCrop | None = None
        if arm == "image":
            assert isinstance(self.network, MxaEfficientVit)
            mixer = self.network.stages[0].blocks[0].mixer
            mixer.mxa = self.crop = PictureCrop(mixer.mxa, self.network.patch_embed)

    def forward(self, pictures: Tensor, boxes: Tensor) -> Tensor:
        """Scaled pictures (B, 1, S, S) and boxes (B, 4) -> logits (B, L)."""
        self.told.boxes = boxes
        if self.crop is not None:
            self.crop.pictures = pictures
        logits: Tensor = self.network(roi_pool(pictures, boxes) if self.sees_crop else pictures)
        if self.look is not None:
            cut = boxes if self.region is None else self.region(self.network.get_submodule("patch_embed")(pictures))
            logits = logits + self.look(roi_pool(pictures, cut, (LOOK, LOOK)))
        return logits


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
    return Split(table, pixels, torch.from_numpy(told), torch.from_numpy(elsewhere))


def own_boxes(root: Path, table: Table) -> FloatArray:
    """(F, N, 4) boxes around the whole of an image's mark of each finding, NaN where it has none."""
    marks = read_marks(root, table).by_path()
    own = np.full((len(FINDINGS), len(table), 4), np.nan, dtype=np.float32)
    for row, path in enumerate(table.frame["path"]):
        for number, finding in enumerate(FINDINGS):
            mark = marks.get(path, {}).get(finding)
            if mark is not None:
                low, high = mark.boxes[:, :2].min(0), mark.boxes[:, 2:].max(0)
                own[number, row] = enlarged(low, high)
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


def train_and_score(
    arm: str, seed: int, epochs: int, training: Split, validation: Split
) -> dict[str, npt.NDArray[np.float64]]:
    """Logits (N, F) of the validation images after the last epoch, told and, for told arms, told elsewhere."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    student = Student(arm, len(training.table.labels))
    train(student, seed, epochs, training)
    sides = {arm: validation.told} | ({f"{arm}, elsewhere": validation.elsewhere} if arm in TOLD else {})
    return {side: score(student, validation, boxes) for side, boxes in sides.items()}


def train(student: Student, seed: int, epochs: int, split: Split) -> None:
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
            logits = student(scaled(split, batch), split.told[shown[batch], batch])
            loss = masked_bce_with_logits(logits, target[batch], mask[batch])
            optimizer.zero_grad()
            loss.backward()
            clip()
            optimizer.step()
            schedule.step_update(epoch * steps + step + 1)


def scaled(split: Split, rows: Tensor) -> Tensor:
    """Pictures (B, 1, S, S) as the network sees them."""
    return Preprocess(size=SIZE).scale(split.pixels[rows].unsqueeze(1).float())


@torch.no_grad()
def score(student: Student, split: Split, boxes: Tensor) -> npt.NDArray[np.float64]:
    """(N, F) logits, each finding's with its own box shown."""
    student.eval()
    columns = [split.table.labels.index(finding) for finding in FINDINGS]
    logits = np.empty((len(split.table), len(FINDINGS)))
    for rows in torch.arange(len(split.table)).split(256):
        pictures = scaled(split, rows)
        for number, column in enumerate(columns):
            logits[rows, number] = student(pictures, boxes[number, rows])[:, column].double().numpy()
    return logits


def summarise(
    scores: dict[tuple[str, int], dict[str, npt.NDArray[np.float64]]], table: Table, seeds: Sequence[int], drawn: int
) -> dict[str, Any]:
    """By arm: AUROC of each finding and their mean, per seed, and the mean difference from plain with its interval."""
    columns = [table.labels.index(finding) for finding in FINDINGS]
    target, mask = table.target[:, columns], table.mask[:, columns]
    draws = Draws(table.frame["patient"].astype(str).tolist(), replicates=drawn)
    sides = dict.fromkeys(side for found in scores.values() for side in found)
    found = {
        side: [draws.auroc(scores[side.split(",")[0], seed][side], target, mask) for seed in seeds] for side in sides
    }
    return {side: _arm(ones, found.get("plain") if side != "plain" else None) for side, ones in found.items()}


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
