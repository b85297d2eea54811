"""Rows hold what the model says, and no format loses any of it."""

import csv
import io
import json
import math

import numpy as np
import pytest
from PIL import Image
from small_archive import FINDINGS, SIDE, pixels, predictor

from mxa.archive.reading import FAILED, OK, Picture
from mxa.archive.rows import Columns, Rows, json_line
from mxa.errors import ConfigError
from mxa.labels import LabelSet


def picture(number=0, height=24, width=40, **more):
    grey = pixels(number, height, width)
    return Picture(f"{number}.png", OK, pixels=predictor().preprocess.resize(grey), size=(width, height), **more)


BROKEN = Picture("broken.png", FAILED, 'cannot, "be"\ndecoded', sop_instance_uid="1.2.3")
EVERYTHING = {"operating_point": "youden", "calibration": "temperature", "logits": True}


def test_scores_by_hand():
    """In float64, from the pixels that the network sees."""
    one = picture(sop_instance_uid="1.2.3", notes=("no view",))
    (record,) = Rows(predictor(), **EVERYTHING).score([one])
    left, right = (half.astype(np.float64).mean() for half in np.split(one.pixels, 2, axis=1))
    logits = {"Edema": (left - 128) / 32, "Fracture": (right - 128) / 32}
    assert record["logits"] == pytest.approx(logits, abs=1e-5)
    calibrated = {
        "Edema": 1 / (1 + math.exp(-logits["Edema"] / 2)),
        "Fracture": 1 / (1 + math.exp(-logits["Fracture"])),
    }
    assert record["probabilities"] == pytest.approx(calibrated, abs=1e-6)
    # The threshold of 0.4 is for the uncalibrated probability.
    assert record["decisions"] == {"Edema": 1 / (1 + math.exp(-logits["Edema"])) > 0.4, "Fracture": None}
    assert record["operating_point"] == "youden"
    assert record["calibration"] == "temperature"
    assert (record["model_hash"], record["contract_version"]) == ("c0ffee", 1)
    assert (record["width"], record["height"], record["sop_instance_uid"]) == (40, 24, "1.2.3")
    assert record["notes"][-1] == "no view"
    assert len(record["notes"]) == 3, "two findings are not decided or calibrated"
    # The contract pads 24 to 40 rows: 8 above and below; the picture ends there.
    assert record["boxes"]["stages.0.blocks.0"] == [4.0, 0.0, 28.0, 24.0]
    assert list(record["boxes"]) == ["stages.0.blocks.0", "stages.1.blocks.0"]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_rows_are_what_the_predictor_says_of_the_files(tmp_path, fit):
    model = predictor(fit=fit, notes=("int8",))
    files = []
    for i in range(5):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels(i, 20 + 9 * i, 40)).save(files[-1])
    expected = model.predict(files, operating_point="youden", calibration="temperature")
    pictures = [
        Picture(str(file), OK, pixels=model.preprocess.resize(pixels(i, 20 + 9 * i, 40)), size=(40, 20 + 9 * i))
        for i, file in enumerate(files)
    ]
    for record, one in zip(Rows(model, **EVERYTHING).score(pictures), expected, strict=True):
        plain = one.to_dict()
        assert record["path"] == plain["source"]
        for key in ("probabilities", "logits", "decisions", "notes", "operating_point", "calibration", "model_hash"):
            assert record[key] == plain[key], key
        assert [record["width"], record["height"]] == plain["size"]
        for block, box in plain["regions"].items():
            assert record["boxes"][block] == pytest.approx(box, abs=0.005001)


def test_a_failed_picture_has_no_numbers():
    good, bad, other = Rows(predictor(), **EVERYTHING).score([picture(1), BROKEN, picture(2)])
    for key in ("probabilities", "logits", "decisions", "boxes", "width", "height"):
        assert bad[key] is None
    assert bad["reason"] == BROKEN.reason
    assert good["probabilities"] == Rows(predictor(), **EVERYTHING).score([picture(1)])[0]["probabilities"]
    assert other["path"] == "2.png"
    assert Rows(predictor()).score([BROKEN])[0]["probabilities"] is None


def test_what_was_not_asked_for_is_not_there():
    (record,) = Rows(predictor()).score([picture()])
    assert not {"logits", "decisions"} & set(record)
    assert (record["operating_point"], record["calibration"], record["notes"]) == ("", "", [])
    names = Columns(FINDINGS, logits=False, decisions=False).names
    assert names[:6] == ["path", "sop_instance_uid", "status", "reason", "Edema", "Fracture"]
    assert names[6:] == [
        *("boxes", "notes", "operating_point", "calibration", "model_hash", "contract_version", "width", "height")
    ]


def table_of_csv(columns, records):
    lines = columns.csv_line(columns.names) + "".join(columns.csv_line(columns.flat(one)) for one in records)
    return list(csv.DictReader(io.StringIO(lines, newline="")))


def test_every_format_gives_all_back():
    rows = Rows(predictor(), **EVERYTHING)
    columns = Columns.of(rows)
    records = rows.score([picture(1, notes=("a", "b")), BROKEN])
    as_json = [json.loads(json_line(one)) for one in records]
    assert as_json == records
    as_csv = table_of_csv(columns, records)
    as_arrow = columns.table(records).to_pylist()
    for record, text, arrow in zip(records, as_csv, as_arrow, strict=True):
        assert list(text) == list(arrow) == columns.names
        for name in ("path", "sop_instance_uid", "status", "reason", "operating_point", "calibration", "model_hash"):
            assert text[name] == arrow[name] == record[name]
        for name in ("contract_version", "width", "height"):
            assert arrow[name] == record[name]
            assert text[name] == ("" if record[name] is None else str(record[name]))
        for finding in FINDINGS:
            for end, key in (("", "probabilities"), (":logit", "logits"), (":decision", "decisions")):
                value = record[key] and record[key][finding]
                assert arrow[finding + end] == value
                cell = text[finding + end]
                assert (None if cell == "" else float(cell)) == value
        assert text["notes"] == " | ".join(record["notes"])
        assert arrow["notes"] == record["notes"]
        boxes = record["boxes"]
        assert (json.loads(text["boxes"]) if text["boxes"] else None) == boxes
        assert (arrow["boxes"] and {one.pop("block"): list(one.values()) for one in arrow["boxes"]}) == boxes
    assert as_csv[0]["Edema:decision"] in {"0", "1"}
    assert as_csv[0]["Fracture:decision"] == ""


def test_a_model_without_boxes():
    model = predictor()
    halves = model.runtime

    class Plain:
        name = "plain"

        def __call__(self, given):
            return halves(given)[0], {}

    object.__setattr__(model, "runtime", Plain())
    rows = Rows(model)
    records, columns = rows.score([picture()]), Columns.of(rows)
    assert records[0]["boxes"] == {}
    assert table_of_csv(columns, records)[0]["boxes"] == ""
    assert columns.table(records).to_pylist()[0]["boxes"] == []


def test_names_that_are_no_utf8_can_be_written():
    name = b"scans/\xff\xc3\xa4.png".decode("utf-8", "surrogateescape")
    (record,) = Rows(predictor()).score([Picture(name, FAILED, f"{name}: bad")])
    assert record["path"] == "scans/\\udcffä.png"
    assert "scans/\\udcffä.png" in json.loads(json_line(record).encode("utf-8"))["reason"]


def test_what_the_model_does_not_have_is_refused_at_once():
    with pytest.raises(ConfigError, match=r"no operating point 'f1'.* youden"):
        Rows(predictor(), "f1")
    with pytest.raises(ConfigError, match=r"no calibration 'platt'.* temperature"):
        Rows(predictor(), calibration="platt")
    model = predictor()
    object.__setattr__(model, "labels", LabelSet("odd", ("status", "Edema"), ("S", "E")))
    with pytest.raises(ConfigError, match=r"finding status is called like a column"):
        Rows(model)


def test_the_network_runs_once_per_batch():
    model, seen = predictor(), []
    halves = model.runtime

    class Counting:
        name = "counting"

        def __call__(self, given):
            seen.append(given.shape)
            return halves(given)

    object.__setattr__(model, "runtime", Counting())
    rows = Rows(model)
    rows.score([picture(i) for i in range(70)] + [BROKEN])
    rows.score([BROKEN])
    assert seen == [(70, 1, SIDE, SIDE)]
