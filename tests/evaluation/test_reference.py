"""Labels files, as CheXpert writes them and as anybody might."""

from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT_NAME
from mxa.data.chexpert import read_chexpert
from mxa.data.generic import read_csv
from mxa.errors import ConfigError, DataError
from mxa.evaluation.reference import Reference, read_reference, reference_of
from mxa.labels import CHEXPERT14, LabelPolicy, LabelSet, label_set

VALID = f"""Path,Sex,Age,Frontal/Lateral,AP/PA,{",".join(CHEXPERT14)}
CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,0.0,1.0{",0.0" * 12}
CheXpert-v1.0/valid/patient64541/study1/view2_lateral.jpg,Male,73,Lateral,,,-1.0,1.0,{",0.0" * 10}
CheXpert-v1.0/valid/patient64542/study1/view1_frontal.jpg,Unknown,400,Frontal,PA,1.0{",0.0" * 13}
"""


def read(folder: Path, text: str, labels: LabelSet | None = None, policy: LabelPolicy | None = None) -> Reference:
    (folder / "labels.csv").write_text(text)
    return read_reference(folder / "labels.csv", labels, policy)


def test_chexperts_validation_file(tmp_path: Path) -> None:
    found = read(tmp_path, VALID)
    assert found.labels is CHEXPERT14
    assert found.unit == "image"
    assert found.key[1] == "CheXpert-v1.0/valid/patient64541/study1/view2_lateral.jpg"
    assert found.study == ("valid/patient64541/study1",) * 2 + ("valid/patient64542/study1",)
    assert found.patient == ("patient64541", "patient64541", "patient64542")
    assert found.patients_known
    assert (found.uncertain, found.blank) == (1, 2)
    assert found.mask.all()
    assert found.target.dtype == np.float64
    np.testing.assert_array_equal(found.target[:, :4], [[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]])
    frame = found.frame
    assert list(frame.columns) == ["sex", "age", "view", "projection"]
    assert frame["sex"].tolist() == ["M", "M", ""]
    assert frame["age"].tolist()[:2] == [73, 73]
    assert np.isnan(frame["age"].iloc[2]), "nobody is 400 years old"
    assert frame["view"].tolist() == ["frontal", "lateral", "frontal"]
    assert frame["projection"].tolist() == ["AP", "", "PA"]


def test_the_policy_decides_what_uncertain_and_blank_are(tmp_path: Path) -> None:
    text = "path,Edema,Fracture\na,-1,\nb,1,0\nc,-1,1\n"
    zeros = read(tmp_path, text, policy=LabelPolicy("u-zeros", blank="ignore"))
    assert zeros.target.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert zeros.mask.tolist() == [[True, False], [True, True], [True, True]]
    assert (zeros.uncertain, zeros.blank) == (2, 1)
    ignored = read(tmp_path, text, policy=LabelPolicy("u-ignore"))
    assert ignored.mask.tolist() == [[False, True], [True, True], [False, True]]
    smooth = read(tmp_path, text, policy=LabelPolicy("u-ones-smooth", per_finding={"Fracture": "u-zeros-smooth"}))
    assert smooth.target.tolist() == [[1, 0], [1, 0], [1, 1]], "nothing is random in the truth"


def test_a_policy_may_name_findings_that_the_file_lacks_but_no_unknown_ones(tmp_path: Path) -> None:
    policy = LabelPolicy(per_finding={"Pneumonia": "u-zeros", "Edema": "u-zeros"})
    assert read(tmp_path, "path,Edema\na,-1\n", CHEXPERT14, policy).target.tolist() == [[0]]
    with pytest.raises(ConfigError, match=r"no finding 'Hernia'"):
        read(tmp_path, "path,Edema\na,-1\n", CHEXPERT14, LabelPolicy(per_finding={"Hernia": "u-zeros"}))


def test_ground_truth_by_study(tmp_path: Path) -> None:
    found = read(tmp_path, "Study,Edema,Atelectasis\nCheXpert-v1.0/test/patient64741/study1,1.0,0.0\n")
    assert (found.unit, found.study, found.patient) == ("study", ("test/patient64741/study1",), ("patient64741",))
    assert found.labels.findings == ("Edema", "Atelectasis")
    assert found.frame.shape == (1, 0)


def test_other_columns_are_kept_as_text(tmp_path: Path) -> None:
    found = read(tmp_path, "Image Index,Patient,sex,hospital,Hernia,age,site code\na.png,07,f,,1,058Y,01\n")
    assert found.labels.findings == ("Hernia",)
    assert found.patient == ("07",)
    assert found.frame.to_dict("list") == {"sex": ["F"], "hospital": [""], "age": [58.0], "site code": ["01"]}


def test_an_index_that_pandas_wrote_is_metadata(tmp_path: Path) -> None:
    assert read(tmp_path, ",path,Edema\n0,a,1\n1,b,0\n").frame.iloc[:, 0].tolist() == ["0", "1"]


def test_unknown_patients_are_one_per_row(tmp_path: Path) -> None:
    found = read(tmp_path, "path,Edema\na.png,1\nb.png,0\n")
    assert not found.patients_known
    assert found.patient == found.key
    assert found.study == ("", "")


def test_given_labels_are_the_ones_looked_for(tmp_path: Path) -> None:
    text = "path,Edema,Mass,Effusion\na,1,0,1\n"
    assert read(tmp_path, text, CHEXPERT14).labels.findings == ("Edema", "Pleural Effusion")
    assert read(tmp_path, text, CHEXPERT14).frame["Mass"].tolist() == ["0"]
    assert read(tmp_path, text).labels.findings == ("Pleural Effusion", "Mass", "Edema"), "NIH's, as all are NIH's"
    custom = label_set(["Mass", "Edema"])
    assert read(tmp_path, text, custom).labels is custom
    assert read(tmp_path, text, custom).target.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,Edema\na,1\n", r"labels\.csv: no column names the rows"),
        ("path,Oedema\na,1\n", r"labels\.csv: no column is a finding"),
        (
            "path,Effusion,Pleural Effusion\na,1,1\n",
            r"labels\.csv: columns 'Effusion' and 'Pleural Effusion' both mean",
        ),
        ("path,Edema\na,1\nb,2\n", r"labels\.csv:3: illegal label: column 'Edema' is 2"),
        (
            "path,Edema\na,yes\nb,0.5\n",
            r"labels\.csv:2: illegal label: column 'Edema' is yes; .* \(and 1 more labels\)",
        ),
        ("path,Edema\na,True\n", r"labels\.csv:2: illegal label"),
        ("path,Edema\na,1\na,1\nb,0\n", r"labels\.csv: 1 images occur more than once \(a\)"),
        ("Study,Edema\na,1\na,1\n", r"labels\.csv: 1 studies occur more than once \(a\); one row per study"),
        ("path,Edema\n,1\n", r"labels\.csv, line 2: path is blank"),
        ("path,patient,Edema\na,1,1\nb,,1\nc,,1\n", r"line 3: patient is blank \(and in 1 more rows\)"),
        ("path,Sex,sex,Edema\na,M,M,1\n", r"labels\.csv: the columns sex and Sex say the same"),
        ("path,Edema\n", r"labels\.csv: no row below the header"),
        ("path,Edema\na\n", r"line 2 has 1 fields, the header has 2"),
    ],
)
def test_broken_files_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_table_and_its_own_csv_say_the_same(tiny_chexpert: Path) -> None:
    policy = LabelPolicy("u-ignore", blank="ignore")
    table = read_chexpert(tiny_chexpert, policy=policy).split("train")
    ours, theirs = reference_of(table), read_reference(tiny_chexpert / ROOT_NAME / "train.csv", policy=policy)
    assert [f"{ROOT_NAME}/{key}" for key in ours.key] == list(theirs.key)
    assert (ours.unit, ours.study, ours.patient) == (theirs.unit, theirs.study, theirs.patient)
    assert ours.patients_known
    np.testing.assert_array_equal(ours.target, theirs.target)
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    assert (ours.uncertain, ours.blank) == (theirs.uncertain, theirs.blank)
    assert ours.uncertain > 0
    assert ours.blank > 0
    assert ours.frame.to_dict("list") == theirs.frame.to_dict("list")


def test_without_a_study_column_no_study_is_known(tmp_path: Path) -> None:
    """The table takes each image's path for its study; an image is none, and cannot be folded to one."""
    (tmp_path / "l.csv").write_text("path,study,Edema\na,s1,1\nb,,0\nc,s1,1\n")
    for column, studies in ((None, ("", "", "")), ("study", ("s1", "", "s1"))):
        table = read_csv(
            tmp_path / "l.csv", tmp_path, labels=label_set(["Edema"]), path_column="path", study_column=column
        )
        assert reference_of(table).study == studies


def test_construction_checks_what_must_fit_together(tmp_path: Path) -> None:
    good = vars(read(tmp_path, "path,Edema\na,1\nb,0\n"))
    assert len(Reference(**good)) == 2
    with pytest.raises(ValueError, match="1 patients"):
        Reference(**{**good, "patient": ("a",)})
    with pytest.raises(ValueError, match=r"must be \(2, 1\), got \(2, 2\)"):
        Reference(**{**good, "target": np.zeros((2, 2))})
    with pytest.raises(DataError, match="more than once"):
        Reference(**{**good, "key": ("a", "a")})
