"""The label table: one row per image, with its labels as annotated and the targets that a policy makes of them.

Every reader returns a :class:`Table`; nothing after it needs to know which data set the rows came from.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from mxa.errors import ConfigError, DataError
from mxa.labels import LabelPolicy, LabelSet

SPLITS = ("train", "valid", "test")
META_COLUMNS = ("path", "patient", "study", "view", "projection", "sex", "age", "split", "source", "row")
BOX_COLUMNS = ("path", "finding", "x1", "y1", "x2", "y2")
# What a label entry is called in counts and in the fingerprint.
_STATES = ("positive", "negative", "uncertain", "blank", "not_annotated")


@dataclass(frozen=True, eq=False)
class Table:
    """Images, their metadata and labels. Make one with :meth:`build` or a reader; treat every part as read-only.

    Attributes:
        frame: N rows, RangeIndex, columns :data:`META_COLUMNS`: path (relative to ``root``, forward slashes),
            patient, study, view ("frontal", "lateral" or ""), projection ("AP", "PA", ... or ""), sex ("M", "F" or
            ""), age (years, NaN unknown), split ("train", "valid" or "test"), source (file name of the CSV), row
            (line in it; the header is line 1).
        values: (N, L) float32, labels as annotated: 1, 0, -1 (uncertain), NaN (blank or not annotated).
        annotated: (N, L) bool, False where the data set does not annotate the finding.
        target: (N, L) float32 in [0, 1], 0 where masked out.
        mask: (N, L) bool, True where the target counts in loss and metrics.
        labels: The L findings.
        policy: How train rows' targets were made; the other splits use ``policy.hardened()``.
        root: Folder that the paths are relative to.
        dataset: Name of the data set.
        boxes: Rows of path, finding, x1, y1, x2, y2; corners in [0, 1] of the image's width and height. May be empty.
    """

    frame: pd.DataFrame
    values: npt.NDArray[np.float32]
    annotated: npt.NDArray[np.bool_]
    target: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    labels: LabelSet
    policy: LabelPolicy
    root: Path
    dataset: str
    boxes: pd.DataFrame

    @classmethod
    def build(
        cls,
        frame: pd.DataFrame,
        values: npt.NDArray[np.floating],
        annotated: npt.NDArray[np.bool_],
        labels: LabelSet,
        policy: LabelPolicy,
        root: Path,
        dataset: str,
        boxes: pd.DataFrame | None = None,
    ) -> "Table":
        """Apply the label policy and check that the parts fit.

        Random targets of a smooth policy are drawn here, by row number of the whole table, and never again: splitting
        or reordering the table later carries them along.

        Raises:
            DataError: If a column is missing, a split or label value is illegal, or lengths differ.
            ConfigError: If a finding has a metadata column's name, or the policy names an unknown finding.
        """
        _check_parts(frame, values, labels, boxes)
        frame = frame.loc[:, list(META_COLUMNS)].reset_index(drop=True)
        values32 = np.where(annotated, values, np.nan).astype(np.float32)
        target, mask = policy.apply(values32, annotated, labels)
        hard = policy.hardened()
        if hard != policy:
            train = (frame["split"] == "train").to_numpy()[:, None]
            hard_target, hard_mask = hard.apply(values32, annotated, labels)
            target, mask = np.where(train, target, hard_target), np.where(train, mask, hard_mask)
        kept = empty_boxes() if boxes is None else boxes.loc[:, list(BOX_COLUMNS)].reset_index(drop=True)
        return cls(frame, values32, annotated, target, mask, labels, policy, Path(root), dataset, kept)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order train, valid, test."""
        present = set(self.frame["split"].unique())
        return tuple(s for s in SPLITS if s in present)

    def split(self, name: str) -> "Table":
        """Return the rows of one split.

        Raises:
            DataError: If there are none; the message lists the splits that have rows.
        """
        rows = np.flatnonzero((self.frame["split"] == name).to_numpy())
        if not len(rows):
            raise DataError(
                f"{self.dataset} at {self.root} has no {name!r} rows; splits with rows: {list(self.splits)}"
            )
        return self.take(rows)

    def take(self, rows: npt.ArrayLike) -> "Table":
        """Return some rows, in the order given; boxes follow their images.

        Args:
            rows: Row numbers, or a boolean array of length N.
        """
        index = np.asarray(rows)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(np.int64)
        frame = self.frame.iloc[index].reset_index(drop=True)
        return Table(
            frame=frame,
            values=self.values[index],
            annotated=self.annotated[index],
            target=self.target[index],
            mask=self.mask[index],
            labels=self.labels,
            policy=self.policy,
            root=self.root,
            dataset=self.dataset,
            boxes=self._boxes_of(frame),
        )

    def _boxes_of(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not len(self.boxes):
            return self.boxes
        return self.boxes[self.boxes["path"].isin(frame["path"])].reset_index(drop=True)

    def files(self) -> list[Path]:
        """Return the absolute path of every row's image."""
        root = self.root.absolute()
        return [root / path for path in self.frame["path"]]

    def states(self) -> npt.NDArray[np.int8]:
        """Return (N, L) int8: 0 positive, 1 negative, 2 uncertain, 3 blank, 4 not annotated."""
        states = np.full(self.values.shape, 3, dtype=np.int8)
        states[self.values == 1] = 0
        states[self.values == 0] = 1
        states[self.values == -1] = 2
        states[~self.annotated] = 4
        return states

    def fingerprint(self) -> str:
        """Return a SHA-256 of data set, label set, paths, splits and labels, the same under every root."""
        digest = hashlib.sha256()
        for part in (
            self.dataset,
            json.dumps(self.labels.to_dict()),
            *map("\0".join, (self.frame["path"], self.frame["split"])),
        ):
            # The length in front keeps two parts from running into one another.
            raw = part.encode()
            digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(self.states().tobytes())
        return digest.hexdigest()

    def to_frame(self) -> pd.DataFrame:
        """Return one flat frame: metadata, a target column per finding, a "mask:<finding>" column per finding."""
        targets = pd.DataFrame(self.target, columns=list(self.labels.findings))
        masks = pd.DataFrame(self.mask, columns=[f"mask:{finding}" for finding in self.labels])
        return pd.concat([self.frame, targets, masks], axis=1)

    def counts(self) -> pd.DataFrame:
        """Return the rows per finding (index) that are positive, negative, uncertain, blank and not annotated."""
        states = self.states()
        columns = {name: (states == code).sum(axis=0) for code, name in enumerate(_STATES)}
        return pd.DataFrame(columns, index=pd.Index(self.labels.findings, name="finding"))

    @classmethod
    def concat(cls, tables: Sequence["Table"]) -> "Table":
        """Put tables with the same label set, policy and root one after the other.

        Targets are kept as they are. Patients are told apart by name alone; data set names that differ are joined
        with "+".

        Raises:
            ConfigError: If there is no table, or label sets, policies or roots differ.
        """
        if not tables:
            raise ConfigError("nothing to concatenate: give at least one table")
        first = tables[0]
        for name in ("labels", "policy", "root"):
            if any(getattr(t, name) != getattr(first, name) for t in tables):
                raise ConfigError(f"tables can only be joined when their {name} are the same")
        return cls(
            frame=pd.concat([t.frame for t in tables], ignore_index=True),
            values=np.concatenate([t.values for t in tables]),  # noqa: PD011 - a Table, not a frame
            annotated=np.concatenate([t.annotated for t in tables]),
            target=np.concatenate([t.target for t in tables]),
            mask=np.concatenate([t.mask for t in tables]),
            labels=first.labels,
            policy=first.policy,
            root=first.root,
            dataset="+".join(dict.fromkeys(t.dataset for t in tables)),
            boxes=_concat_boxes([t.boxes for t in tables]),
        )


def empty_boxes() -> pd.DataFrame:
    """Return a box frame without rows, with the right column types."""
    text, number = pd.Series([], dtype=str), pd.Series([], dtype=float)
    return pd.DataFrame({name: text if name in {"path", "finding"} else number for name in BOX_COLUMNS})


def _concat_boxes(boxes: list[pd.DataFrame]) -> pd.DataFrame:
    """Join box frames; empty ones are left out because they would decide the joined column types."""
    filled = [b for b in boxes if len(b)]
    return pd.concat(filled, ignore_index=True) if filled else empty_boxes()


def _check_parts(
    frame: pd.DataFrame, values: npt.NDArray[np.floating], labels: LabelSet, boxes: pd.DataFrame | None
) -> None:
    missing = [c for c in META_COLUMNS if c not in frame.columns]
    if missing:
        raise DataError(f"the table lacks the columns {missing}; it needs {list(META_COLUMNS)}")
    if boxes is not None and (missing := [c for c in BOX_COLUMNS if c not in boxes.columns]):
        raise DataError(f"the box table lacks the columns {missing}; it needs {list(BOX_COLUMNS)}")
    if len(frame) != len(values):
        raise DataError(f"{len(frame)} rows of metadata but {len(values)} rows of labels")
    if unknown := sorted({str(s) for s in frame["split"].unique()} - set(SPLITS)):
        raise DataError(f"unknown split {unknown}; a split is one of {list(SPLITS)}")
    if clash := sorted(set(META_COLUMNS) & set(labels.findings)):
        raise ConfigError(f"a finding cannot be called {clash}: the table has a column of that name")
