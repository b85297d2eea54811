"""The finished grid as a page, figures, and the same numbers as JSON, CSV, Markdown and LaTeX."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mxa.errors import ConfigError, DataError
from mxa.evaluation import figures
from mxa.evaluation.figures import Chart
from mxa.evaluation.files import write_charts, write_json, write_tables
from mxa.evaluation.intervals import Interval
from mxa.evaluation.report import Picture, Section, write_page
from mxa.evaluation.tables import Table
from mxa.explain.regions import shared_finding_figure
from mxa.models.artifact import load
from mxa.reproduce import tables
from mxa.reproduce.changes import Change, changes
from mxa.reproduce.config import ReproduceConfig
from mxa.reproduce.gain import Gain
from mxa.reproduce.published import CAVEAT, PUBLISHED
from mxa.reproduce.summary import FIGURES, Gains, Summary, over_seeds, summarise
from mxa.training.provenance import environment


def write_grid_report(config: ReproduceConfig) -> Path:
    """Summarise the finished grid in the split's folder: ``report.html``, ``results.json``, ``tables*``, and figures.

    Returns:
        The page.

    Raises:
        DataError: a run's files cannot be read, or results cannot be written.
    """
    summary, found = summarise(config), changes(config)
    shown = {
        "table3": tables.overall(config, summary),
        "table4": tables.ablation(config, summary),
        "table4-by-seed": tables.by_seed(config, summary),
        "table5": tables.per_finding(config, summary),
        "what-changed": tables.what_changed(config, found),
    }
    if config.groups:
        shown["groups"] = tables.by_group(config, summary)
    drawn = {name: Chart.of(figure) for name, figure in _figures(config, summary).items()}
    regions = _regions(config, summary)
    if isinstance(regions, Chart):
        drawn["figure2"] = regions
    folder = config.report_folder
    folder.mkdir(exist_ok=True)
    write_tables(folder, shown)
    write_charts(folder, drawn)
    write_json(folder / "results.json", _numbers(config, summary, found))
    page = folder / "report.html"
    write_page(
        page, "mxa reproduce", _sections(config, summary, shown, drawn, regions, found), _provenance(config, summary)
    )
    return page


def _figures(config: ReproduceConfig, summary: Summary) -> dict[str, Figure]:
    """Figures 3 and 4, and the changes by finding. The paper's values do not belong beside those of drawn pictures."""
    cells = list(summary.cells.values())
    panels: dict[str, dict[str, Sequence[float]]] = {
        f"Seed {seed}": {cell.title: cell.epochs[i] for cell in cells} for i, seed in enumerate(config.seeds)
    }
    if len(config.seeds) > 1:
        panels["All runs together"] = {cell.title: [v for run in cell.epochs for v in run] for cell in cells}
    means = {cell.title: over_seeds(cell.values("auroc_micro")) for cell in cells}
    published = {
        summary.cells[key].title: area
        for key, one in config.cells.items()
        if one.published and not config.phantom and (area := PUBLISHED[one.published].ablation_auroc) is not None
    }
    return {
        "figure3": figures.box_figure(panels, "Validation AUROC (micro), one value per epoch"),
        "figure4": figures.interval_bars(
            {title: mean for title, mean in means.items() if mean is not None}, "Micro AUROC", published
        ),
        "changes": _gains(config, summary),
    }


def _gains(config: ReproduceConfig, summary: Summary) -> Figure:
    """The paired change of each finding's AUROC, and of the mean, for every cell."""
    several = len(config.seeds) > 1
    groups: dict[str, list[figures.ForestRow]] = {}
    for key, cell in summary.cells.items():
        for versus in config.compared_with(key):
            gains = cell.gains(summary.cells[versus])
            found = {
                "All labels pooled (micro)": gains.micro,
                "Mean of the findings (macro)": gains.macro,
                **{name: gains.finding(j) for j, name in enumerate(summary.labels)},
            }
            rows = [_row(name, one.over_both() if several else one.over_patients()) for name, one in found.items()]
            groups[f"{cell.title} against {summary.cells[versus].title}"] = rows
    if not groups:
        groups[""] = [figures.ForestRow("no cell is compared with another", None, "–")]
    return figures.forest_figure(groups, "Change of AUROC, mean over the seeds", 0.0)


def _row(name: str, change: Interval | None) -> figures.ForestRow:
    return figures.ForestRow(name, change, "" if change else "undefined")


def _regions(config: ReproduceConfig, summary: Summary) -> Chart | str:
    """Figure 2, or the reason why there is none: a model without MXA, or nobody with the finding."""
    proposed = load(Path(config.run(list(config.cells)[-1], config.seeds[0]).out) / "model")
    try:
        return Chart.of(shared_finding_figure(proposed, summary.table, config.shown))
    except (ConfigError, DataError) as error:
        return f"There is no Figure 2: {error}."


def _sections(
    config: ReproduceConfig,
    summary: Summary,
    shown: Mapping[str, Table],
    drawn: Mapping[str, Chart],
    regions: Chart | str,
    found: list[Change],
) -> list[Section]:
    strange = [change for change in found if change.unexpected]
    verdict = (
        "Each cell differs from the one that it is compared with in the named options alone."
        if not strange
        else "More than the named options differs, see the last column: "
        + ", ".join(dict.fromkeys(config.title(change.cell) for change in strange))
        + " cannot be compared fairly."
    )
    two: Picture | str = (
        regions
        if isinstance(regions, str)
        else Picture(
            regions,
            f"Figure 2. Radiographs with {config.shown}; boxes of the last MXA block of each stage, "
            f"{config.title(list(config.cells)[-1])}, seed {config.seeds[0]}; below them all their findings, in the "
            "codes of Table 1",
        )
    )
    over = "patients and seeds" if len(config.seeds) > 1 else "patients; there is one seed"
    return [
        Section("Ablation", (shown["table4"], _scored(config, summary), verdict)),
        Section("Baseline and proposed", (shown["table3"], *_caveats(config))),
        Section(
            "Change by finding",
            (Picture(drawn["changes"], f"Paired change of AUROC, mean over the seeds, 95% intervals over {over}"),),
        ),
        *([Section("Groups of findings", (shown["groups"],))] if "groups" in shown else []),
        Section("Per finding", (shown["table5"],)),
        Section("Seed by seed", (shown["table4-by-seed"],)),
        Section(
            "Over the epochs and seeds",
            (
                Picture(drawn["figure3"], "Figure 3. Validation micro AUROC of the raw weights, one value per epoch"),
                Picture(
                    drawn["figure4"],
                    "Figure 4. Micro AUROC on the scored split: mean over the seeds, 95% interval of the mean (t; the "
                    "paper shows plus and minus two standard deviations)",
                ),
            ),
        ),
        Section("Where the MXA blocks look", (two,)),
        Section("What changed between cells", (shown["what-changed"], verdict)),
    ]


def _caveats(config: ReproduceConfig) -> list[str]:
    if not config.phantom:
        return [CAVEAT]
    return [CAVEAT, "The runs here are of drawn phantom radiographs: their values cannot be compared with the paper's."]


def _scored(config: ReproduceConfig, summary: Summary) -> str:
    chosen = (
        "The epoch and the weights (raw or averaged) were chosen on the validation split; the test split chose nothing."
        if config.split == "test"
        else "The same split chose the epoch and the weights, so all values are optimistic, those of every cell alike."
    )
    patients = summary.table.frame["patient"].nunique()
    return f"Scored: the {config.split} split, {len(summary.table)} images of {patients} patients. {chosen}"


def _numbers(config: ReproduceConfig, summary: Summary, found: list[Change]) -> dict[str, Any]:
    cells = {}
    for key, cell in summary.cells.items():
        versus, also = config.cells[key].versus, config.cells[key].also
        cells[key] = {
            "title": cell.title,
            "seeds": list(config.seeds),
            "runs": list(cell.runs),
            "mean": {name: _interval(over_seeds(cell.values(name))) for name in FIGURES},
            "parameters": cell.parameters,
            "flop_per_image": cell.flop,
            "images_per_s": cell.images_per_s,
            "against": versus or None,
            "change": _change(cell.gains(summary.cells[versus]), config, summary) if versus else None,
            "also": {other: _change(cell.gains(summary.cells[other]), config, summary) for other in also},
            "published": config.cells[key].published or None,
        }
    checked = [
        {"cell": c.cell, "against": c.versus, "options": list(c.differs), "unexpected": list(c.unexpected)}
        for c in found
    ]
    return {"split": config.split, "images": len(summary.table), "cells": cells, "what_changed": checked}


def _change(gains: Gains, config: ReproduceConfig, summary: Summary) -> dict[str, Any]:
    columns = {name: [summary.labels.index(one) for one in findings] for name, findings in config.groups.items()}
    return {
        "groups": {name: _with_p(gains.group(picked)) for name, picked in columns.items()},
        "auroc_micro": _with_p(gains.micro),
        "auroc_macro": _with_p(gains.macro),
        "findings": {name: _with_p(gains.finding(j)) for j, name in enumerate(summary.labels)},
    }


def _with_p(gain: Gain) -> dict[str, Any] | None:
    interval, both = gain.over_patients(), gain.over_both()
    if interval is None:
        return None
    with_seeds = None if both is None else both.to_dict() | {"p": gain.p_over_both()}
    return interval.to_dict() | {"p": gain.p_over_patients(), "seeds_too": with_seeds}


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    return None if interval is None else interval.to_dict()


def _provenance(config: ReproduceConfig, summary: Summary) -> dict[str, str]:
    here = environment()
    return {
        "command": shlex.join(here["command"]),
        "configuration": f"{config.folder / 'reproduce.yaml'}; each run's own in cells/NAME/seed-N/config.yaml",
        "seeds": ", ".join(map(str, config.seeds)),
        "labels": f"label table {summary.table.fingerprint()[:16]} ({config.split} split)",
        "versions": f"mxa {here['mxa']}, "
        + ", ".join(f"{name} {version}" for name, version in here["packages"].items()),
        "machine": f"{here['platform']}, {here['processors']} processors, "
        f"accelerators: {', '.join(here['accelerators']) or 'none'}",
    }
