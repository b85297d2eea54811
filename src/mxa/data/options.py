"""Which data: the options that training, checking and evaluation share, and the reader that they choose."""

from dataclasses import dataclass, field
from typing import Any

from mxa.data.chexpert import read_chexpert
from mxa.data.generic import read_csv
from mxa.data.nih import read_nih
from mxa.data.problems import Problem
from mxa.data.table import Table
from mxa.errors import ConfigError
from mxa.labels import LabelPolicy, LabelSet, label_set

DATASETS = ("chexpert", "nih", "csv")


@dataclass(frozen=True)
class CsvOptions:
    """Columns of an arbitrary label CSV (``dataset: csv``); an empty name means that there is no such column."""

    file: str = ""
    """The CSV; its paths are relative to ``root``."""
    path: str = "path"
    """Column of the image paths."""
    patient: str = ""
    """Column of the patients. Without it every image counts as a patient of its own."""
    study: str = ""
    """Column of the studies."""
    split: str = ""
    """Column that says train, valid or test. Without it every row is ``only_split``."""
    only_split: str = "train"
    """Split of all rows where there is no split column; of train rows a part becomes valid by ``valid_fraction``."""
    sex: str = ""
    """Column of the sex."""
    age: str = ""
    """Column of the age in years."""
    view: str = ""
    """Column of the view, frontal or lateral."""
    projection: str = ""
    """Column of the projection, AP or PA."""
    findings: dict[str, str] = field(default_factory=dict)
    """Column of each finding that the file annotates; the others are masked. Empty: a column for each, called like the
    finding."""


@dataclass(frozen=True)
class DataOptions:
    """A data set and what is taken from it."""

    root: str = ""
    """The data set's folder."""
    dataset: str = "chexpert"
    """chexpert (CheXpert-v1.0, its -small version or the phantom), nih (ChestX-ray14) or csv."""
    labels: str | list[str] = "chexpert14"
    """The findings: chexpert14, nih14, or a list of names. Findings that the data set does not annotate are masked."""
    policy: LabelPolicy = field(default_factory=LabelPolicy)
    """What uncertain and blank labels become."""
    views: list[str] = field(default_factory=list)
    """Keep only these views (frontal, lateral); empty keeps all."""
    projections: list[str] = field(default_factory=list)
    """Keep only these projections (AP, PA); empty keeps all."""
    valid_fraction: float = 0.1
    """Fraction of the training patients that become the validation split, where the data set does not say (nih; csv
    without ``split``, all rows being train); elsewhere without effect."""
    split_seed: int = 0
    """Seed of that split; apart from the run's seed, so that several runs share it."""
    csv: CsvOptions = field(default_factory=CsvOptions)
    """Columns, for ``dataset: csv``."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ConfigError(f"data.dataset is {self.dataset!r}; choose one of {', '.join(DATASETS)}")
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"data.valid_fraction is {self.valid_fraction!r}; it must be at least 0 and below 1")


def read(options: DataOptions, labels: LabelSet | None = None, problems: list[Problem] | None = None) -> Table:
    """Read the label table that the options describe.

    Args:
        options: the data set.
        labels: findings to use instead of ``options.labels`` (a model's own).
        problems: collects illegal rows instead of raising at the first (``mxa data check``).

    Raises:
        ConfigError: no root was given, or an option does not fit the data set.
        DataError: the data set is not what its layout says.
    """
    if not options.root:
        raise ConfigError("data.root is not given; it is the data set's folder")
    findings = labels or label_set(options.labels)
    common: dict[str, Any] = {"labels": findings, "policy": options.policy, "problems": problems}
    views, projections = tuple(options.views) or None, tuple(options.projections) or None
    if options.dataset == "chexpert":
        return read_chexpert(options.root, **common, views=views, projections=projections)
    common |= {"valid_fraction": options.valid_fraction, "seed": options.split_seed}
    if options.dataset == "nih":
        return read_nih(options.root, **common, views=views, projections=projections)
    if views or projections:
        raise ConfigError(
            "data.views and data.projections do not work with dataset csv; leave the rows out of the file"
        )
    return _read_csv(options.csv, options.root, common)


def _read_csv(columns: CsvOptions, root: str, common: dict[str, Any]) -> Table:
    if not columns.file:
        raise ConfigError("data.csv.file is not given; dataset csv needs the label file")
    if columns.split or columns.only_split != "train":
        common |= {"valid_fraction": 0.0}
    return read_csv(
        columns.file,
        root,
        **common,
        path_column=columns.path,
        patient_column=columns.patient or None,
        study_column=columns.study or None,
        split_column=columns.split or None,
        sex_column=columns.sex or None,
        age_column=columns.age or None,
        view_column=columns.view or None,
        projection_column=columns.projection or None,
        finding_columns=columns.findings or None,
        split=columns.only_split,
    )
