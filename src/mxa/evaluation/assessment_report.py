"""An assessment on disk: a page, figures, and the same numbers as JSON, CSV, Markdown and LaTeX."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mxa.evaluation.assessment import Assessment
from mxa.evaluation.assessment_figures import draw
from mxa.evaluation.assessment_tables import tables
from mxa.evaluation.figures import Chart
from mxa.evaluation.files import write_charts, write_json, write_tables
from mxa.evaluation.report import Picture, Section, write_page
from mxa.evaluation.tables import Table

NUMBERS, PAGE = "metrics.json", "report.html"
CAPTIONS = {
    "auroc": "AUROC per finding with its interval over patients; the dashed line is chance",
    "roc": "ROC curve per finding; the band is the pointwise interval over patients",
    "pr": "Precision-recall curve per finding; the band is the pointwise interval over patients",
    "reliability": "Observed frequency against predicted probability, in bins of equal numbers of cases",
    "cooccurrence": "Row: cases that truly have this finding. Column: the share of them that truly have (left), or are "
    "predicted to have (right), that one; the right diagonal is sensitivity",
    "comparison": "Paired difference of AUROC with its interval over patients",
    "subgroups": "Mean AUROC in each subgroup",
    "subgroups-gaps": "Gap of each subgroup to all other cases",
    "strata": "Mean AUROC among the cases with and without a finding",
    "strata-gaps": "Gap between the cases with and without a finding",
}

WRITTEN = (NUMBERS, PAGE, "tables", "tables.md", "tables.tex", *(f"{name}.png" for name in CAPTIONS))
"""What :func:`write_assessment` may write."""


def write_assessment(
    out: Path,
    found: Assessment,
    title: str,
    notes: Sequence[str],
    provenance: Mapping[str, str],
    more: Sequence[Section] = (),
) -> None:
    """Write ``report.html``, ``metrics.json``, ``tables*`` and the figures as PNG.

    Args:
        out: an existing folder.
        found: what to write.
        title: of the page.
        notes: what a reader must know before the numbers, in sentences.
        provenance: what is needed to get the same numbers again, by name.
        more: sections of the page that follow the assessment's own.

    Raises:
        DataError: a file cannot be written.
    """
    shown = tables(found)
    drawn = {name: Chart.of(figure) for name, figure in draw(found).items()}
    write_tables(out, shown)
    write_charts(out, drawn)
    write_page(out / PAGE, title, [*_sections(found, shown, drawn, notes), *more], provenance)
    write_json(out / NUMBERS, numbers(found) | {"notes": list(notes), "provenance": dict(provenance)})


def numbers(found: Assessment) -> dict[str, Any]:
    """Everything as plain JSON types. Top level: the paper's figures, as :meth:`Evaluation.to_dict` gives them."""
    cases = found.cases
    return found.evaluation.to_dict() | {
        "model": found.name,
        "unit": cases.unit,
        "cases": len(cases),
        "patients": found.patients,
        "patients_known": cases.patients_known,
        "not_scored": dict(cases.not_scored),
        "options": asdict(found.options),
        "operating_point": found.operating_point,
        "measures": found.measures.to_dict(),
        "intervals": {
            "auroc": found.auroc.to_dict(),
            "auroc_micro": None if found.auroc_micro is None else found.auroc_micro.to_dict(),
            "auroc_micro_reason": found.auroc_micro_reason,
            "average_precision": found.average_precision.to_dict(),
            "sensitivity": found.sensitivity.to_dict(),
            "specificity": found.specificity.to_dict(),
            "auroc_delong": {name: None if one is None else one.to_dict() for name, one in found.delong.items()},
        },
        "operating_points": {name: one.to_dict() for name, one in found.at_points.items()},
        "calibration": {kind: one.to_dict() for kind, one in found.calibrations.items()},
        "tuning": found.tuning.to_dict(),
        "subgroups": [one.to_dict() for one in found.groups],
        "strata": [one.to_dict() for one in found.strata],
        "readers": {
            "points": {name: {k: asdict(p) for k, p in one.items()} for name, one in found.readers.items()},
            "under_curve": {name: list(pair) for name, pair in found.under.items()},
        },
        "comparison": None if found.comparison is None else found.comparison.to_dict(),
    }


def _sections(
    found: Assessment, shown: Mapping[str, Table], drawn: Mapping[str, Chart], notes: Sequence[str]
) -> list[Section]:
    """What limits the numbers, the table that matters, then what supports it."""
    parts = [Section("Results", (*notes, shown["results"]))]
    plan: list[tuple[str, Sequence[str]]] = [
        ("AUROC", ("auroc",)),
        ("Comparison", ("comparison",)),
        ("ROC curves", ("roc", "readers")),
        ("Precision and recall", ("pr",)),
        ("Decisions", ("operating-points", "thresholds", "measures")),
        ("Do the probabilities mean what they say?", ("calibration", "reliability")),
        ("Subgroups", ("subgroups", "subgroups-gaps", "subgroup-findings")),
        ("Hidden strata", ("strata", "strata-gaps", "strata-findings")),
        ("What is found together", ("cooccurrence",)),
    ]
    for title, names in plan:
        inside: list[Table | Picture] = []
        for name in names:
            inside += [shown[name]] if name in shown else []
            inside += [Picture(drawn[name], CAPTIONS[name])] if name in drawn else []
        if inside:
            parts.append(Section(title, tuple(inside)))
    return parts
