"""The file that grows by epochs."""

from pathlib import Path

from mxa.training.callbacks import EpochRows


def test_rows_of_epochs_grow_and_are_dropped(tmp_path: Path) -> None:
    rows = EpochRows(tmp_path / "rows.csv")
    assert rows.read() == []
    rows.rewind(0)
    assert not rows.file.exists()
    for epoch in range(3):
        rows.append({"epoch": epoch, "block": "a", "value": 0.1}, {"epoch": epoch, "block": "b", "value": 1 / 3})
    rows.rewind(2)
    rows.append({"epoch": 2, "block": "a", "value": 5})
    assert rows.file.read_text().splitlines() == [
        "epoch,block,value",
        "0,a,0.1",
        f"0,b,{1 / 3!r}",
        "1,a,0.1",
        f"1,b,{1 / 3!r}",
        "2,a,5",
    ]
    assert rows.read()[-1] == {"epoch": "2", "block": "a", "value": "5"}
    rows.rewind(0)
    assert rows.read() == []
