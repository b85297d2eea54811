"""The paper's Tables 3, 4 and 5 from our runs, the published numbers beside them, and what changed between cells."""

from collections.abc import Sequence

import numpy as np

from mxa.evaluation.intervals import Interval
from mxa.evaluation.metrics import FloatArray
from mxa.evaluation.tables import Cell as TableCell
from mxa.evaluation.tables import Table
from mxa.reproduce.changes import Change
from mxa.reproduce.config import ReproduceConfig
from mxa.reproduce.gain import Gain
from mxa.reproduce.published import PUBLISHED, Published
from mxa.reproduce.summary import CellSummary, Summary

SPREAD = "mean ± standard deviation over the seeds"
NONE = "–"


def overall(config: ReproduceConfig, summary: Summary) -> Table:
    """Table 3: the first cell (baseline) and the last (proposed)."""
    header = ("Model", "Accuracy", "Loss", "F1 (micro)", "AUROC (micro)", "AUROC (macro)")
    published = ("Paper (CheXpert): accuracy", "loss", "F1", "AUROC")
    rows = []
    for key in dict.fromkeys((next(iter(config.cells)), list(config.cells)[-1])):
        cell, paper = summary.cells[key], _published(config, key)
        own = (spread(cell.values(name)) for name in ("accuracy", "loss", "f1_micro", "auroc_micro", "auroc_macro"))
        quoted = (quote(value) for value in (paper.accuracy, paper.loss, paper.f1, paper.auroc))
        rows.append((cell.title, *own, *quoted))
    return Table((*header, *published), tuple(rows), f"Table 3. {SPREAD}; accuracy and F1 at a probability above 0.5.")


def ablation(config: ReproduceConfig, summary: Summary) -> Table:
    """Table 4: every cell, and what its change brings; a row more for each further comparison."""
    header = (
        "Configuration",
        "Loss",
        "AUROC (micro)",
        "AUROC (macro)",
        "Against",
        "Change of micro AUROC",
        "micro, seeds too",
        "Change of macro AUROC",
        "macro, seeds too",
        "Parameters",
        "MFLOP per image",
        "Images/s in training",
        "Paper (CheXpert): loss",
        "micro AUROC",
    )
    rows = []
    for key, cell in summary.cells.items():
        paper = _published(config, key)
        own = (spread(cell.values(name)) for name in ("loss", "auroc_micro", "auroc_macro"))
        cost = (cell.parameters, round(cell.flop / 1e6), round(cell.images_per_s))
        rest = (*cost, quote(paper.ablation_loss), quote(paper.ablation_auroc))
        gains = [_gain(cell, summary.cells[other]) for other in config.compared_with(key)]
        gain, *further = gains or [(NONE,) * 5]
        rows.append((cell.title, *own, *gain, *rest))
        rows += [(cell.title, *(NONE,) * 3, *one, *(NONE,) * len(rest)) for one in further]
    caption = (
        f"Table 4. {SPREAD}. Changes: mean over the seeds of the paired difference, with its 95% interval over "
        f"patients (bootstrap, {config.replicates} replicates, BCa), which is about these very runs; and over patients "
        f"and seeds, which is about training again. Macro over {_over(summary)}."
    )
    return Table(header, tuple(rows), caption)


def _gain(cell: CellSummary, other: CellSummary) -> tuple[TableCell, ...]:
    gains = cell.gains(other)
    return (other.title, *_both(gains.micro), *_both(gains.macro))


def by_seed(config: ReproduceConfig, summary: Summary) -> Table:
    """The paired differences, one seed at a time: does a change help every time?"""
    rows: list[tuple[TableCell, ...]] = []
    for key, cell in summary.cells.items():
        for other in (summary.cells[one] for one in config.compared_with(key)):
            for seed, one, two in zip(config.seeds, cell.areas, other.areas, strict=True):
                gain = one.minus(two)
                shown = (signed(gain.micro.interval()), signed(gain.macro.interval()))
                rows.append((cell.title, other.title, str(seed), *shown))
    header = ("Configuration", "Against", "Seed", "Change of micro AUROC", "Change of macro AUROC")
    return Table(header, tuple(rows), "Paired differences of single runs, with 95% intervals over patients.")


def by_group(config: ReproduceConfig, summary: Summary) -> Table:
    """The mean AUROC over the findings of each group, and what each cell's change brings to it."""
    rows: list[tuple[TableCell, ...]] = []
    for name, findings in config.groups.items():
        columns = [summary.labels.index(finding) for finding in findings]
        for key, cell in summary.cells.items():
            values = np.array([float(one.group(columns).estimate[0]) for one in cell.areas])
            gains = [_group_gain(cell, summary.cells[other], columns) for other in config.compared_with(key)]
            own, *further = gains or [(NONE,) * 5]
            rows += [(name, cell.title, spread(values), *own), *((name, cell.title, NONE, *one) for one in further)]
    header = ("Group", "Configuration", "AUROC", "Against", "Change", "p", "Change, seeds too", "p, seeds too")
    named = "; ".join(f"{name}: {', '.join(findings)}" for name, findings in config.groups.items())
    caption = (
        f"Mean AUROC over groups of findings ({named}); {SPREAD}. Changes as in Table 4, p two-sided, not corrected "
        "for looking several times."
    )
    return Table(header, tuple(rows), caption)


def _group_gain(cell: CellSummary, other: CellSummary, columns: Sequence[int]) -> tuple[TableCell, ...]:
    found = cell.gains(other).group(columns)
    alone, both = _both(found)
    p, p_both = (NONE if one is None else one for one in (found.p_over_patients(), found.p_over_both()))
    return other.title, alone, p, both, p_both


def per_finding(config: ReproduceConfig, summary: Summary) -> Table:
    """Table 5: AUROC per finding and cell."""
    cells = summary.cells
    quoted = [key for key in cells if config.cells[key].published]
    titles = (f"Paper (CheXpert): {cells[key].title}" for key in quoted)
    header = ("Finding", "Positives", "Negatives", *(cell.title for cell in cells.values()), *titles)
    rows = []
    counts = next(iter(cells.values())).runs[0]["findings"]
    for name, code in zip(summary.labels, summary.labels.codes, strict=True):
        own = (_area(cell, name, counts[name]["reason"]) for cell in cells.values())
        paper = (quote(_published(config, key).findings.get(code)) for key in quoted)
        rows.append((f"{name} ({code})", counts[name]["positives"], counts[name]["negatives"], *own, *paper))
    return Table(header, tuple(rows), f"Table 5. AUROC; {SPREAD}.")


def what_changed(config: ReproduceConfig, found: list[Change]) -> Table:
    """One row per option that differs between two compared cells, from the runs' stored configurations."""
    rows: list[tuple[TableCell, ...]] = []
    for change in found:
        title = config.title(change.cell)
        if not change.versus:
            rows.append((title, "base", NONE, NONE, NONE, NONE))
            continue
        rest = "nothing" if not change.unexpected else "; ".join(change.unexpected)
        for name, (there, here) in change.differs.items():
            rows.append((title, config.title(change.versus), name, _plain(there), _plain(here), rest))
    header = ("Cell", "Against", "Option that differs", "There", "Here", "What else differs")
    caption = (
        "Read from the configurations, data descriptions and environments that the runs have stored: same data and "
        "splits, same seeds, same software, same machine where nothing else is named."
    )
    return Table(header, tuple(rows), caption)


def spread(values: FloatArray) -> TableCell:
    """Mean ± standard deviation; a single seed has no spread."""
    if np.isnan(values).any():
        return f"undefined in {int(np.isnan(values).sum())} of {len(values)} seeds"
    if len(values) < 2:
        return float(values[0])
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def signed(interval: Interval | None) -> str:
    """A difference with its interval."""
    return "undefined" if interval is None else interval.signed()


def _both(gain: Gain) -> tuple[str, str]:
    """Over patients, and over patients and seeds."""
    return signed(gain.over_patients()), signed(gain.over_both()) if len(gain.runs) > 1 else "one seed"


def quote(value: float | None) -> TableCell:
    """A published number, or a dash."""
    return NONE if value is None else value


def _published(config: ReproduceConfig, key: str) -> Published:
    name = config.cells[key].published
    return PUBLISHED[name] if name else Published()


def _area(cell: CellSummary, finding: str, reason: str | None) -> TableCell:
    return reason if reason is not None else spread(cell.values("auroc", finding))


def _over(summary: Summary) -> str:
    over = next(iter(summary.cells.values())).runs[0]["auroc_macro_over"]
    return f"{len(over)} of {len(summary.labels)} findings"


def _plain(value: object) -> str:
    return str(value) if value not in ("", None, {}, []) else "(none)"
