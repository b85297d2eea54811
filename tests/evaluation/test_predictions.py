import csv
from pathlib import Path

import numpy as np
import pytest

from mxa.errors import DataError
from mxa.evaluation.casefiles import comparable
from mxa.evaluation.metrics import evaluate, sigmoid
from mxa.evaluation.predictions import FilePredictions, Predictions, read_csv, read_predictions
from mxa.labels import CHEXPERT14, NIH14, LabelSet

TWO = LabelSet("two", ("A", "B"), ("a", "b"))
GOOD = "path,patient,A,B\na.png,p1,0.25,1\nb.png,p2,0,0.5\n"


def some(n=20, scale=4.0):
    logit = np.random.default_rng(0).normal(size=(n, 14)).astype(np.float32) * np.float32(scale)
    return Predictions.from_logit([f"x/{i}.jpg" for i in range(n)], [f"p{i // 2}" for i in range(n)], logit, CHEXPERT14)


def test_probability_comes_from_the_logit():
    predictions = some()
    assert len(predictions) == 20
    assert predictions.probability.dtype == np.float64
    np.testing.assert_array_equal(predictions.probability, sigmoid(predictions.logit))


def test_csv_gives_back_every_bit(tmp_path):
    predictions = some(500, scale=12.0)
    predictions.write_csv(tmp_path / "p.csv")
    back = read_csv(tmp_path / "p.csv", CHEXPERT14)
    assert (back.path, back.patient, back.labels) == (predictions.path, predictions.patient, CHEXPERT14)
    np.testing.assert_array_equal(back.probability, predictions.probability)
    assert back.logit is None


def test_csv_columns_are_path_patient_and_the_findings(tmp_path):
    some().write_csv(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["path", "patient", *CHEXPERT14]
    assert rows[1][:2] == ["x/0.jpg", "p0"]
    assert float(rows[1][2]) == some().probability[0, 0]
    assert len(rows) == 21


def test_names_with_commas_quotes_and_umlauts_survive(tmp_path):
    names = ('a,"b".png', "Größe.png")
    Predictions.from_logit(names, ("1", "02"), [[0.0, 1.0], [2.0, 3.0]], TWO).write_csv(tmp_path / "p.csv")
    back = read_csv(tmp_path / "p.csv", TWO)
    assert back.path == names
    assert back.patient == ("1", "02")


def test_evaluation_from_the_csv_equals_the_one_from_logits(tmp_path):
    predictions = some(200)
    target = (np.random.default_rng(1).random((200, 14)) < 0.4).astype(float)
    mask = np.ones((200, 14), bool)
    predictions.write_csv(tmp_path / "p.csv")
    a = predictions.evaluate(target, mask)
    b = read_csv(tmp_path / "p.csv", CHEXPERT14).evaluate(target, mask)
    assert a == evaluate(predictions.logit, target, mask, CHEXPERT14)
    assert b.loss == pytest.approx(a.loss, rel=1e-12)
    assert (b.accuracy, b.f1_micro, b.auroc_micro, b.findings) == (a.accuracy, a.f1_micro, a.auroc_micro, a.findings)


def test_evaluation_uses_the_logits_where_probabilities_saturate():
    predictions = Predictions.from_logit(["a", "b"], ["1", "2"], [[60.0, 0.0], [50.0, 0.0]], TWO)
    assert predictions.probability[0, 0] == predictions.probability[1, 0] == 1.0
    result = predictions.evaluate(np.array([[1, 0], [0, 0]]), np.array([[True, False], [True, False]]))
    assert result.findings["A"].auroc == 1.0
    assert result.loss == pytest.approx(25.0)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    file = tmp_path / "p.csv"
    some().write_csv(file)
    before = file.read_bytes()

    def full(self, content):
        self.open("wb").write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        some(3).write_csv(file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_writing_replaces_and_leaves_one_file(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("old")
    with file.open() as reader:
        some().write_csv(file)
        assert reader.read() == "old"  # who has it open reads the old file on: the new one took its place as a whole
    assert len(read_csv(file, CHEXPERT14)) == 20
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", ["missing/p.csv", "file/p.csv"])
def test_writing_where_it_cannot_be_is_an_error_with_the_name(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write .*p\.csv"):
        some().write_csv(tmp_path / place)


# --- reading what others wrote


def test_columns_may_come_in_any_order_with_a_byte_order_mark(tmp_path):
    (tmp_path / "p.csv").write_text("\ufeffB,patient,A,path\r\n1,p1,0.25,a.png\r\n\r\n", encoding="utf-8")
    back = read_csv(tmp_path / "p.csv", TWO)
    assert back.path == ("a.png",)
    assert back.patient == ("p1",)
    assert back.probability.tolist() == [[0.25, 1.0]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("patient,A,B", "patient,A,C", r"p\.csv: unknown columns 'C'; take them out; .* A, B"),
        ("patient,A,B", "patient,A,A", r"column A is there twice"),
        ("patient,A,B", "Path,A,B", r"the columns path and Path say the same"),
        ("path,patient", "file,patient", r"no column names the rows.*Image Index.*there are file, patient, A, B"),
        ("patient,A,B", "patient,A,patients", r"unknown columns 'patients'"),
        ("a.png,p1", ",p1", r"line 2: path is blank; fill it in"),
        ("b.png,p2", "b.png,", r"line 3: patient is blank; fill it in"),
        ("b.png", "a.png", r"1 images occur more than once \(a\.png\)"),
        ("0.25", "nan", r"line 2: A is blank, a probability cannot be left out"),
        ("0.25", "inf", r"line 2: A is 'inf', which is not between 0 and 1"),
        ("0.5", "1.5", r"line 3: B is '1\.5', which is not between 0 and 1; if these are logits, apply a sigmoid once"),
        ("0.5", "-0.1", r"line 3: B is '-0\.1', which is not between 0 and 1"),
        ("0.5", "", r"line 3: B is blank"),
        ("0.5", "high", r"line 3: B is 'high', which is not a number"),
        ("0.5", "0_1", r"line 3: B is '0_1', which is not a number"),
        (",0.5", "", r"line 3 has 3 fields, the header has 4"),
        ("0.5", "0.5,0.5", r"line 3 has 5 fields, the header has 4"),
        (GOOD, "", r"the first line is empty"),
        (GOOD[GOOD.index("a.png") :], "", r"no row below the header"),
    ],
)
def test_a_broken_csv_is_refused_with_its_place(tmp_path, old, new, message):
    assert GOOD.count(old) == 1
    file = tmp_path / "p.csv"
    file.write_text(GOOD)
    assert len(read_csv(file, TWO)) == 2
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(DataError, match=message) as error:
        read_predictions(file, TWO)
    assert "p.csv" in str(error.value)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("path,patient,A\na.png,p1,0.25\n", "'B'"),
        ("path,A,B\na.png,0.25,1\n", "'patient'"),
        ("study,B\ns1,1\n", "'path', 'patient', 'A'"),
    ],
)
def test_a_models_own_csv_has_every_column(tmp_path, text, missing):
    (tmp_path / "p.csv").write_text(text)
    read_predictions(tmp_path / "p.csv", TWO)
    with pytest.raises(DataError, match=rf"p\.csv: the columns must be .* 2 findings of two; missing: {missing}$"):
        read_csv(tmp_path / "p.csv", TWO)


def test_no_file_and_no_text_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"p\.csv: no such file"):
        read_csv(tmp_path / "p.csv", TWO)
    (tmp_path / "p.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"p\.csv: not a UTF-8 text file"):
        read_csv(tmp_path / "p.csv", TWO)


# --- anybody's files


def read(folder, text, labels=None):
    (folder / "p.csv").write_text(text)
    return read_predictions(folder / "p.csv", labels)


def test_a_leaderboard_file_is_read_as_it_comes(tmp_path):
    study = "CheXpert-v1.0/test/patient64741/study1"
    found = read(tmp_path, f"Study,Pleural Effusion,Edema\n{study},0.25,1\n")
    assert (found.key, found.unit, found.study) == ((study,), "study", ("test/patient64741/study1",))
    assert (found.patient, found.patients_known) == (("patient64741",), True)
    assert found.labels.findings == ("Edema", "Pleural Effusion")
    assert found.labels.codes == ("ED", "PE")
    assert found.probability.tolist() == [[1.0, 0.25]]


def test_what_mxa_predict_writes_beside_findings_is_left_out(tmp_path):
    last = "boxes,notes,operating_point,calibration,model_hash,contract_version,width,height"
    header = f"path,sop_instance_uid,status,reason,Edema,Edema:logit,Edema:decision,{last}\n"
    row = "a.png,1.2,ok,,0.25,-1.1,0,{},a note,youden,,abc,1,80,60\n"
    found = read(tmp_path, header + row)
    assert (found.key, found.labels.findings, found.probability.tolist()) == (("a.png",), ("Edema",), [[0.25]])
    with pytest.raises(DataError, match=r"1 rows have an error .* the first b\.png: too small; predict"):
        read(tmp_path, f"{header}{row}b.png,,failed,too small,,,,,,youden,,abc,1,,\n")
    with pytest.raises(DataError, match=r"unknown columns 'Fracture:logit'"):
        read(tmp_path, header.replace("\n", ",Fracture:logit\n") + row.replace("\n", ",0.5\n"))
    for other in ("status", "width", "Edema:logit"):  # in anybody's file a mistake
        with pytest.raises(DataError, match=rf"unknown columns '{other}'"):
            read(tmp_path, f"path,Edema,{other}\na.png,0.5,1\n")


def test_what_mxa_predict_wrote_formerly_is_read_unless_a_file_failed(tmp_path):
    path = "/data/CheXpert-v1.0-small/valid/patient1/study2/view1_frontal.jpg"
    header = f"path,{','.join(CHEXPERT14)},error\n"
    row = f"{path},{','.join(['0.5'] * 14)},\n"
    found = read(tmp_path, header + row)
    assert found.labels is CHEXPERT14
    assert (found.unit, found.study, found.patient) == ("image", ("valid/patient1/study2",), ("patient1",))
    blank = "," * 14
    with pytest.raises(DataError, match=r"p\.csv: 2 rows have an error .* the first b\.png: truncated; predict"):
        read(tmp_path, f"{header}{row}b.png,{blank}truncated\nc.png,{blank}no image\n")


@pytest.mark.parametrize(
    ("columns", "findings"),
    [
        ("Edema,No Finding", ("No Finding", "Edema")),
        ("Edema,Effusion,Hernia", ("Pleural Effusion", "Edema", "Hernia")),  # NIH's order
        ("Hernia,No Finding", ("No Finding", "Hernia")),
        ("Airspace Opacity", ("Lung Opacity",)),
    ],
)
def test_findings_are_those_of_the_known_data_sets(tmp_path, columns, findings):
    values = ",".join(str(k / 8) for k in range(columns.count(",") + 1))
    found = read(tmp_path, f"Image Index,{columns}\na.png,{values}\n")
    assert found.labels.findings == findings
    names = [{"Effusion": "Pleural Effusion", "Airspace Opacity": "Lung Opacity"}.get(c, c) for c in columns.split(",")]
    assert found.probability.tolist() == [[names.index(name) / 8 for name in findings]]


def test_all_of_a_set_is_the_set(tmp_path):
    text = f"path,{','.join(reversed(NIH14.findings))}\na.png,{','.join(['0'] * 14)}\n"
    assert read(tmp_path, text).labels is NIH14


def test_unknown_and_repeated_findings_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown columns 'Oedema', 'Sex'; take them out"):
        read(tmp_path, "path,Edema,Oedema,Sex\na,0,0,M\n")
    with pytest.raises(DataError, match=r"p\.csv: columns 'Effusion' and 'Pleural Effusion' both mean"):
        read(tmp_path, "path,Effusion,Pleural Effusion\na,0,0\n")
    with pytest.raises(DataError, match=r"p\.csv: no column is a finding"):
        read(tmp_path, "path,patient\na,1\n")
    with pytest.raises(DataError, match=r"unknown columns 'Hernia'.*chexpert14"):
        read(tmp_path, "path,Edema,Hernia\na,0,0\n", CHEXPERT14)
    with pytest.raises(DataError, match=r"the columns study and Study say the same"):
        read(tmp_path, "study,Study,Edema\na,a,0\n")
    with pytest.raises(DataError, match=r"the columns Patient and patient say the same"):
        read(tmp_path, "path,Patient,patient,Edema\na,1,1,0\n")


def test_a_study_beside_the_path_is_kept(tmp_path):
    found = read(tmp_path, "Study,Edema,path,PATIENT\ns1,0,a.png,007\n,1,b.png,008\n")
    assert (found.key, found.unit, found.study) == (("a.png", "b.png"), "image", ("s1", ""))
    assert found.patient == ("007", "008")


def test_patients_are_known_only_if_every_path_is_chexperts(tmp_path):
    mixed = read(tmp_path, "path,Edema\ntrain/patient1/study1/a.jpg,0\nother.jpg,1\n")
    assert not mixed.patients_known
    assert mixed.patient == mixed.key
    assert mixed.study == ("", "")


def test_names_are_compared_from_the_split_on_if_all_are_chexperts():
    image, study = "valid/patient1/study1/v.jpg", "test/patient2/study1"
    assert comparable([f"/x/CheXpert-v1.0/{image}", image, f"{study}/"]) == [image, image, study]
    assert comparable([f"x/{image}", "y/z.jpg/"]) == [f"x/{image}", "y/z.jpg"]
    for odd in ("xvalid/patient1/study1/v.jpg", "valid/patientX/study1", "valid/patient1/study1/v.jpg/more"):
        assert comparable([odd]) == [odd]


def test_file_predictions_check_what_must_fit_together():
    good = {"key": ("a",), "unit": "image", "study": ("",), "patient": ("a",), "patients_known": False, "labels": TWO}
    assert len(FilePredictions(**good, probability=np.zeros((1, 2)))) == 1
    with pytest.raises(ValueError, match="do not fit together"):
        FilePredictions(**good, probability=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="2 studies"):
        FilePredictions(**{**good, "study": ("", "")}, probability=np.zeros((1, 2)))
    with pytest.raises(DataError, match="outside"):
        FilePredictions(**good, probability=np.full((1, 2), 2.0))


# --- construction and join


def test_construction_checks_what_must_fit_together():
    with pytest.raises(ValueError, match="2 paths, but 1 patients"):
        Predictions(("a", "b"), ("1",), np.zeros((2, 2)), TWO)
    with pytest.raises(ValueError, match=r"\(1, 2\), got \(1, 3\)"):
        Predictions(("a",), ("1",), np.zeros((1, 3)), TWO)
    with pytest.raises(ValueError, match="logit must be"):
        Predictions(("a",), ("1",), np.zeros((1, 2)), TWO, np.zeros((2, 2)))
    with pytest.raises(DataError, match="outside"):
        Predictions(("a",), ("1",), np.full((1, 2), 2.0), TWO)
    with pytest.raises(DataError, match="occur more than once"):
        Predictions(("a", "a"), ("1", "1"), np.zeros((2, 2)), TWO)
    with pytest.raises(DataError, match=r"1 of 4 elements are logit values that are not finite.*row 1"):
        Predictions.from_logit(("a", "b"), ("1", "2"), [[0, 0], [0, np.inf]], TWO)


def test_join_puts_the_rows_into_the_order_of_the_table():
    predictions = some()
    order = np.random.default_rng(3).permutation(20)
    joined = predictions.join([predictions.path[i] for i in order])
    assert joined.path == tuple(f"x/{i}.jpg" for i in order)
    assert joined.patient == tuple(f"p{i // 2}" for i in order)
    np.testing.assert_array_equal(joined.probability, predictions.probability[order])
    np.testing.assert_array_equal(joined.logit, predictions.logit[order])


def test_join_names_what_does_not_fit():
    predictions = some(6)
    with pytest.raises(
        DataError, match=r"1 have no prediction \(new\); 1 are predicted but not in the table \(x/5\.jpg\)"
    ):
        predictions.join([*predictions.path[:5], "new"])
    with pytest.raises(DataError, match=r"4 are predicted but not in the table \(x/2.jpg, x/3.jpg, x/4.jpg, \.\.\.\)"):
        predictions.join(predictions.path[:2])
    with pytest.raises(DataError, match=r"the table: 1 images occur more than once \(x/0\.jpg\)"):
        predictions.join([*predictions.path, "x/0.jpg"])
