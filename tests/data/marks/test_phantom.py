import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from mxa.data.chexpert import read_chexpert
from mxa.data.marks.phantom import find_phantom, read_phantom_marks
from mxa.data.phantom import make_phantom
from mxa.data.phantom.statistics import FINDINGS
from mxa.errors import DataError
from mxa.labels import CHEXPERT14, LabelSet


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    return make_phantom(tmp_path_factory.mktemp("p") / "p", images=12, size=64, workers=1)


@pytest.fixture
def copy(phantom, tmp_path):
    return shutil.copytree(phantom, tmp_path / "copy")


def listed_boxes(root):
    """Image -> finding -> boxes, of boxes.csv."""
    boxes = {}
    with (root / "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            image = boxes.setdefault(row["Path"].removeprefix("CheXpert-v1.0-small/"), {})
            image.setdefault(row["finding"], []).append([float(row[c]) for c in ("x1", "y1", "x2", "y2")])
    return boxes


def mask_file(root, path):
    return root / "masks" / path.replace(".jpg", ".png")


class TestRead:
    def test_all_images(self, phantom):
        assert CHEXPERT14.findings == FINDINGS
        table = read_chexpert(phantom)
        marks = read_phantom_marks(phantom, table)
        assert marks.source == "phantom masks"
        assert marks.unmatched == ()
        found, expected = marks.by_path(), listed_boxes(phantom)
        assert len(table) == 12
        for path in table.frame["path"]:
            pixels = np.asarray(Image.open(mask_file(phantom, path))).astype(int)
            signs = {f: pixels // 2**j % 2 == 1 for j, f in enumerate(FINDINGS) if (pixels // 2**j % 2).any()}
            assert list(found.get(path, {})) == list(signs)
            for finding, mask in signs.items():
                mark = found[path][finding]
                np.testing.assert_array_equal(mark.mask, mask)
                np.testing.assert_array_equal(mark.boxes, expected[path][finding])
        order = [(table.frame["path"].tolist().index(m.path), FINDINGS.index(m.finding)) for m in marks.marks]
        assert order == sorted(order)
        assert len(order) > 20

    def test_other_rows_are_unmatched(self, phantom):
        table = read_chexpert(phantom, splits=("test",))
        marks = read_phantom_marks(phantom, table)
        held = set(table.frame["path"])
        assert {mark.path for mark in marks.marks} <= held
        others = [path.removesuffix(".jpg") for path in listed_boxes(phantom) if path not in held]
        assert list(marks.unmatched) == others
        assert others

    def test_masks_of_other_rows_are_not_read(self, copy):
        shutil.rmtree(copy / "masks" / "train")
        read_phantom_marks(copy, read_chexpert(copy, splits=("valid", "test")))

    def test_only_findings_of_the_label_set(self, phantom):
        labels = LabelSet("two", ("Support Devices", "Lung Opacity"), ("SD", "LO"))
        marks = read_phantom_marks(phantom, read_chexpert(phantom, labels))
        assert {mark.finding for mark in marks.marks} == set(labels)
        order = [(m.path, labels.index(m.finding)) for m in marks.marks]
        assert [column for path, column in order if sum(p == path for p, _ in order) == 2][:2] == [0, 1]

    def test_find(self, phantom, tmp_path):
        assert find_phantom(phantom) == phantom
        assert find_phantom(phantom.parent) == phantom
        assert find_phantom(tmp_path) is None


class TestContradiction:
    @pytest.fixture
    def marked(self, copy):
        """A path of the phantom with a sign, and the finding."""
        path, boxes = next(iter(listed_boxes(copy).items()))
        return path, next(iter(boxes))

    def refuse(self, root, message):
        with pytest.raises(DataError, match=message):
            read_phantom_marks(root, read_chexpert(root))

    def change_rows(self, root, change):
        lines = (root / "boxes.csv").read_text().splitlines()
        (root / "boxes.csv").write_text("\n".join([lines[0], *change(lines[1:])]) + "\n")

    def test_no_masks(self, tmp_path):
        root = make_phantom(tmp_path / "p", images=4, size=64, workers=1, masks=False)
        self.refuse(root, "no masks/ there; make the phantom with its masks")

    def test_no_boxes(self, copy):
        (copy / "boxes.csv").unlink()
        self.refuse(copy, r"boxes\.csv: no such file")

    def test_missing_mask(self, copy, marked):
        mask_file(copy, marked[0]).unlink()
        self.refuse(copy, r"view1_\w+\.png: no such mask; is the table of this phantom")

    def test_broken_mask(self, copy, marked):
        file = mask_file(copy, marked[0])
        file.write_bytes(file.read_bytes()[:-40])
        self.refuse(copy, r"view1_\w+\.png: the mask cannot be decoded")

    def test_mask_is_no_image(self, copy, marked):
        mask_file(copy, marked[0]).write_text("text")
        self.refuse(copy, r"view1_\w+\.png: the mask cannot be decoded")

    def test_mask_of_eight_bits(self, copy, marked):
        Image.new("L", (32, 32)).save(mask_file(copy, marked[0]))
        self.refuse(copy, "not a phantom's mask")

    @pytest.mark.parametrize("bit", [0, 14, 15])
    def test_bit_without_a_finding(self, copy, marked, bit):
        file = mask_file(copy, marked[0])
        pixels = np.array(Image.open(file))
        pixels[3, 4] |= np.uint16(1 << bit)
        Image.fromarray(pixels).save(file)
        self.refuse(copy, "not a phantom's mask")

    def test_box_without_a_sign(self, copy, marked):
        absent = next(f for f in FINDINGS[1:] if f not in listed_boxes(copy)[marked[0]])
        self.change_rows(copy, lambda rows: [*rows, f"CheXpert-v1.0-small/{marked[0]},{absent},0.1,0.1,0.2,0.2"])
        self.refuse(copy, rf"its 1 boxes of {absent} in .* are not those of the mask's 0 parts")

    def test_sign_without_a_box(self, copy, marked):
        self.change_rows(copy, lambda rows: [r for r in rows if f"{marked[0]},{marked[1]}" not in r])
        self.refuse(copy, rf"its 0 boxes of {marked[1]} in .* are not those of the mask's [1-9]")

    def test_box_beside_the_sign(self, copy, marked):
        (number, line), *_ = [r for r in enumerate((copy / "boxes.csv").read_text().splitlines()) if marked[0] in r[1]]
        *names, x1, y1, x2, y2 = line.split(",")
        moved = ",".join([*names, f"{float(x1) + (float(x2) - float(x1)) / 2:.5f}", y1, x2, y2])
        self.change_rows(copy, lambda rows: [*rows[: number - 1], moved, *rows[number:]])
        self.refuse(copy, rf"boxes of {marked[1]} in .* are not those of the mask's")

    @pytest.mark.parametrize(
        "row",
        [
            *("a.jpg,Edema,0.1,0.1,0.1,0.2", "a.jpg,Edema,0.1,0.1,1.1,0.2", "a.jpg,Edema,,0.1,0.2,0.2"),
            *("a.jpg,Mass,0,0,1,1", ",Edema,0,0,1,1", "a.jpg,Edema,x,0,1,1"),
        ],
    )
    def test_illegal_row(self, copy, row):
        self.change_rows(copy, lambda rows: [rows[0], row, *rows[1:]])
        self.refuse(copy, r"boxes\.csv:3: no box of a finding")

    def test_other_columns(self, copy):
        text = (copy / "boxes.csv").read_text()
        (copy / "boxes.csv").write_text(text.replace("Path,finding,x1", "Path,label,x1"))
        self.refuse(copy, r"boxes\.csv: its columns are not Path, finding, x1")
