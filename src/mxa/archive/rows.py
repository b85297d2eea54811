"""One row per picture: what it holds, and how it becomes a line of CSV or JSON or a row of Parquet."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mxa.archive.reading import Picture
from mxa.errors import ConfigError
from mxa.predictor import Prediction, Predictor

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

LOGIT, DECISION = ":logit", ":decision"
"""End of the columns of a finding beside its probability."""

FIRST = ("path", "sop_instance_uid", "status", "reason")
LAST = ("boxes", "notes", "operating_point", "calibration", "model_hash", "contract_version", "width", "height")

CORNERS = ("x1", "y1", "x2", "y2")

Record = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Makes the rows of one run.

    Attributes:
        predictor: the model.
        operating_point: name of the one that decides; "" for none.
        calibration: kind of the one that is applied; "" for none.
        logits: keep the network's own outputs, too.

    Raises:
        ConfigError: the model has no such operating point or calibration, or a finding is called like a column.
    """

    predictor: Predictor
    operating_point: str = ""
    calibration: str = ""
    logits: bool = False

    def __post_init__(self) -> None:
        self.predictor.tuning.using(self.operating_point, self.calibration)
        if taken := set(self.findings) & {*FIRST, *LAST}:
            raise ConfigError(f"the model's finding {', '.join(sorted(taken))} is called like a column of the output")

    @property
    def findings(self) -> tuple[str, ...]:
        """L names."""
        return self.predictor.labels.findings

    def score(self, pictures: Sequence[Picture]) -> list[Record]:
        """Run the network once over the pictures that were read.

        Args:
            pictures: of one batch.

        Returns:
            A record for each, plain JSON types. Probabilities, logits, decisions and boxes are None where the status is
            not "ok". Boxes are x1, y1, x2, y2 in pixels of the picture, to a hundredth.
        """
        read = [one for one in pictures if one.pixels is not None and one.size is not None]
        predictions = iter(self._predict(read) if read else ())
        return [self._record(one, None if one.pixels is None else next(predictions)) for one in pictures]

    def _predict(self, pictures: Sequence[Picture]) -> list[Prediction]:
        return self.predictor.predict_resized(
            np.stack([one.pixels for one in pictures if one.pixels is not None])[:, None],
            [one.size for one in pictures if one.size is not None],
            operating_point=self.operating_point,
            calibration=self.calibration,
        )

    def _record(self, picture: Picture, prediction: Prediction | None) -> Record:
        scores: Record = {"probabilities": None}
        scores |= {"logits": None} if self.logits else {}
        scores |= {"decisions": None} if self.operating_point else {}
        boxes, notes, (width, height) = None, picture.notes, picture.size or (None, None)
        if prediction is not None:
            plain = prediction.to_dict()
            scores = {key: plain[key] for key in scores}
            boxes = {block: [round(edge, 2) for edge in box] for block, box in prediction.regions.items()}
            notes = prediction.notes + picture.notes
        return {
            "path": _encodable(picture.path),
            "sop_instance_uid": picture.sop_instance_uid,
            "status": picture.status,
            "reason": _encodable(picture.reason),
            **scores,
            "boxes": boxes,
            "notes": [_encodable(note) for note in notes],
            "operating_point": self.operating_point,
            "calibration": self.calibration,
            "model_hash": self.predictor.model_hash,
            "contract_version": self.predictor.preprocess.version,
            "width": width,
            "height": height,
        }


def _encodable(text: str) -> str:
    r"""File names may hold bytes that are no UTF-8; each is written as \udc80 to \udcff."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class Columns:
    """The columns of tables.

    Attributes:
        findings: L names.
        logits: whether logits are kept.
        decisions: whether there are decisions.
    """

    findings: tuple[str, ...]
    logits: bool
    decisions: bool

    @classmethod
    def of(cls, rows: Rows) -> "Columns":
        """Those of a run."""
        return cls(rows.findings, rows.logits, bool(rows.operating_point))

    @property
    def names(self) -> list[str]:
        """In order."""
        logits = [finding + LOGIT for finding in self.findings] if self.logits else []
        decisions = [finding + DECISION for finding in self.findings] if self.decisions else []
        return [*FIRST, *self.findings, *logits, *decisions, *LAST]

    def flat(self, record: Mapping[str, Any]) -> list[Any]:
        """The values of a record, by column."""
        scores = ["probabilities", *(["logits"] if self.logits else []), *(["decisions"] if self.decisions else [])]
        cells = [(record[key] or {}).get(finding) for key in scores for finding in self.findings]
        return [*(record[name] for name in FIRST), *cells, *(record[name] for name in LAST)]

    def csv_line(self, cells: Sequence[Any]) -> str:
        """A line; lists are joined, boxes are JSON, and numbers have the digits that give them back bit for bit."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerow([_csv_cell(cell) for cell in cells])
        return stream.getvalue()

    def table(self, records: Sequence[Mapping[str, Any]]) -> "pa.Table":
        """A Parquet table."""
        import pyarrow as pa

        flat = [self.flat(record) for record in records]
        boxes = self.names.index("boxes")
        for cells in flat:
            cells[boxes] = None if cells[boxes] is None else _structs(cells[boxes])
        schema = self.schema()
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*flat, strict=True), schema, strict=True)]
        return pa.Table.from_arrays(arrays, schema=schema)

    def schema(self) -> "pa.Schema":
        """The types of the columns in Parquet."""
        import pyarrow as pa

        corners = [(name, pa.float64()) for name in CORNERS]
        types = {
            "boxes": pa.list_(pa.struct([("block", pa.string()), *corners])),
            "notes": pa.list_(pa.string()),
            "contract_version": pa.int32(),
            "width": pa.int32(),
            "height": pa.int32(),
            **dict.fromkeys(self.findings, pa.float64()),
            **{finding + LOGIT: pa.float32() for finding in self.findings},
            **{finding + DECISION: pa.bool_() for finding in self.findings},
        }
        return pa.schema([(name, types.get(name, pa.string())) for name in self.names])


def _structs(boxes: Mapping[str, Sequence[float]]) -> list[dict[str, str | float]]:
    return [{"block": block, **dict(zip(CORNERS, box, strict=True))} for block, box in boxes.items()]


def json_line(record: Mapping[str, Any]) -> str:
    """A line of JSON."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _csv_cell(cell: object) -> object:
    if isinstance(cell, bool):
        return int(cell)
    if isinstance(cell, dict):
        return json.dumps(cell) if cell else ""
    return " | ".join(cell) if isinstance(cell, list) else cell  # None becomes an empty cell
