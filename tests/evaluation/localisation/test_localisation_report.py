import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from marked_cases import blobs, simulate

from mxa.evaluation.localisation import learn, score
from mxa.evaluation.localisation.report import NONE, figure, markdown, notes, rows, tables, to_dict
from mxa.evaluation.tables import to_csv

CASES = simulate(images=9, patients=5)
TRAINED = learn(["A", "B"], list(blobs(np.random.default_rng(9), 2, 16)))
FOUND = score(CASES, TRAINED, best_stage="stage 1", findings=["A", "B", "C", "X"], replicates=20)
MEANS = {name: one.means for name, one in FOUND.selections.items()}
SHOWN = [
    "Stage 1", "Stage 2", "Best stage", "Union", "Map",
    "Whole image", "Centred box", "Centred box per finding", "Mean box", "Mean box per finding",
    "Most marked pixel", "Most marked pixel per finding",
    "Stage 1, shuffled", "Stage 2, shuffled", "Best stage, shuffled", "Union, shuffled", "Map, shuffled",
]  # fmt: skip


def column(table, title):
    return {row[0]: row[table.header.index(title)] for row in table.rows}


def test_the_dictionary_is_json_and_has_every_number():
    found = json.loads(json.dumps(to_dict(FOUND), allow_nan=False))
    one = MEANS["single"]["union"]["A"]["iou"]
    assert found["selections"]["single"]["means"]["union"]["A"]["iou"] == {
        "value": one.value,
        "cases": one.cases,
        "patients": one.patients,
        "interval": one.interval.to_dict(),
    }
    assert found["selections"]["all"]["means"]["union"]["X"]["hit"] == {
        "value": None, "cases": 0, "patients": 0, "reason": "no case"
    }  # fmt: skip
    difference = FOUND.selections["all"].differences["map"]["map, shuffled"]["pooled"]["hit"]
    assert (
        found["selections"]["all"]["differences"]["map"]["map, shuffled"]["pooled"]["hit"]["value"] == difference.value
    )
    assert found["trained"] == json.loads(json.dumps(TRAINED.to_dict()))
    assert found["bootstrap"] == {"replicates": 20, "seed": 0, "level": 0.95}
    assert (found["best_stage"], found["grid"]) == ("stage 1", 16)
    assert found["flat_maps"] == dict.fromkeys("ABCX", 0)
    assert set(found["empty_boxes"].values()) == {0}
    assert (found["findings"], found["stages"]) == (["A", "B", "C", "X"], dict(FOUND.stages))
    assert (found["model"], found["baselines"]) == (list(FOUND.model), list(FOUND.baselines))
    assert found["selections"]["all"]["cases"] == len(CASES)


def test_every_mean_and_difference_has_a_row():
    table = rows(FOUND)
    read = list(csv.DictReader(io.StringIO(to_csv(table), newline="")))
    expected = sum(
        len(by)
        for one in FOUND.selections.values()
        for means in (*one.means.values(), *(of for row in one.differences.values() for of in row.values()))
        for by in means.values()
    )
    assert len(read) == len({tuple(row.values())[:5] for row in read}) == expected
    cells = {(r["cases_are"], r["finding"], r["row"], r["minus"], r["measure"]): r for r in read}
    one = MEANS["large"]["stage 2"]["macro"]["covered"]
    row = cells["large", "macro", "stage 2", "", "covered"]
    assert float(row["value"]) == one.value
    assert (float(row["low"]), float(row["high"])) == (one.interval.low, one.interval.high)
    assert (int(row["cases"]), int(row["patients"]), row["reason"]) == (one.cases, one.patients, "")
    one = FOUND.selections["all"].differences["union"]["mean box"]["B"]["iou"]
    assert float(cells["all", "B", "union", "mean box", "iou"]["value"]) == one.value
    row = cells["all", "C", "mean box per finding", "", "iou"]
    assert [row[name] for name in ("value", "low", "high", "cases", "reason")] == [
        "", "", "", "0", "no training mark of the finding"
    ]  # fmt: skip


def test_there_is_a_table_for_each_group_with_cases():
    names = [f"all-{name}" for name in ("pooled", "macro", "1", "2", "3", "4", "differences")]
    names += [f"{part}-{name}" for part in ("single", "small", "large") for name in ("pooled", "macro", "differences")]
    for part in ("single", "small", "large"):
        assert FOUND.selections[part].cases, part
    assert list(tables(FOUND)) == [f"localisation-{name}" for name in names]
    none = replace(FOUND.selections["small"], cases=0)
    fewer = tables(replace(FOUND, selections={**FOUND.selections, "small": none}))
    assert list(fewer) == [f"localisation-{name}" for name in names if not name.startswith("small")]


def test_a_table_has_the_boxes_the_map_and_the_baselines():
    table = tables(FOUND)["localisation-all-pooled"]
    assert [row[0] for row in table.rows] == SHOWN
    assert column(table, "IoU")["Union"] == str(MEANS["all"]["union"]["pooled"]["iou"].interval)
    assert column(table, "Hit")["Map, shuffled"] == str(MEANS["all"]["map, shuffled"]["pooled"]["hit"].interval)
    assert column(table, "Share of the region covered")["Map"] == NONE
    assert column(table, "IoU")["Most marked pixel"] == NONE
    assert column(table, "Cases")["Union"] == len(CASES)
    fewer = sum(name in "AB" for name in CASES.findings)
    assert column(table, "Cases")["Mean box per finding"] == fewer < len(CASES)
    assert table.caption.startswith(
        f"All findings pooled, all cases: {len(CASES)} cases of {len(set(CASES.patients))} p"
    )
    assert "95% intervals over patients (bootstrap, BCa, 20 replicates" in table.caption


def test_the_captions_name_group_and_cases():
    found = tables(FOUND)
    single = CASES.single.sum()
    assert f"images with a single marked finding: {single} cases" in found["localisation-single-pooled"].caption
    assert "3 of 4 findings" in found["localisation-all-macro"].caption
    of_b = sum(name == "B" for name in CASES.findings)
    assert found["localisation-all-2"].caption.startswith(f"B, all cases: {of_b} cases")


def test_a_finding_without_cases_says_so_and_a_baseline_says_why():
    found = tables(FOUND)
    assert set(column(found["localisation-all-4"], "IoU").values()) == {"no case", NONE}
    assert column(found["localisation-all-3"], "IoU")["Mean box per finding"] == "no training mark of the finding"


def test_differences_have_signs_and_name_both():
    table = tables(FOUND)["localisation-all-differences"]
    cells = {row[:2]: row[table.header.index("IoU")] for row in table.rows}
    for row, baseline in (("Union", "Mean box"), ("Map", "Map, shuffled"), ("Stage 1", "Whole image")):
        one = FOUND.selections["all"].differences[row.lower()][baseline.lower()]["pooled"]["iou"]
        assert cells[row, baseline] == one.interval.signed()
    assert cells["Map", "Most marked pixel"] == NONE
    assert len(table.rows) == len(cells) == 5 * 8


def test_one_patient_has_a_value_without_interval():
    alone = score(replace(CASES, patients=("p",) * len(CASES)), replicates=5)
    cell = column(tables(alone)["localisation-all-pooled"], "IoU")["Union"]
    assert cell == f"{alone.scores['union']['iou'].mean():.3f} (one patient has no interval)"


def test_the_page_has_notes_and_tables():
    page = markdown(FOUND)
    for said in notes(FOUND):
        assert said in page
    for table in tables(FOUND).values():
        assert table.caption.split(":")[0] in page
    assert page.count("\n| Whole image |") == sum("differences" not in name for name in tables(FOUND))


def test_notes_say_what_must_be_known():
    said = " ".join(notes(FOUND))
    assert "The best stage is stage 1; it must have been chosen on other patients" in said
    assert "Not scored: X (no case)." in said
    assert "fair baselines are those that do not know the finding" in said
    for absent in ("Empty boxes", "constant", "No training marks"):
        assert absent not in said
    other = replace(
        FOUND, best_stage=None, trained=None, empty_boxes={"union": 0, "stage 1": 2}, flat_maps={"A": 3, "B": 0}
    )
    said = " ".join(notes(other))
    assert "Empty boxes, which score 0: stage 1 2." in said
    assert "Maps that are constant or nowhere positive, which miss: A 3." in said
    assert "No training marks were given" in said
    assert "best stage" not in said


def test_the_figure_shows_iou_and_hit_of_boxes_and_baselines():
    drawn = figure(FOUND)
    (ax,) = drawn.axes
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    names = [name for name in SHOWN if not name.endswith("shuffled")]
    with_iou = [name for name in names if not name.startswith("Most")]
    assert labels == ["IoU", *with_iou, "Hit", *names]
    dots = [line for line in ax.get_lines() if line.get_label() == "_estimate"]
    expected, colours = [], []
    for measure, shown in (("iou", with_iou), ("hit", names)):
        for name in shown:
            row = name[0].lower() + name[1:]
            for one in (row, f"{row}, shuffled") if row in FOUND.model else (row,):
                expected.append(MEANS["all"][one]["pooled"][measure].value)
                colours.append("model" if one in FOUND.model else "shuffled" if "shuffled" in one else "baseline")
    np.testing.assert_allclose([line.get_xdata()[0] for line in dots], expected)
    assert len({(kind, line.get_color()) for kind, line in zip(colours, dots, strict=True)}) == 3
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == {
        "the model", "with other patients' marks", "baseline"
    }  # fmt: skip
    assert ax.get_xlabel() == f"Mean over {len(CASES)} cases (all cases)"


def test_the_figure_is_of_the_selection():
    (ax,) = figure(FOUND, "large").axes
    assert f"{FOUND.selections['large'].cases} cases" in ax.get_xlabel()
    first = next(line.get_xdata()[0] for line in ax.get_lines() if line.get_label() == "_estimate")
    assert first == MEANS["large"]["stage 1"]["pooled"]["iou"].value


@pytest.mark.parametrize("selection", ["tiny", "small"])
def test_a_figure_of_no_cases_is_refused(selection):
    none = replace(FOUND.selections["small"], cases=0)
    with pytest.raises(ValueError, match=f"no cases '{selection}' to show; choose from all, single, large"):
        figure(replace(FOUND, selections={**FOUND.selections, "small": none}), selection)
