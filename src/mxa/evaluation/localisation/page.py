"""A localisation on disk: its own files, and its section of the page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mxa.evaluation.figures import Chart
from mxa.evaluation.files import write_charts, write_json, write_text
from mxa.evaluation.localisation.located import UNION
from mxa.evaluation.localisation.report import TITLES, figure, markdown, notes, rows, tables, to_dict
from mxa.evaluation.localisation.scores import BEST, MAP, SHUFFLED, Localisation
from mxa.evaluation.localisation.summary import MACRO, Mean
from mxa.evaluation.report import Picture, Section
from mxa.evaluation.tables import Cell, Table, to_csv

NUMBERS, ROWS, TABLES = "localisation.json", "localisation.csv", "localisation.md"
WRITTEN = (NUMBERS, ROWS, TABLES, "localisation.png")
"""What :func:`write_localisation` writes."""
HIT = (
    "A hit: the centre of the box, or the highest point of the map, lies in the marked region; within the tolerance: "
    "at most 15/224 of the picture's width beside it. A map's IoU is that of its part of half its maximum or more."
)
BASELINES = (
    "Baselines never looked at the image: the whole image, and what the training marks teach (the centred box of the "
    "best size, the mean box, the pixel that is most often marked; of all findings together or per finding). Shuffled: "
    "the model's own boxes and maps with the marks of other patients who have the same finding."
)
INFORMATIVE = "Only what beats every fair baseline is informative: the intervals of the differences lie above 0."
MEAN = "Mean of the findings (macro)"
_BOXES = ("iou", "whole image"), ("iou", "centred box")
_COMPARED = {BEST: _BOXES, UNION: _BOXES, MAP: (("hit", MAP + SHUFFLED), ("hit", "most marked pixel per finding"))}
"""Measure and fair baseline of a row, without and with training marks."""


def write_localisation(
    out: Path, found: Localisation, remarks: Sequence[str], provenance: Mapping[str, str]
) -> Section:
    """Write ``localisation.json``, ``.csv``, ``.md`` and ``.png``.

    Args:
        out: an existing folder.
        found: what to write.
        remarks: what a reader must know of marks and model before the numbers, in sentences.
        provenance: where the marks come from, by name.

    Returns:
        The section for ``report.html``.

    Raises:
        DataError: a file cannot be written.
    """
    said = [*remarks, *notes(found)]
    drawn = Chart.of(figure(found))
    write_json(out / NUMBERS, to_dict(found) | {"notes": said, "provenance": dict(provenance)})
    write_text(out / ROWS, to_csv(rows(found)))
    write_text(out / TABLES, "\n\n".join([*remarks, markdown(found)]))
    write_charts(out, {"localisation": drawn})
    every = tables(found)
    shown = (
        _explained(every["localisation-all-pooled"], HIT),
        _explained(_of_rows(every["localisation-all-differences"], _main_rows(found)), INFORMATIVE),
        per_finding(found),
    )
    closing = f"{TABLES} has all differences, and the same for small and large regions and images with one finding."
    return Section("Localisation", (*said, Picture(drawn, f"{HIT} {BASELINES} {INFORMATIVE}"), *shown, closing))


def per_finding(found: Localisation) -> Table:
    """One row per finding, and their mean: the map's hits and the boxes' IoU, and what they are beyond a fair baseline.

    The boxes are those of the best stage or, where none was chosen, their union. Without training marks the baselines
    are the shuffled pairing and the whole image.
    """
    columns = [_COMPARED[row][found.trained is not None] for row in _main_rows(found)]
    one = found.selections["all"]
    header = ["Finding", "Cases"]
    for row, (measure, baseline) in zip(_main_rows(found), columns, strict=True):
        header += [f"{_name(row)}, {TITLES[measure]}", f"Minus {baseline}"]
    lines = []
    for finding in (*found.findings, MACRO):
        first = one.means[found.model[0]][finding]
        cells: list[Cell] = [MEAN if finding == MACRO else finding, max(mean.cases for mean in first.values())]
        for row, (measure, baseline) in zip(_main_rows(found), columns, strict=True):
            cells.append(_cell(one.means[row][finding][measure]))
            cells.append(_cell(one.differences[row][baseline][finding][measure], signed=True))
        lines.append(tuple(cells))
    return Table(tuple(header), tuple(lines), f"Each finding, all cases. {INFORMATIVE}")


def _main_rows(found: Localisation) -> list[str]:
    """The row that speaks for the boxes, and the map's."""
    return [row for row in (UNION if found.best_stage is None else BEST, MAP) if row in found.model]


def _name(row: str) -> str:
    return row[:1].upper() + row[1:]


def _of_rows(table: Table, names: Sequence[str]) -> Table:
    wanted = {_name(row) for row in names}
    return replace(table, rows=tuple(row for row in table.rows if row[0] in wanted))


def _cell(mean: Mean, *, signed: bool = False) -> str:
    if mean.interval is not None:
        return mean.interval.signed() if signed else str(mean.interval)
    return f"{mean.value:.3f} ({mean.reason})" if mean.value is not None else mean.reason or "undefined"


def _explained(table: Table, *more: str) -> Table:
    return replace(table, caption=" ".join((table.caption, *more)))
