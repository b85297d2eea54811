"""The section of the page, and the files beside it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from marked_cases import blobs, simulate

from mxa.evaluation.figures import Chart
from mxa.evaluation.localisation import Localisation, Trained, learn, score
from mxa.evaluation.localisation.page import MEAN, per_finding, write_localisation
from mxa.evaluation.report import Picture
from mxa.evaluation.tables import Table

CASES = simulate(images=9, patients=5)
TRAINED = learn(["A", "B"], list(blobs(np.random.default_rng(9), 2, 16)))


def scored(trained: Trained | None = TRAINED, best_stage: str | None = "stage 1", **change: object) -> Localisation:
    return score(replace(CASES, **change), trained, best_stage=best_stage, replicates=20)  # type: ignore[arg-type]


def test_the_section_says_what_is_needed_to_read_it(tmp_path: Path) -> None:
    found = scored()
    section = write_localisation(tmp_path, found, ["A remark."], {"marks": "made up"})
    assert section.title == "Localisation"
    assert section.parts[0] == "A remark."
    assert "informative only if it beats the baselines" in str(section.parts[1])
    (picture,) = (part for part in section.parts if isinstance(part, Picture))
    assert isinstance(picture.image, Chart)
    assert picture.image.png == (tmp_path / "localisation.png").read_bytes()
    for said in ("A hit: the centre of the box", "Baselines never looked at the image", "beats every fair baseline"):
        assert said in picture.caption
    pooled, differences, each = (part for part in section.parts if isinstance(part, Table))
    assert "A hit: " in pooled.caption
    assert [row[0] for row in pooled.rows][:5] == ["Stage 1", "Stage 2", "Best stage", "Union", "Map"]
    assert {row[0] for row in differences.rows} == {"Best stage", "Map"}
    assert [row[1] for row in differences.rows if row[0] == "Map"][-1] == "Map, shuffled"
    assert "intervals of the differences lie above 0" in differences.caption
    assert each == per_finding(found)


def test_the_files_agree(tmp_path: Path) -> None:
    found = scored()
    write_localisation(tmp_path, found, ["A remark."], {"marks": "made up"})
    assert {file.name for file in tmp_path.iterdir()} == {
        f"localisation.{kind}" for kind in ("json", "csv", "md", "png")
    }
    numbers = json.loads((tmp_path / "localisation.json").read_text())
    assert numbers["provenance"] == {"marks": "made up"}
    assert numbers["notes"][0] == "A remark."
    text = (tmp_path / "localisation.md").read_text()
    assert all(note in text for note in numbers["notes"])
    with (tmp_path / "localisation.csv").open(newline="") as stream:
        rows = {tuple(row.values())[:5]: row["value"] for row in csv.DictReader(stream)}
    value = numbers["selections"]["all"]["means"]["map"]["A"]["hit"]["value"]
    assert float(rows["all", "A", "map", "", "hit"]) == value


def test_each_finding_beside_its_fair_baseline() -> None:
    found = scored()
    table = per_finding(found)
    assert table.header == (
        "Finding", "Cases", "Best stage, IoU", "Minus centred box", "Map, Hit", "Minus most marked pixel per finding",
    )  # fmt: skip
    one = found.selections["all"]
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == [*found.findings, MEAN]
    mean, minus = one.means["best stage"]["B"]["iou"], one.differences["best stage"]["centred box"]["B"]["iou"]
    assert mean.interval is not None and minus.interval is not None
    assert rows["B"][1:4] == (CASES.findings.count("B"), str(mean.interval), minus.interval.signed())
    assert rows["C"][5] == "no training mark of the finding"
    macro = one.means["map"]["macro"]["hit"].interval
    assert macro is not None
    assert rows[MEAN][4] == str(macro)


@pytest.mark.parametrize(
    ("found", "header"),
    [
        (scored(None, None), ("Union, IoU", "Minus whole image", "Map, Hit", "Minus map, shuffled")),
        (scored(maps=None), ("Best stage, IoU", "Minus centred box")),
        (scored(best_stage=None, boxes={}), ("Map, Hit", "Minus most marked pixel per finding")),
    ],
)
def test_what_is_missing_is_left_out(found: Localisation, header: tuple[str, ...], tmp_path: Path) -> None:
    assert per_finding(found).header[2:] == header
    section = write_localisation(tmp_path, found, [], {})
    shown = [part for part in section.parts if isinstance(part, Table)][1]
    assert {row[0] for row in shown.rows} == {name.split(",")[0] for name in header[::2]}
