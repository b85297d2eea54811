"""A localisation as JSON, as tables (for CSV and Markdown), and as a figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mxa.evaluation.figures import ForestRow, forest_figure
from mxa.evaluation.localisation.located import UNION
from mxa.evaluation.localisation.measures import MEASURES
from mxa.evaluation.localisation.scores import BEST, MAP, SELECTIONS, SHUFFLED, Localisation, Means
from mxa.evaluation.localisation.summary import MACRO, POOLED, Mean
from mxa.evaluation.tables import Cell, Table, to_markdown

NONE = "–"
OWN, OTHERS, BASELINE = "the model", "with other patients' marks", "baseline"
"""What the dots of the figure are of."""
TITLES = {
    "iou": "IoU",
    "tight_iou": "IoU with the tight box",
    "hit": "Hit",
    "pointing": "Hit within the tolerance",
    "inside": "Share inside the region",
    "covered": "Share of the region covered",
}
_OVER = {POOLED: "All findings pooled", MACRO: "Mean of the findings (macro)"}


def to_dict(found: Localisation) -> dict[str, Any]:
    """Plain JSON types; the per-case scores are left out."""
    return {
        "findings": list(found.findings),
        "model": list(found.model),
        "baselines": list(found.baselines),
        "stages": dict(found.stages),
        "best_stage": found.best_stage,
        "trained": None if found.trained is None else found.trained.to_dict(),
        "empty_boxes": dict(found.empty_boxes),
        "flat_maps": None if found.flat_maps is None else dict(found.flat_maps),
        "grid": found.grid,
        "bootstrap": {"replicates": found.replicates, "seed": found.seed, "level": found.level},
        "selections": {
            name: {
                "cases": one.cases,
                "patients": one.patients,
                "means": {row: _means(means) for row, means in one.means.items()},
                "differences": {
                    row: {baseline: _means(means) for baseline, means in against.items()}
                    for row, against in one.differences.items()
                },
            }
            for name, one in found.selections.items()
        },
    }


def rows(found: Localisation) -> Table:
    """Every mean and every difference in a row of its own, for :func:`mxa.evaluation.tables.to_csv`.

    ``finding`` is a finding, "pooled" or "macro"; ``minus`` is the baseline of a difference and else empty; numbers are
    empty where there are none, and ``reason`` says why.
    """
    header = ("cases_are", "finding", "row", "minus", "measure", "value", "low", "high", "cases", "patients", "reason")
    lines = []
    for selection, one in found.selections.items():
        both = [(row, "", means) for row, means in one.means.items()]
        both += [(row, minus, of[minus]) for row, of in one.differences.items() for minus in of]
        for row, minus, means in both:
            for finding, by_measure in means.items():
                for measure, mean in by_measure.items():
                    lines.append((selection, finding, row, minus, measure, *_numbers(mean)))
    return Table(header, tuple(lines))


def tables(found: Localisation) -> dict[str, Table]:
    """A table for each group that has cases, by file name.

    ``localisation-all-pooled`` and so on: per selection of cases the findings pooled, their mean and the differences to
    the baselines (pooled); and for all cases each finding, ``localisation-all-1`` being the first.
    """
    result = {}
    for selection, one in found.selections.items():
        if not one.cases:
            continue
        overs = [(over, over) for over in (POOLED, MACRO)]
        if selection == "all":
            overs += [(str(j), finding) for j, finding in enumerate(found.findings, start=1)]
        for name, over in overs:
            result[f"localisation-{selection}-{name}"] = _table(found, selection, over)
        result[f"localisation-{selection}-differences"] = _differences(found, selection)
    return result


def markdown(found: Localisation) -> str:
    """All tables, the notes above them."""
    parts = [*notes(found), *(to_markdown(table).rstrip() for table in tables(found).values())]
    return "\n\n".join(parts) + "\n"


def notes(found: Localisation) -> list[str]:
    """What a reader must know before the numbers, in sentences."""
    said = [
        "A box or map is informative only if it beats the baselines. MXA boxes are one for all findings of an image: "
        "their fair baselines are those that do not know the finding; those per finding are for maps."
    ]
    if found.best_stage is not None:
        said.append(f"The best stage is {found.best_stage}; it must have been chosen on other patients than these.")
    if found.trained is None:
        said.append("No training marks were given, so there is no baseline that knows where findings usually are.")
    if empty := {name: n for name, n in found.empty_boxes.items() if n}:
        said.append(f"Empty boxes, which score 0: {_counts(empty)}.")
    if flat := {name: n for name, n in (found.flat_maps or {}).items() if n}:
        said.append(f"Maps that are constant or nowhere positive, which miss: {_counts(flat)}.")
    if without := [name for name, m in _first(found).items() if name not in _OVER and not any(_cases(m))]:
        said.append(f"Not scored: {', '.join(without)} (no case).")
    return said


def figure(found: Localisation, selection: str = "all") -> Figure:
    """Forest of the pooled IoU and hit of the model's rows and the baselines.

    Raises:
        ValueError: the selection is unknown or has no case.
    """
    if selection not in found.selections or not found.selections[selection].cases:
        known = ", ".join(name for name, one in found.selections.items() if one.cases)
        raise ValueError(f"there are no cases {selection!r} to show; choose from {known}")
    means = found.selections[selection].means
    groups = {
        TITLES[measure]: [
            _forest_row(found, row, means[row][POOLED][measure]) for row in _shown(found) if _has(means[row], measure)
        ]
        for measure in ("iou", "hit")
    }
    one = found.selections[selection]
    return forest_figure(groups, f"Mean over {one.cases} cases ({SELECTIONS[selection]})", None)


def _forest_row(found: Localisation, row: str, mean: Mean) -> ForestRow:
    """A shuffled row stands under the row that it is of."""
    series = BASELINE if row in found.baselines else OTHERS if row.endswith(SHUFFLED) else OWN
    note = "" if mean.interval else _undefined(mean)
    return ForestRow(_name(row.removesuffix(SHUFFLED)), mean.interval, note, series)


def _has(means: Means, measure: str) -> bool:
    return measure in means[POOLED]


def _table(found: Localisation, selection: str, over: str) -> Table:
    one = found.selections[selection]
    cells: list[tuple[Cell, ...]] = [
        (_name(row), *_measured(one.means[row][over]), _number_of_cases(one.means[row][over])) for row in _shown(found)
    ]
    caption = (
        f"{_OVER.get(over, over)}, {SELECTIONS[selection]}: {_cases_of(found, selection, over)}. {_intervals(found)}"
    )
    return Table(("", *(TITLES[name] for name in MEASURES), "Cases"), tuple(cells), caption)


def _differences(found: Localisation, selection: str) -> Table:
    one = found.selections[selection]
    cells: list[tuple[Cell, ...]] = []
    for row in _model(found):
        for baseline, means in one.differences[row].items():
            pooled = means[POOLED]
            cells.append((_name(row), _name(baseline), *_measured(pooled, signed=True), _number_of_cases(pooled)))
    caption = (
        f"Paired differences, the model's minus the baseline's, all findings pooled, {SELECTIONS[selection]}: "
        f"{_cases_of(found, selection, POOLED)}. {_intervals(found)}"
    )
    return Table(("", "Minus", *(TITLES[name] for name in MEASURES), "Cases"), tuple(cells), caption)


def _model(found: Localisation) -> list[str]:
    """The model's rows for people: blocks within a stage are left to the CSV file."""
    return [row for row in (*found.stages, BEST, UNION, MAP) if row in found.model]


def _shown(found: Localisation) -> list[str]:
    """The model's rows, each with its shuffled one, and the baselines."""
    shuffled = [row + SHUFFLED for row in _model(found)]
    return [*_model(found), *found.baselines, *shuffled]


def _name(row: str) -> str:
    return row[:1].upper() + row[1:]


def _measured(means: Mapping[str, Mean], *, signed: bool = False) -> Iterator[Cell]:
    for name in MEASURES:
        mean = means.get(name)
        if mean is None:
            yield NONE
        elif mean.interval is None:
            yield _undefined(mean)
        else:
            yield mean.interval.signed() if signed else str(mean.interval)


def _undefined(mean: Mean) -> str:
    return f"{mean.value:.3f} ({mean.reason})" if mean.value is not None else mean.reason or "undefined"


def _number_of_cases(means: Mapping[str, Mean]) -> int:
    return max(mean.cases for mean in means.values())


def _cases_of(found: Localisation, selection: str, over: str) -> str:
    means = found.selections[selection].means[found.model[0]][over]
    one = max(means.values(), key=lambda mean: mean.cases)
    text = f"{one.cases} cases of {one.patients} patients"
    return f"{text}, {len(one.over)} of {len(found.findings)} findings" if over == MACRO else text


def _intervals(found: Localisation) -> str:
    return (
        f"With {100 * found.level:g}% intervals over patients (bootstrap, BCa, {found.replicates} replicates; exact "
        "where a rate is 0 or 1, which the mean of the findings takes as it is)."
    )


def _first(found: Localisation) -> Means:
    return found.selections["all"].means[found.model[0]]


def _cases(means: Mapping[str, Mean]) -> Sequence[int]:
    return [mean.cases for mean in means.values()]


def _counts(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def _means(means: Means) -> dict[str, Any]:
    return {over: {name: mean.to_dict() for name, mean in by.items()} for over, by in means.items()}


def _numbers(mean: Mean) -> tuple[Cell, ...]:
    ends = ("", "") if mean.interval is None else (mean.interval.low, mean.interval.high)
    return ("" if mean.value is None else mean.value, *ends, mean.cases, mean.patients, mean.reason or "")
