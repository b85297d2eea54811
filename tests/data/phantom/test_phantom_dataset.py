import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mxa.data.phantom import make_phantom
from mxa.data.phantom.plan import draw_case, draw_cases, numbers, split_cases
from mxa.errors import ConfigError, DataError
from mxa.labels import CHEXPERT14

FINDINGS = list(CHEXPERT14.findings)
IMAGES = 60


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("data") / "phantom", images=IMAGES, size=96, seed=3, workers=1)


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_files_do_not_depend_on_the_number_of_workers(tmp_path):
    one = make_phantom(tmp_path / "one", images=14, size=64, seed=1, workers=1)
    two = make_phantom(tmp_path / "two", images=14, size=64, seed=1, workers=2)
    assert digest(one) == digest(two)
    assert len(digest(one)) == 14 * 2 + 5


def test_another_seed_gives_other_images(tmp_path):
    one = make_phantom(tmp_path / "one", images=6, size=64, seed=1, workers=1)
    two = make_phantom(tmp_path / "two", images=6, size=64, seed=2, workers=1)
    images = [set(digest(root / "train").values()) for root in (one, two)]
    assert images[0]
    assert not images[0] & images[1]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_csv_is_chexperts(phantom, split):
    table = pd.read_csv(phantom / f"{split}.csv")
    assert list(table.columns) == ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS]
    assert len(table) > 0
    pattern = re.compile(rf"CheXpert-v1\.0-small/{split}/patient\d{{5}}/study\d+/view\d_(frontal|lateral)\.jpg")
    for row in table.to_dict("records"):
        match = pattern.fullmatch(row["Path"])
        assert match
        assert row["Frontal/Lateral"].lower() == match[1]
        assert (phantom.parent / row["Path"]).is_file()
        if match[1] == "lateral":
            assert pd.isna(row["AP/PA"])
        else:
            assert row["AP/PA"] in {"AP", "PA"}
    assert set(table["Sex"]) <= {"Male", "Female"}
    assert table["Age"].between(18, 90).all()
    assert set(np.unique(table[FINDINGS].fillna(9))) <= ({1.0, 0.0, -1.0, 9.0} if split == "train" else {0.0, 1.0})


def test_train_csv_writes_labels_as_chexpert_does(phantom):
    lines = (phantom / "train.csv").read_text().splitlines()[1:]
    assert {cell for line in lines for cell in line.split(",")[5:]} == {"1.0", "0.0", "-1.0", ""}


def test_all_images_of_a_study_share_their_labels(phantom):
    table = pd.concat([pd.read_csv(phantom / f"{s}.csv") for s in ("train", "valid", "test")])
    study = table["Path"].str.rsplit("/", n=1).str[0]
    assert len(pd.concat([study, table[FINDINGS]], axis=1).drop_duplicates()) == len(study.drop_duplicates())
    assert study.duplicated().any()


def test_every_image_is_listed_once_and_there_are_as_many_as_asked(phantom):
    table = pd.concat([pd.read_csv(phantom / f"{s}.csv") for s in ("train", "valid", "test")])
    files = {str(p.relative_to(phantom.parent)) for p in phantom.rglob("*.jpg")}
    assert len(table) == len(files) == IMAGES
    assert set(table["Path"]) == files


def test_splits_have_their_share_and_share_no_patient(phantom):
    patients, rows = {}, {}
    for split in ("train", "valid", "test"):
        path = pd.read_csv(phantom / f"{split}.csv")["Path"]
        patients[split], rows[split] = set(path.str.extract(r"(patient\d+)")[0]), len(path)
    assert not patients["train"] & patients["valid"]
    assert not patients["train"] & patients["test"]
    assert not patients["valid"] & patients["test"]
    # A patient of up to ten images or so may fall on a border.
    assert abs(rows["valid"] - 0.15 * IMAGES) < 8
    assert abs(rows["test"] - 0.15 * IMAGES) < 8


def test_truth_table_matches_valid_and_test_and_is_hidden_in_train(phantom):
    truth = pd.read_csv(phantom / "truth.csv").set_index("Path")
    for split in ("valid", "test"):
        table = pd.read_csv(phantom / f"{split}.csv").set_index("Path")
        np.testing.assert_array_equal(table[FINDINGS], truth.loc[table.index, FINDINGS])
    train = pd.read_csv(phantom / "train.csv").set_index("Path")
    assert (train[FINDINGS].fillna(0).to_numpy() != truth.loc[train.index, FINDINGS].to_numpy()).any()
    for finding in FINDINGS[1:]:
        visibility = truth[f"{finding} visibility"]
        np.testing.assert_array_equal(visibility.notna(), truth[finding] == 1)
        assert visibility.dropna().between(0, 1, inclusive="right").all()


def test_masks_and_boxes_agree_with_the_truth(phantom):
    truth = pd.read_csv(phantom / "truth.csv")
    boxes = pd.read_csv(phantom / "boxes.csv")
    assert list(boxes.columns) == ["Path", "finding", "x1", "y1", "x2", "y2"]
    boxed = set(zip(boxes["Path"], boxes["finding"], strict=True))
    assert (boxes[["x1", "y1"]].to_numpy() < boxes[["x2", "y2"]].to_numpy()).all()
    for row in truth.to_dict("records"):
        image = Image.open(phantom.parent / row["Path"])
        assert image.mode == "L"
        relative = row["Path"].removeprefix("CheXpert-v1.0-small/").replace(".jpg", ".png")
        mask = np.asarray(Image.open(phantom / "masks" / relative)).astype(np.int64)
        assert mask.shape == (image.height // 2, image.width // 2)
        for j, finding in enumerate(FINDINGS):
            assert bool(((mask >> j) & 1).any()) == ((row["Path"], finding) in boxed)
            if not row[finding] or not j:
                assert not ((mask >> j) & 1).any()
    drawn = truth[FINDINGS[1:]].to_numpy().sum()
    # A sign may fall outside the field or be a speck, but hardly ever does.
    assert len(boxed) > 0.95 * drawn


def test_masks_can_be_left_out(tmp_path):
    root = make_phantom(tmp_path / "p", images=5, size=64, workers=1, masks=False)
    assert not (root / "masks").exists()
    assert (root / "boxes.csv").is_file()


def test_progress_ends_with_all_images(tmp_path):
    seen = []
    make_phantom(tmp_path / "p", images=12, size=64, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (12, 12)
    assert seen == sorted(seen)
    assert len(seen) > 1


def test_a_patient_keeps_the_body_and_changes_the_pose(tmp_path, monkeypatch):
    calls = []
    from mxa.data.phantom import dataset

    original = dataset.draw_image

    def spy(patient, pose, *rest):
        calls.append((patient, pose))
        return original(patient, pose, *rest)

    monkeypatch.setattr(dataset, "draw_image", spy)
    make_phantom(tmp_path / "p", images=9, size=64, workers=1)
    bodies = {id(patient) for patient, _ in calls}
    assert len(calls) == 9
    assert len(bodies) == len(draw_cases(9, 0))
    assert len({pose.level for _, pose in calls}) == 9


def test_patients_have_three_to_five_studies_and_depend_on_seed_and_index_alone():
    cases = draw_cases(400, 7)
    assert {len(case.studies) for case in cases[:-1]} == {3, 4, 5}
    assert sum(case.images for case in cases) == 400
    again, other = draw_case(7, 11), draw_case(8, 11)
    for a, b in zip(cases[11].studies, again.studies, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.signs == b.signs
    assert [s.signs for s in other.studies] != [s.signs for s in again.studies]
    for case in cases:
        ages = [study.age for study in case.studies]
        assert ages == sorted(ages)


@pytest.mark.parametrize("images", [1, 4, 9, 14, 20, 300])
def test_every_split_that_is_asked_for_gets_a_patient(images):
    cases = draw_cases(images, 0)
    parts = split_cases(cases, 0, 0.15, 0.15)
    assert parts["train"]
    if len(cases) >= 3:
        assert parts["valid"]
        assert parts["test"]
    assert sorted(c.index for part in parts.values() for c in part) == list(range(len(cases)))


def test_a_split_that_is_not_asked_for_stays_empty():
    cases = draw_cases(100, 0)
    assert not split_cases(cases, 0, 0.0, 0.2)["valid"]
    assert not split_cases(cases, 0, 0.2, 0.0)["test"]
    assert len(split_cases(cases, 0, 0.0, 0.0)["train"]) == len(cases)


def test_numbers_are_chexperts_and_never_collide():
    cases = draw_cases(200, 0)
    parts = split_cases(cases, 0, 0.15, 0.15)
    given = numbers(parts)
    assert given[parts["train"][0].index] == 1
    assert given[parts["valid"][0].index] == 64541
    assert given[parts["test"][0].index] == 64741
    assert len(set(given.values())) == len(cases)


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(DataError, match=r"is not empty; name a new folder") as caught:
        make_phantom(tmp_path, images=3, size=64)
    assert str(tmp_path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["keep.txt"]
    with pytest.raises(DataError, match="is a file"):
        make_phantom(tmp_path / "keep.txt", images=3, size=64)


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    assert (make_phantom(tmp_path / "out", images=2, size=64, workers=1) / "train.csv").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_broken_run_leaves_nothing_behind(tmp_path):
    def stop(done, total):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        make_phantom(tmp_path / "out", images=4, size=64, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images must be an integer of at least 1, got 0"),
        ({"images": 2.5}, "images must be"),
        ({"images": True}, "images must be"),
        ({"size": 63}, "size must be an integer of at least 64"),
        ({"seed": -1}, "seed must be"),
        ({"valid_fraction": -0.1}, r"valid_fraction must be in \[0, 1\)"),
        ({"valid_fraction": float("nan")}, "valid_fraction"),
        ({"test_fraction": 1.0}, "test_fraction"),
        ({"valid_fraction": 0.6, "test_fraction": 0.4}, "must leave something to train on"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        make_phantom(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []
