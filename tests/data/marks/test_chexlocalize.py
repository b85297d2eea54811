import json

import numpy as np
import pytest
from mark_files import encode_rle

from mxa.data.chexpert import read_chexpert
from mxa.data.marks.chexlocalize import FINDINGS, read_chexlocalize
from mxa.errors import DataError
from mxa.labels import CHEXPERT14

NAMES = ["Airspace Opacity" if finding == "Lung Opacity" else finding for finding in FINDINGS]
SIZE = (6, 8)
ZEROS = {"size": list(SIZE), "counts": encode_rle(np.zeros(SIZE, dtype=bool))}


@pytest.fixture(scope="module")
def table(tiny_chexpert):
    return read_chexpert(tiny_chexpert, splits=("valid",))


def image_of(path):
    return path.removeprefix("valid/").removesuffix(".jpg").replace("/", "_")


def mask_with(*parts):
    mask = np.zeros(SIZE, dtype=bool)
    for rows, columns in parts:
        mask[rows, columns] = True
    return mask


def encoded(mask):
    return {"size": list(mask.shape), "counts": encode_rle(mask)}


def write(folder, images):
    """All ten findings of every image, as the published file has them; those not given are zeros."""
    full = {image: dict.fromkeys(NAMES, ZEROS) | masks for image, masks in images.items()}
    path = folder / "gt_segmentations_val.json"
    path.write_text(json.dumps(full))
    return path


OPACITY = mask_with((slice(0, 2), slice(1, 4)), (slice(4, 6), slice(7, 8)))
HEART = mask_with((slice(2, 5), slice(2, 6)))


class TestRead:
    def test_marks(self, tmp_path, table):
        paths = table.frame["path"].tolist()
        source = write(
            tmp_path,
            {
                "patient64541_study1_view1_frontal": {"Edema": encoded(HEART)},
                image_of(paths[3]): {"Cardiomegaly": encoded(HEART)},
                image_of(paths[2]): {},
                image_of(paths[0]): {"Airspace Opacity": encoded(OPACITY), "Cardiomegaly": encoded(HEART)},
                "patient64542_study1_view2_lateral": {},
            },
        )
        marks = read_chexlocalize(source, table)
        assert marks.source == "CheXlocalize"
        assert marks.unmatched == ("patient64541_study1_view1_frontal", "patient64542_study1_view2_lateral")
        assert [(m.path, m.finding) for m in marks.marks] == [
            (paths[0], "Cardiomegaly"),
            (paths[0], "Lung Opacity"),
            (paths[3], "Cardiomegaly"),
        ]
        heart, opacity, lateral = marks.marks
        np.testing.assert_array_equal(heart.mask, HEART)
        np.testing.assert_array_equal(opacity.mask, OPACITY)
        np.testing.assert_array_equal(lateral.mask, HEART)
        np.testing.assert_allclose(heart.boxes, [[2 / 8, 2 / 6, 6 / 8, 5 / 6]], rtol=1e-15)
        np.testing.assert_allclose(opacity.boxes, [[1 / 8, 0, 4 / 8, 2 / 6], [7 / 8, 4 / 6, 1, 1]], rtol=1e-15)
        np.testing.assert_array_equal(opacity.region(*SIZE), OPACITY)
        np.testing.assert_array_equal(opacity.region(12, 16), OPACITY.repeat(2, axis=0).repeat(2, axis=1))

    def test_findings_are_chexperts(self):
        assert set(FINDINGS) < set(CHEXPERT14)
        assert len(FINDINGS) == 10

    def test_only_zeros(self, tmp_path, table):
        marks = read_chexlocalize(write(tmp_path, {image_of(table.frame["path"][0]): {}}), table)
        assert marks.marks == marks.unmatched == ()

    def test_none_of_the_images(self, tmp_path, table):
        source = write(tmp_path, {"patient64541_study1_view1_frontal": {"Edema": encoded(HEART)}})
        with pytest.raises(
            DataError, match=r"_val\.json: the table holds none of its 1 images, such as 'patient64541_"
        ):
            read_chexlocalize(source, table)


class TestIllegal:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"Edema": {"size": [6, 8], "counts": "123"}}, r"'Edema': the mask's runs have 6 pixels, its size 6 x 8"),
            ({"Edema": {"size": [6, 8], "counts": "~"}}, r"'Edema': character 0 of the mask, '~', is none of"),
            ({"Edema": {"size": [6, 8], "counts": [48]}}, r"'Edema' is no mask with size"),
            ({"Edema": {"size": [48], "counts": "`1"}}, r"'Edema' is no mask with size"),
            ({"Edema": {"size": [6, "8"], "counts": "`1"}}, r"'Edema' is no mask with size"),
            ({"Edema": {"size": [0, 8], "counts": "0"}}, r"'Edema' is no mask with size"),
            ({"Edema": {"counts": "`1"}}, r"'Edema' is no mask with size"),
            ({"Edema": [[[1.5, 2.5], [3, 4], [5, 6]]]}, r"'Edema' is no mask with size .*give gt_segmentations_val"),
            ({"img_size": [6, 8]}, r"'img_size' is none of CheXlocalize's findings; give gt_segmentations_val"),
            ({"Fracture": ZEROS}, r"'Fracture' is none of CheXlocalize's findings"),
            ({"Lung Opacity": ZEROS}, r"'Lung Opacity' is the same finding as 'Airspace Opacity'; keep one"),
        ],
    )
    def test_mask(self, tmp_path, table, change, message):
        image = image_of(table.frame["path"][1])
        with pytest.raises(DataError, match=rf"gt_segmentations_val\.json: {image}, {message}"):
            read_chexlocalize(write(tmp_path, {image: change}), table)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "cannot be read as JSON"),
            ("{", "cannot be read as JSON"),
            ('{"a": 1, "b": 2, "a": 3}', r"cannot be read as JSON \('a' is there twice\)"),
            ("[]", "holds no images with masks"),
            ("{}", "holds no images with masks"),
            ('{"images": [], "annotations": []}', "'images' is no image of CheXpert"),
        ],
    )
    def test_file(self, tmp_path, table, text, message):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=rf"a\.json: {message}"):
            read_chexlocalize(tmp_path / "a.json", table)

    def test_image_without_findings(self, tmp_path, table):
        image = image_of(table.frame["path"][0])
        (tmp_path / "a.json").write_text(json.dumps({image: [1]}))
        with pytest.raises(DataError, match=f"{image} has no findings with masks"):
            read_chexlocalize(tmp_path / "a.json", table)

    def test_absent(self, tmp_path, table):
        with pytest.raises(DataError, match=r"a\.json: cannot be read as JSON .*No such file"):
            read_chexlocalize(tmp_path / "a.json", table)
