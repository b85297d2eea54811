import gzip
import json

import numpy as np
import pytest
from mark_files import BOX_IMAGES, encode_rle, nih_table, write_box_list

from mxa.data.chexpert import read_chexpert
from mxa.data.marks import read_marks
from mxa.data.phantom import make_phantom
from mxa.errors import DataError

KNOWN = r"give a phantom's folder .*, NIH's BBox_List_2017\.csv or CheXlocalize's gt_segmentations_val\.json"


class TestPick:
    def test_phantom(self, tmp_path):
        root = make_phantom(tmp_path / "p", images=4, size=64, workers=1)
        table = read_chexpert(root)
        for folder in (root, tmp_path / "p"):
            marks = read_marks(folder, table)
            assert marks.source == "phantom masks"
            assert marks.marks

    @pytest.mark.parametrize("name", ["BBox_List_2017.csv", "boxes.csv"])
    def test_nih(self, tmp_path, name):
        marks = read_marks(write_box_list(tmp_path / name), nih_table(BOX_IMAGES))
        assert marks.source == f"NIH boxes ({name})"
        assert len(marks.marks) == 3

    def test_nih_compressed(self, tmp_path):
        source = tmp_path / "BBox_List_2017.csv.gz"
        source.write_bytes(gzip.compress(write_box_list(tmp_path / "a").read_bytes()))
        assert len(read_marks(source, nih_table(BOX_IMAGES)).marks) == 3

    def test_chexlocalize(self, tmp_path, tiny_chexpert):
        table = read_chexpert(tiny_chexpert, splits=("test",))
        path = table.frame["path"][0]
        image = path.removeprefix("test/").removesuffix(".jpg").replace("/", "_")
        mask = np.eye(5, dtype=bool)
        content = {image: {"Edema": {"size": [5, 5], "counts": encode_rle(mask)}}}
        (tmp_path / "gt_segmentations_test.json").write_text(json.dumps(content))
        marks = read_marks(tmp_path / "gt_segmentations_test.json", table)
        assert marks.source == "CheXlocalize"
        np.testing.assert_array_equal(marks.by_path()[path]["Edema"].mask, mask)

    def test_unknown(self, tmp_path):
        (tmp_path / "a.txt").write_text("text")
        for source in (tmp_path, tmp_path / "a.txt"):
            with pytest.raises(DataError, match=rf"{source.name}: holds no marks that are known here; {KNOWN}"):
                read_marks(source, nih_table(BOX_IMAGES))

    def test_absent(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.json: no such file or folder"):
            read_marks(tmp_path / "a.json", nih_table(BOX_IMAGES))
