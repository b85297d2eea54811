"""Packs: made, gone on with, refused, verified, and trained from to the same bits as without one."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dicom_files
from conftest import same_state, small_config, write_chexpert
from mxa.data import packing
from mxa.data.decode import decode, decode_all
from mxa.data.images import read_reduced
from mxa.data.loader import RadiographDataset
from mxa.data.options import CsvOptions, DataOptions, read
from mxa.data.pack import INDEX, MANIFEST, PIXELS, REJECTS, open_pack
from mxa.data.packing import make_pack, verify_pack
from mxa.data.table import Table
from mxa.errors import ConfigError, DataError
from mxa.models.artifact import load
from mxa.preprocess import Preprocess
from mxa.training.config import KdConfig, OptimConfig
from mxa.training.loaders import make_dataset
from mxa.training.run import train
from mxa.training.teacher_cache import fill_cache

CONTRACT = Preprocess(size=32)
OPTIM = OptimConfig(epochs=1, batch_size=8, lr_batch_size=8, warmup_epochs=0, cooldown_epochs=0)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "BLOCK", 16)


@pytest.fixture
def table(tiny_chexpert: Path) -> Table:
    return read(DataOptions(root=str(tiny_chexpert)))


def spoilt(folder: Path, names: int) -> tuple[Table, list[Path]]:
    """A data set of which some pictures cannot be read."""
    table = read(DataOptions(root=str(write_chexpert(folder, {"train": 12, "valid": 4}))))
    broken = table.files()[3 : 3 + names]
    for file in broken:
        file.rename(file.with_suffix(".kept"))
        file.write_text("no picture")
    return table, broken


def test_a_pack_holds_the_contracts_pixels(table: Table, tmp_path: Path, small_blocks: None) -> None:
    seen: list[tuple[int, int]] = []
    out = make_pack(table, tmp_path / "pack", CONTRACT, progress=lambda *at: seen.append(at))
    pack = open_pack(out, CONTRACT)
    np.testing.assert_array_equal(pack.pixels, decode_all(table.files(), CONTRACT))
    assert seen[-1] == (len(table), len(table))
    assert list(pack.paths) == table.frame["path"].tolist()
    assert {file.name for file in out.iterdir()} == {PIXELS, INDEX, REJECTS, MANIFEST}
    assert pd.read_parquet(out / INDEX)["split"].tolist() == table.frame["split"].tolist()
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["data"] == {"dataset": "chexpert", "fingerprint": table.fingerprint()}
    assert [block["start"] for block in manifest["blocks"]] == list(range(0, len(table), 16))
    assert list(tmp_path.iterdir()) == [out], "nothing is left beside it"


def test_scaling_is_the_models_and_does_not_matter(table: Table, tmp_path: Path) -> None:
    out = make_pack(table.split("test"), tmp_path / "pack", CONTRACT)
    open_pack(out, replace(CONTRACT, mean=0.5, std=0.5))
    with pytest.raises(ConfigError, match=r"was packed with preprocess\.size 32, here 64"):
        open_pack(out, replace(CONTRACT, size=64))
    with pytest.raises(ConfigError, match=r"preprocess\.fit 'squash', here 'pad'"):
        open_pack(out, replace(CONTRACT, fit="pad"))


def test_a_killed_pack_goes_on(
    table: Table, tmp_path: Path, small_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def watched(path: Path, *args: object, **options: object) -> np.ndarray:
        decoded.append(path)
        if len(decoded) == 40:
            raise KeyboardInterrupt
        return decode(path, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "decode", watched)
    with pytest.raises(KeyboardInterrupt):
        make_pack(table, tmp_path / "pack", CONTRACT, workers=1)
    assert not (tmp_path / "pack").exists()
    with (tmp_path / ".pack.part" / packing.BLOCKS).open("a") as stream:
        stream.write('{"start": 32, "st')  # the kill came while it noted a block
    before = len(decoded)
    out = make_pack(table, tmp_path / "pack", CONTRACT, workers=1)
    assert len(decoded) - before == len(table) - 32, "two blocks of 16 were done"
    np.testing.assert_array_equal(open_pack(out, CONTRACT).pixels, decode_all(table.files(), CONTRACT))
    assert verify_pack(out) == []


def test_another_contract_begins_anew(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(packing._Part, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_pack(table, tmp_path / "pack", CONTRACT)
    other = replace(CONTRACT, fit="pad")
    out = make_pack(table, tmp_path / "pack", other)
    np.testing.assert_array_equal(open_pack(out, other).pixels, decode_all(table.files(), other))


def test_unreadable_pictures_stop_it_and_are_all_listed(tmp_path: Path, small_blocks: None) -> None:
    table, broken = spoilt(tmp_path / "data", 2)
    with pytest.raises(DataError, match=r"2 of 32 pictures cannot be read .*not an image.*rejects\.csv") as error:
        make_pack(table, tmp_path / "pack", CONTRACT, allowed=1)
    assert not (tmp_path / "pack").exists()
    listed = tmp_path / ".pack.part" / REJECTS
    assert str(listed) in str(error.value)
    with listed.open() as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == table.frame["path"][3:5].tolist()
    for file in broken:  # mended: the same call goes on
        shutil.move(file.with_suffix(".kept"), file)
    out = make_pack(table, tmp_path / "pack", CONTRACT)
    np.testing.assert_array_equal(open_pack(out, CONTRACT).pixels, decode_all(table.files(), CONTRACT))
    assert (out / REJECTS).read_text().splitlines() == ["path,reason"]


def test_allowed_ones_are_left_out_and_missed_where_they_are_wanted(tmp_path: Path, small_blocks: None) -> None:
    table, _ = spoilt(tmp_path / "data", 2)
    out = make_pack(table, tmp_path / "pack", CONTRACT, allowed=2)
    kept = table.take([row for row in range(len(table)) if row not in (3, 4)])
    pack = open_pack(out, CONTRACT)
    np.testing.assert_array_equal(pack.pixels[pack.rows_of(kept)], decode_all(kept.files(), CONTRACT))
    assert len(pack.pixels) == 30
    assert verify_pack(out) == []
    with pytest.raises(DataError, match=r"lacks 2 of 32 pictures, such as train/.*rejects\.csv must be mended"):
        pack.rows_of(table)


def test_verify_finds_a_flipped_bit(table: Table, tmp_path: Path, small_blocks: None) -> None:
    out = make_pack(table, tmp_path / "pack", CONTRACT)
    pixels = np.load(out / PIXELS, mmap_mode="r+")
    pixels[20, 3, 4] ^= 1
    pixels.flush()
    (message,) = verify_pack(out)
    assert "rows 16 to 31 are damaged" in message


def test_what_is_no_pack_is_refused(table: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no pack: manifest\.json cannot be read"):
        open_pack(tmp_path, CONTRACT)
    out = make_pack(table.split("test"), tmp_path / "pack", CONTRACT)
    with pytest.raises(ConfigError, match="exists"):
        make_pack(table, out, CONTRACT)
    manifest = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps({name: manifest[name] for name in manifest if name != "blocks"}))
    with pytest.raises(DataError, match="it lacks blocks"):
        verify_pack(out)
    (out / MANIFEST).write_text(json.dumps(manifest))
    np.save(out / PIXELS, np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(DataError, match=r"is damaged: pixels \(3, 32, 32\)"):
        open_pack(out, CONTRACT)
    (out / PIXELS).write_bytes(b"")
    with pytest.raises(DataError, match=r"is damaged .*pack again"):
        open_pack(out, CONTRACT)
    (out / PIXELS).unlink()
    with pytest.raises(DataError, match=r"is damaged .*pack again"):
        open_pack(out, CONTRACT)
    for version in (1, 99):  # 1 has reduced JPEGs that are shifted
        (out / MANIFEST).write_text(json.dumps({"format_version": version}))
        with pytest.raises(DataError, match=rf"format version {version}, .*pack again"):
            open_pack(out, CONTRACT)


def test_a_pack_of_another_data_set_is_refused(table: Table, tmp_path: Path) -> None:
    pack = open_pack(make_pack(table, tmp_path / "pack", CONTRACT), CONTRACT)
    with pytest.raises(DataError, match=r"pack is a pack of chexpert, the table is of nih; pack these data"):
        pack.rows_of(replace(table, dataset="nih"))


@pytest.mark.parametrize("reduced", [False, True])
def test_other_pictures_under_the_same_names_are_refused(reduced: bool, tmp_path: Path) -> None:
    one, other = (
        read(DataOptions(root=str(write_chexpert(tmp_path / name, {"train": 3, "valid": 2}, seed, side=160))))
        for seed, name in enumerate(("one", "other"))
    )
    config = small_config(tmp_path / "one", tmp_path / "run", OPTIM)
    out = make_pack(one, tmp_path / "pack", config.preprocess, reduced=reduced)
    config = replace(config, pack=str(out))
    assert len(make_dataset(config, one.split("valid"), cached=False)) == 4
    for split in ("train", "valid"):
        part = other.split(split)
        with pytest.raises(DataError, match=r"pack was made of other pictures: .*other/.*\.jpg differs"):
            make_dataset(config, part, cached=False)
        for file in part.files():
            file.unlink()
        assert len(make_dataset(config, part, cached=False)) == len(part), "a pack may be used without the pictures"


def test_a_sample_whose_decoder_is_not_here_is_passed_over(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ConfigError("DICOM files need pydicom")

    pack = open_pack(make_pack(table, tmp_path / "pack", CONTRACT), CONTRACT)
    monkeypatch.setattr("mxa.data.pack.decode", missing)
    pack.check_pictures(table)


def test_a_path_twice_is_refused(table: Table, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"train\.csv:3: {table.frame['path'][1]} is there already, .*take the row out"
    ):
        make_pack(table.take([0, 1, 1]), tmp_path / "pack", CONTRACT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", ["", '{"format_version": 2, "da'])
def test_a_part_whose_manifest_is_torn_begins_anew(torn: str, table: Table, tmp_path: Path) -> None:
    part = tmp_path / ".pack.part"
    part.mkdir()
    (part / MANIFEST).write_text(torn)
    assert verify_pack(make_pack(table, tmp_path / "pack", CONTRACT)) == []


def test_what_is_written_to_a_batch_never_reaches_the_pack(table: Table, tmp_path: Path) -> None:
    out = make_pack(table, tmp_path / "pack", CONTRACT)
    pack = open_pack(out, CONTRACT)
    part = table.split("valid")
    dataset = RadiographDataset(part, CONTRACT, pack.pixels, positions=pack.rows_of(part))
    batch = dataset.__getitems__([(0, 2), (0, 0)])
    expected = np.stack([decode(part.files()[row], CONTRACT) for row in (2, 0)])
    np.testing.assert_array_equal(batch.image[:, 0], expected)
    batch.image.zero_()
    assert dataset.pixels is not None
    dataset.pixels[:] = 0
    assert verify_pack(out) == []


def test_training_from_a_pack_is_training_without_one(tiny_chexpert: Path, table: Table, tmp_path: Path) -> None:
    plain = small_config(tiny_chexpert, tmp_path / "plain", OPTIM)
    out = make_pack(table, tmp_path / "pack", plain.preprocess)
    packed = replace(plain, out=str(tmp_path / "packed"), pack=str(out))
    models = [load(train(config).model).model.state_dict() for config in (plain, packed)]
    assert same_state(*models)


def test_a_teachers_cache_is_filled_from_the_pack(
    tiny_chexpert: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tiny_chexpert, tmp_path / "teacher", OPTIM)
    teacher = train(config).model
    out = make_pack(table, tmp_path / "pack", config.preprocess)
    kd = KdConfig(teacher=str(teacher), cache=str(tmp_path / "plain"))
    fill_cache(replace(config, kd=kd))
    monkeypatch.setattr("mxa.data.loader.decode", lambda *_: pytest.fail("decoded"))
    packed = replace(config, pack=str(out), out=str(tmp_path / "run"), kd=replace(kd, cache=str(tmp_path / "packed")))
    fill_cache(packed)
    for name in ("logits.npy", "glances.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / "packed" / name), np.load(tmp_path / "plain" / name))
    train(packed)  # compares the pictures with the cache's glances, without decoding any


def radiograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth structure, edges and noise, as large as a real one."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 10)).astype(np.uint8)).resize((width, height), 3)
    pixels = np.asarray(coarse, dtype=np.float64) * 0.8 + rng.normal(0, 12, (height, width))
    pixels[height // 3 : height // 3 + 40, :] += 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_reduced_decoding_changes_a_grey_level_here_and_there(mode: str, tmp_path: Path) -> None:
    file = tmp_path / "large.jpg"
    radiograph(1900, 2300).convert(mode).save(file, quality=92)
    contract = Preprocess(size=224)
    full, fast = decode(file, contract).astype(int), decode(file, contract, reduced=True).astype(int)
    assert (full != fast).any(), "it was decoded at a reduced size"
    assert np.abs(full - fast).mean() < 0.5
    assert np.abs(full - fast).max() <= 4


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("size", "scale"), [(60, 2), (30, 4), (16, 8)])
@pytest.mark.parametrize(("width", "height"), [(321, 281), (271, 383)])
def test_reduced_decoding_moves_nothing(
    width: int, height: int, size: int, scale: int, fit: str, tmp_path: Path
) -> None:
    """Sides that are no multiples of the scale; bright lines at the right and at the bottom would tell."""
    x, y = np.arange(width), np.arange(height)[:, None]
    lines = [np.exp(-(((at - middle) / 12) ** 2)) for at, middle in ((x, width - 40), (x, 200), (y, height - 40))]
    Image.fromarray((30 + 200 * np.maximum.reduce(np.broadcast_arrays(*lines))).astype(np.uint8)).save(
        tmp_path / "a.jpg", quality=95
    )
    grey, _ = read_reduced(tmp_path / "a.jpg", at_least=2 * size)
    assert grey.shape == (-(-height // scale), -(-width // scale))
    contract = Preprocess(size=size, fit=fit)
    full, fast = (decode(tmp_path / "a.jpg", contract, reduced=reduced).astype(int) for reduced in (False, True))
    assert np.abs(full - fast).max() <= (0 if fit == "pad" else 3)
    if fit != "pad":
        assert np.abs(full - contract.resize(grey)).max() > 6, "the extent matters"


def test_a_turned_jpeg_is_decoded_in_full(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    radiograph(257, 263).save(tmp_path / "a.jpg", quality=92, exif=exif)
    contract = Preprocess(size=32)
    np.testing.assert_array_equal(*(decode(tmp_path / "a.jpg", contract, reduced=reduced) for reduced in (False, True)))


def test_a_picture_that_cannot_be_padded_is_named(tmp_path: Path) -> None:
    Image.new("L", (16, 9500)).save(tmp_path / "long.png")
    assert decode(tmp_path / "long.png", CONTRACT).shape == (32, 32)
    with pytest.raises(DataError, match=r"long\.png: 16 x 9500 pixels would be padded"):
        decode(tmp_path / "long.png", replace(CONTRACT, fit="pad"))


def test_small_jpegs_and_other_formats_are_decoded_in_full(tmp_path: Path) -> None:
    contract = Preprocess(size=224)
    radiograph(800, 850).save(tmp_path / "small.jpg", quality=92)
    radiograph(1900, 2300).save(tmp_path / "large.png")
    for file in tmp_path.iterdir():
        np.testing.assert_array_equal(decode(file, contract), decode(file, contract, reduced=True))


def test_a_folder_of_png_jpeg_and_dicom(tmp_path: Path) -> None:
    """One table, three kinds of files; the DICOM file is inverted and of 12 bits, and becomes the same picture."""
    grey = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    grey[0, :2] = 0, 255
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(grey).save(tmp_path / "b.jpg", quality=100)
    inverted = (255 - grey).astype(np.uint16) * 16
    dicom_files.write(
        tmp_path / "c.dcm", inverted, BitsStored=12, PhotometricInterpretation="MONOCHROME1", ViewPosition="LL"
    )
    dicom_files.write(tmp_path / "d", inverted[:, :20], Modality="CT")
    rows = [f"{name},1\n" for name in ("a.png", "b.jpg", "c.dcm")]
    (tmp_path / "labels.csv").write_text("".join(["path,Edema\n", *rows]))
    options = DataOptions(
        root=str(tmp_path),
        dataset="csv",
        csv=CsvOptions(file=str(tmp_path / "labels.csv"), only_split="train"),
        labels=["Edema"],
    )
    pack = open_pack(make_pack(read(options), tmp_path / "pack", Preprocess(size=40)), Preprocess(size=40))
    np.testing.assert_array_equal(pack.pixels[0], grey)
    np.testing.assert_array_equal(pack.pixels[2], grey)
    assert np.abs(pack.pixels[1].astype(int) - grey).mean() < 2
    with pytest.raises(DataError, match=r"d: not taken as a chest radiograph: .*CT"):
        decode(tmp_path / "d", Preprocess(size=40))
