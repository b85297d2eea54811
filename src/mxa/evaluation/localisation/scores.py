"""Score where a model looked against what is marked, and against baselines that never looked.

A row of the result is one kind of box, map or point, by name:

* each MXA block's box (``stages.0.blocks.0``); ``stage 1`` and so on, the last block's of each stage (``stage 1,
  region 2`` where it has several); ``best stage``, if it was chosen; ``union``, the smallest box around those of all
  blocks; ``map``, the class-activation map;
* the baselines of :mod:`mxa.evaluation.localisation.baselines`, and each of the model's rows with the marks of other
  patients' images that have the same finding (``union, shuffled``).

Every row of the model but single blocks has its paired difference to every baseline and to its own shuffled pairing, in
each measure that both have, over the cases that both have.

Intervals are of the marked cases given the model and what the baselines learnt. Those of a shuffled row draw the marks
anew and not the other patients' boxes, whose mean is taken as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mxa.evaluation.bootstrap import REPLICATES, Draws
from mxa.evaluation.intervals import require_level
from mxa.evaluation.localisation.baselines import (
    Pairs,
    Trained,
    baseline_boxes,
    baseline_points,
    matched_and_shuffled,
    pairs_of_boxes,
    pairs_of_maps,
)
from mxa.evaluation.localisation.geometry import areas, blocks
from mxa.evaluation.localisation.located import Located
from mxa.evaluation.localisation.measures import Regions, Scores, draw, score_boxes, score_points
from mxa.evaluation.localisation.summary import Mean, Scored, Summariser
from mxa.evaluation.metrics import BoolArray, FloatArray

BEST, MAP = "best stage", "map"
SHUFFLED = ", shuffled"
ALONE = "no other patient has the finding"
SMALL = 0.02
"""A region below this share of the picture is small."""
SELECTIONS = {
    "all": "all cases",
    "single": "images with a single marked finding",
    "small": f"regions below {SMALL:.0%} of the picture",
    "large": f"regions of {SMALL:.0%} of the picture and more",
}

Means = Mapping[str, Mapping[str, Mean]]
"""``pooled``, ``macro`` and each finding -> measure -> mean."""


@dataclass(frozen=True)
class Selection:
    """What a part of the cases gives.

    Attributes:
        cases: how many.
        patients: of how many.
        means: row -> means.
        differences: row of the model but single blocks -> baseline -> means of row minus baseline.
    """

    cases: int
    patients: int
    means: Mapping[str, Means]
    differences: Mapping[str, Mapping[str, Means]]


@dataclass(frozen=True, eq=False)
class Localisation:
    """What :func:`score` returns.

    Attributes:
        findings: those reported, in order.
        model: the model's rows, in order.
        baselines: the rows of the baselines that are common to them, in order.
        selections: by the names of :data:`SELECTIONS`.
        scores: per row and measure the N cases' values, NaN where undefined.
        stages: the last block of each stage, by ``stage 1`` and so on.
        best_stage: which of them was chosen, or None.
        trained: what the baselines learnt, or None.
        empty_boxes: per row of boxes, how many cases have an empty one, which scores 0.
        flat_maps: per finding, how many maps cannot point, which misses; None without maps.
        grid: side of the grid.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        level: of the intervals.
    """

    findings: tuple[str, ...]
    model: tuple[str, ...]
    baselines: tuple[str, ...]
    selections: Mapping[str, Selection]
    scores: Mapping[str, Mapping[str, FloatArray]]
    stages: Mapping[str, str]
    best_stage: str | None
    trained: Trained | None
    empty_boxes: Mapping[str, int]
    flat_maps: Mapping[str, int] | None
    grid: int
    replicates: int
    seed: int
    level: float


def choose_stage(located: Located) -> str:
    """Choose the stage whose last block's box has the best mean IoU with the marked regions, such as "stage 2".

    The best of several is flattered by the choice: choose on other patients (the validation marks) than are scored,
    and hand the choice to :func:`score`. Of equal ones the first counts.

    Raises:
        ValueError: there are no boxes.
    """
    if not located.stages:
        raise ValueError("without boxes there is no stage to choose")
    boxes = np.stack([located.boxes[block] for block in located.stages.values()], axis=1)
    mean = score_boxes(_regions(located), boxes)["iou"].mean(axis=0)
    return list(located.stages)[int(mean.argmax())]


def score(
    located: Located,
    trained: Trained | None = None,
    *,
    best_stage: str | None = None,
    findings: Sequence[str] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Localisation:
    """Score boxes and maps.

    Args:
        located: N cases.
        trained: what training marks teach the baselines; without it only the whole image and the shuffled pairing are.
        best_stage: a stage chosen on other data with :func:`choose_stage`; without it there is no such row.
        findings: those to report, in order, also without cases; None is those that have cases.
        replicates: of the bootstrap over patients.
        seed: of the bootstrap.
        level: of the intervals, in (0, 1).

    Raises:
        ValueError: the stage is none of the boxes', a case's finding is not to be reported, or level or replicates are
            impossible.
    """
    require_level(level)
    names = tuple(dict.fromkeys(located.findings if findings is None else findings))
    if unknown := sorted(set(located.findings) - set(names)):
        raise ValueError(f"there are cases of {', '.join(unknown)}, which findings does not name")
    if best_stage is not None and best_stage not in located.stages:
        raise ValueError(f"best_stage is {best_stage!r}; the boxes have {', '.join(located.stages) or 'no stage'}")
    regions = _regions(located)
    aliases = located.stages | ({} if best_stage is None else {BEST: located.stages[best_stage]})
    model, shuffled = _score_model(located, regions, aliases)
    baselines = _score_baselines(located, regions, trained)
    draws = Draws(located.patients, replicates=replicates, seed=seed)
    summariser = Summariser(draws, names, np.array(located.findings, dtype=object), level)
    rows = model | baselines | {name + SHUFFLED: one for name, one in shuffled.items()}
    boxes = _with_aliases(located.all_boxes(), aliases)
    against = {row: (*baselines, row + SHUFFLED) for row in model if row not in located.boxes}
    return Localisation(
        findings=names,
        model=tuple(model),
        baselines=tuple(baselines),
        selections={
            name: _summarise(summariser, kept, rows, against) for name, kept in _selections(located, regions).items()
        },
        scores={name: one.scores for name, one in rows.items()},
        stages=located.stages,
        best_stage=best_stage,
        trained=trained,
        empty_boxes={name: int((areas(corners) <= 0).sum()) for name, corners in boxes.items()},
        flat_maps=_flat_maps(located, names),
        grid=located.grid,
        replicates=replicates,
        seed=seed,
        level=level,
    )


def _regions(located: Located) -> Regions:
    return Regions.of(np.stack(located.regions))


def _score_model(
    located: Located, regions: Regions, aliases: Mapping[str, str]
) -> tuple[dict[str, Scored], dict[str, Scored]]:
    """The model's rows, and the same with others' marks."""
    boxes = located.all_boxes()
    own: dict[str, Scored] = {}
    shuffled: dict[str, Scored] = {}
    if boxes:
        each = np.stack(list(boxes.values()), axis=1)
        parts = _by_finding(located, lambda rows: pairs_of_boxes(regions.take(rows), each[rows]))
        for scored, part, missing in zip((own, shuffled), parts, ("", ALONE), strict=True):
            scored.update(_with_aliases(_rows(tuple(boxes), part, missing), aliases))
    if located.maps is not None and located.windows is not None:
        maps, windows = located.maps, located.windows
        parts = _by_finding(located, lambda rows: pairs_of_maps(regions.take(rows), maps[rows], windows[rows]))
        for scored, part, missing in zip((own, shuffled), parts, ("", ALONE), strict=True):
            scored.update(_rows((MAP,), part, missing))
    return own, shuffled


def _by_finding(
    located: Located, pairs: "Callable[[np.ndarray[tuple[int, ...], np.dtype[np.int64]]], Pairs]"
) -> tuple[Scores, Scores]:
    """Own and shuffled scores (N, B); shuffled are images of other patients with the same finding."""
    of, patients = np.array(located.findings, dtype=object), np.array(located.patients, dtype=object)
    whole: tuple[Scores, Scores] = ({}, {})
    for finding in dict.fromkeys(located.findings):
        rows = np.flatnonzero(of == finding)
        found = matched_and_shuffled(pairs(rows), patients[rows, None] != patients[None, rows])
        for into, part in zip(whole, found, strict=True):
            for name, values in part.items():
                into.setdefault(name, np.empty((len(located), values.shape[1])))[rows] = values
    return whole


def _rows(names: Sequence[str], scores: Scores, missing: str) -> dict[str, Scored]:
    return {
        row: Scored({name: values[:, b] for name, values in scores.items()}, missing) for b, row in enumerate(names)
    }


def _with_aliases(rows: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    return {**rows, **{alias: rows[name] for alias, name in aliases.items() if rows}}


def _score_baselines(located: Located, regions: Regions, trained: Trained | None) -> dict[str, Scored]:
    found = {
        name: _where_known(corners, regions, score_boxes)
        for name, corners in baseline_boxes(located.findings, trained).items()
    }
    return found | {
        name: _where_known(places, regions, score_points)
        for name, places in baseline_points(located.findings, trained).items()
    }


def _where_known(places: FloatArray, regions: Regions, scores: Callable[[Regions, FloatArray], Scores]) -> Scored:
    """Scores of one box or point per case, NaN where it is NaN."""
    rows = np.flatnonzero(~np.isnan(places).any(axis=1))
    found: Scores = {}
    for name, values in scores(regions.take(rows), places[rows, None]).items():
        found[name] = np.full(len(places), np.nan)
        found[name][rows] = values[:, 0]
    return Scored(found, "no training mark of the finding")


def _selections(located: Located, regions: Regions) -> dict[str, BoolArray]:
    small = regions.area < SMALL
    kept = (np.ones(len(located), dtype=bool), located.single, small, ~small)
    return dict(zip(SELECTIONS, kept, strict=True))


def _summarise(
    summariser: Summariser, kept: BoolArray, rows: Mapping[str, Scored], against: Mapping[str, Sequence[str]]
) -> Selection:
    """Rows that are one and the same (a stage and its last block) are summarised once."""
    known: dict[tuple[Scored, Scored | None], Means] = {}

    def means(one: Scored, other: Scored | None = None) -> Means:
        if (one, other) not in known:
            compared = one if other is None else one.minus(other)
            known[one, other] = summariser.means(compared, kept, difference=other is not None)
        return known[one, other]

    return Selection(
        int(kept.sum()),
        len(np.unique(summariser.draws.cluster[kept])),
        {name: means(one) for name, one in rows.items()},
        {row: {name: means(rows[row], rows[name]) for name in names} for row, names in against.items()},
    )


def _flat_maps(located: Located, findings: Sequence[str]) -> dict[str, int] | None:
    if located.maps is None or located.windows is None:
        return None
    maps, windows = located.maps, located.windows
    nowhere = np.concatenate([draw(maps[p], windows[p], located.grid).nowhere for p in blocks(len(located))])
    of = np.array(located.findings, dtype=object)
    return {finding: int(nowhere[of == finding].sum()) for finding in findings}
