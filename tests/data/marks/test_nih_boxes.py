import gzip
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mark_files import BOX_HEADER, BOX_IMAGES, BOX_ROWS, nih_table, write_box_list

from mxa.data.marks.nih_boxes import read_nih_boxes
from mxa.errors import DataError
from mxa.labels import CHEXPERT14


class TestRead:
    @pytest.mark.parametrize("ending", ["", ",,,"])  # some copies end the rows as the header
    def test_marks(self, tmp_path, ending):
        source = write_box_list(tmp_path / "BBox_List_2017.csv", [row + ending for row in BOX_ROWS])
        marks = read_nih_boxes(source, nih_table(BOX_IMAGES))
        assert marks.source == "NIH boxes (BBox_List_2017.csv)"
        assert marks.unmatched == ("00000099_000.png", "00000098_000.png")
        assert [(m.path, m.finding) for m in marks.marks] == [
            (f"images_001/images/{BOX_IMAGES[0]}", "Infiltration"),
            (f"images_001/images/{BOX_IMAGES[1]}", "Pleural Effusion"),
            (f"images_001/images/{BOX_IMAGES[1]}", "Mass"),
        ]
        pixels = [[[256, 128.5, 768, 428.5], [10, 20, 40, 60]], [[1, 2, 4, 6]], [[0, 0, 1024, 1024]]]
        for mark, expected in zip(marks.marks, pixels, strict=True):
            assert mark.mask is None
            np.testing.assert_allclose(mark.boxes * 1024, expected, rtol=1e-14)

    def test_gz(self, tmp_path):
        source = tmp_path / "BBox_List_2017.csv.gz"
        source.write_bytes(gzip.compress(write_box_list(tmp_path / "a").read_bytes()))
        assert len(read_nih_boxes(source, nih_table(BOX_IMAGES)).marks) == 3

    def test_windows_line_ends_byte_order_mark_and_blank_lines(self, tmp_path):
        source = tmp_path / "a.csv"
        source.write_bytes("\r\n".join(["\ufeff" + BOX_HEADER, *BOX_ROWS[:4], "", *BOX_ROWS[4:], "", ""]).encode())
        assert len(read_nih_boxes(source, nih_table(BOX_IMAGES)).marks) == 3

    def test_only_findings_of_the_label_set(self, tmp_path):
        marks = read_nih_boxes(write_box_list(tmp_path / "a.csv"), nih_table(BOX_IMAGES, CHEXPERT14))
        assert [m.finding for m in marks.marks] == ["Pleural Effusion"]

    def test_none_of_the_images(self, tmp_path):
        with pytest.raises(
            DataError, match=r"a\.csv: the table holds none of its 4 images, such as '00000001_000\.png'"
        ):
            read_nih_boxes(write_box_list(tmp_path / "a.csv"), nih_table(["00000055_000.png"]))


class TestIllegal:
    @pytest.mark.parametrize(
        "box",
        [
            *("5,5,0,9", "5,5,9,-1", "-1,5,20,20", "1000,5,24.1,20", "5,1000,20,24.1"),
            *("5,5,9,", "5,5,9", "x,5,9,9", "nan,5,9,9", "5,5,inf,9"),
        ],
    )
    def test_box(self, tmp_path, box):
        source = write_box_list(tmp_path / "a.csv", [BOX_ROWS[0], "", f"00000003_000.png,Infiltrate,{box}"])
        with pytest.raises(
            DataError,
            match=r"a\.csv:4: no box x, y, w, h with an area inside 1024 .*,Infiltrate,",
        ):
            read_nih_boxes(source, nih_table(BOX_IMAGES))

    def test_box_of_an_image_that_the_table_does_not_hold(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.csv:3: no box"):
            read_nih_boxes(
                write_box_list(tmp_path / "a.csv", [BOX_ROWS[0], "00000099_000.png,Mass,1,2,3,0"]),
                nih_table(BOX_IMAGES),
            )

    @pytest.mark.parametrize("finding", ["Covid", "", "mass", "No Finding"])
    def test_finding(self, tmp_path, finding):
        source = write_box_list(tmp_path / "a.csv", [BOX_ROWS[0], f"00000003_000.png,{finding},1,2,3,4"])
        with pytest.raises(DataError, match=rf"a\.csv:3: none of NIH's findings: 00000003_000\.png,{finding},1,2,3,4$"):
            read_nih_boxes(source, nih_table(BOX_IMAGES))

    @pytest.mark.parametrize("image", ["", "../a.png", "a\\b.png"])
    def test_image(self, tmp_path, image):
        with pytest.raises(DataError, match=r"a\.csv:3: no image's file name"):
            read_nih_boxes(
                write_box_list(tmp_path / "a.csv", [BOX_ROWS[0], f"{image},Mass,1,2,3,4"]), nih_table(BOX_IMAGES)
            )

    def test_more_fields(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.csv:2: more than six fields"):
            read_nih_boxes(write_box_list(tmp_path / "a.csv", [BOX_ROWS[0] + ",7,,"]), nih_table(BOX_IMAGES))
        with pytest.raises(DataError, match=r"a\.csv: not a readable box list .*line 2, saw 10"):
            read_nih_boxes(write_box_list(tmp_path / "a.csv", [BOX_ROWS[0] + ",,,,"]), nih_table(BOX_IMAGES))

    @pytest.mark.parametrize("header", ["Path,finding,x1,y1,x2,y2", "Image Index,Finding Labels,Bbox [x,y,w,h],,,", ""])
    def test_header(self, tmp_path, header):
        with pytest.raises(
            DataError, match=r"a\.csv: the first line is not Image Index,Finding Label,Bbox \[x,y,w,h\]"
        ):
            read_nih_boxes(write_box_list(tmp_path / "a.csv", header=header), nih_table(BOX_IMAGES))

    def test_no_rows(self, tmp_path):
        with pytest.raises(DataError, match="holds none of its 0 images; are these"):
            read_nih_boxes(write_box_list(tmp_path / "a.csv", []), nih_table(BOX_IMAGES))

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", BOX_HEADER.encode() + b'\n"00000001_000.png,Mass,1'])
    def test_unreadable(self, tmp_path, content):
        source = tmp_path / "a.csv"
        source.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.csv: (not a readable box list|the first line is not)"):
            read_nih_boxes(source, nih_table(BOX_IMAGES))

    def test_broken_gz(self, tmp_path):
        source = tmp_path / "a.csv.gz"
        for content in (b"no gzip", gzip.compress(write_box_list(tmp_path / "a").read_bytes())[:-20]):
            source.write_bytes(content)
            with pytest.raises(DataError, match=r"a\.csv\.gz: not a readable box list"):
                read_nih_boxes(source, nih_table(BOX_IMAGES))

    def test_absent(self, tmp_path):
        with pytest.raises(DataError, match=r"a\.csv: no such file$"):
            read_nih_boxes(tmp_path / "a.csv", nih_table(BOX_IMAGES))


@pytest.fixture(scope="module")
def published():
    found = importlib.util.find_spec("torchxrayvision")
    path = Path(found.origin).parent / "data" / "BBox_List_2017.csv.gz" if found is not None and found.origin else None
    if path is None or not path.is_file():
        pytest.skip("NIH's box list comes with torchxrayvision, which is not installed")
    return path


class TestPublishedFile:
    def test_all_boxes(self, published):
        lines = gzip.decompress(published.read_bytes()).decode().splitlines()[1:]
        fields = [line.split(",")[:6] for line in lines]
        images = sorted({image for image, *_ in fields})
        marks = read_nih_boxes(published, nih_table(images))
        assert len(marks.by_path()) == len(images) == 880
        assert marks.unmatched == ()
        assert sum(len(mark.boxes) for mark in marks.marks) == len(marks.marks) == 984
        counts = Counter(mark.finding for mark in marks.marks)
        assert counts == {
            "Atelectasis": 180,
            "Pleural Effusion": 153,
            "Cardiomegaly": 146,
            "Infiltration": 123,
            "Pneumonia": 120,
            "Pneumothorax": 98,
            "Mass": 85,
            "Nodule": 79,
        }
        names = {"Infiltrate": "Infiltration", "Effusion": "Pleural Effusion"}
        found = marks.by_path()
        for image, name, *numbers in fields:
            x, y, w, h = map(float, numbers)
            [box] = found[f"images_001/images/{image}"][names.get(name, name)].boxes
            np.testing.assert_allclose(box, [x / 1024, y / 1024, (x + w) / 1024, (y + h) / 1024], rtol=1e-13)

    def test_some_of_its_images(self, published):
        image = "00013118_008.png"
        marks = read_nih_boxes(published, nih_table([image, "00000055_000.png"]))
        assert [(m.path.rsplit("/")[-1], m.finding) for m in marks.marks] == [(image, "Atelectasis")]
        assert len(marks.unmatched) == 879
        assert image not in marks.unmatched
