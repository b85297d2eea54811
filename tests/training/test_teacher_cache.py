"""A teacher's logits on disk: what comes back, and every way in which a cache does not fit."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import write_chexpert
from mxa.data.decode import decode_all
from mxa.data.loader import RadiographDataset
from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.labels import CHEXPERT14, label_set
from mxa.models.artifact import Architecture, Classifier, fingerprint, load, save
from mxa.models.build import build_model
from mxa.preprocess import Preprocess
from mxa.training.config import KdConfig, TrainConfig
from mxa.training.teacher_cache import fill_cache, open_cache

PIXELS = Preprocess(size=64)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    model = build_model("resnet10t", 14, 64).eval()
    one = Classifier(model, Architecture("resnet10t", {}), CHEXPERT14, PIXELS, {})
    return str(save(one, tmp_path_factory.mktemp("teacher") / "model"))


@pytest.fixture
def config(teacher: str, tiny_chexpert: Path, tmp_path: Path) -> TrainConfig:
    kd = KdConfig(teacher=teacher, cache=str(tmp_path / "cache"))
    return TrainConfig(data=DataOptions(root=str(tiny_chexpert)), preprocess=PIXELS, kd=kd, workers=0)


def opened(config: TrainConfig, preprocess: Preprocess = PIXELS):
    prints = [fingerprint(folder) for folder in config.kd.teachers]
    return open_cache(Path(config.kd.cache), prints, preprocess)


def in_memory(table: Table) -> RadiographDataset:
    return RadiographDataset(table, PIXELS, decode_all(table.files(), PIXELS))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_logits_are_the_teachers_by_path(config: TrainConfig, workers: int) -> None:
    seen: list[tuple[int, int]] = []
    fill_cache(replace(config, workers=workers), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (56, 56)
    table = read(config.data)
    shuffled = table.split("train").take(np.random.default_rng(0).permutation(40))
    rows = opened(config).rows_of(shuffled)
    pixels = torch.from_numpy(decode_all(shuffled.files(), PIXELS))[:, None]
    torch.testing.assert_close(rows.outputs, load(config.kd.teachers[0]).logits(pixels), atol=1e-4, rtol=1e-4)
    rows.check_pictures(in_memory(shuffled))
    rows.check_pictures(RadiographDataset(shuffled, PIXELS))
    with pytest.raises(DataError, match="lacks 12 of 12 images"):  # the test split is never scored
        opened(config).rows_of(table.split("test"))


def test_one_cache_serves_other_findings_and_parts(config: TrainConfig) -> None:
    fill_cache(config)
    fewer = replace(config.data, labels=["Edema"], views=["frontal"])
    part = read(fewer).split("train")
    whole = read(config.data).split("train")
    rows, all_rows = opened(config).rows_of(part), opened(config).rows_of(whole)
    frontal = (whole.frame["view"] == "frontal").to_numpy()
    assert torch.equal(rows.outputs, all_rows.outputs[torch.tensor(frontal)])


def test_the_folder_appears_whole_or_not_at_all(config: TrainConfig, tmp_path: Path) -> None:
    root = write_chexpert(tmp_path / "broken", {"train": 4, "valid": 4})
    next((root / "CheXpert-v1.0-small" / "valid").rglob("*.jpg")).write_bytes(b"")
    with pytest.raises(DataError, match=r"valid/patient\d+"):
        fill_cache(replace(config, data=DataOptions(root=str(root))))
    assert not Path(config.kd.cache).exists()
    fill_cache(config)
    assert sorted(file.name for file in Path(config.kd.cache).iterdir()) == [
        "cache.json",
        "glances.npy",
        "index.csv",
        "logits.npy",
    ]
    with pytest.raises(ConfigError, match="exists; choose another"):
        fill_cache(config)


def stop_after(images: int) -> Callable[[int, int], None]:
    """A progress callback that kills."""

    def progress(done: int, total: int) -> None:
        if done >= images:
            raise KeyboardInterrupt

    return progress


def test_a_killed_run_goes_on(config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """56 images in batches of 32: killed after the first batch, the second run scores the other 24 alone."""
    whole = fill_cache(replace(config, kd=replace(config.kd, cache=str(tmp_path / "whole"))))
    with pytest.raises(KeyboardInterrupt):
        fill_cache(config, progress=stop_after(1))
    assert not Path(config.kd.cache).exists()
    seen: list[int] = []
    with caplog.at_level(logging.INFO, logger="mxa"):
        fill_cache(config, progress=lambda done, total: seen.append(done))
    assert "going on after the 32 images" in caplog.text
    assert seen == [56]
    for name in ("logits.npy", "glances.npy", "index.csv", "cache.json"):
        assert (whole / name).read_bytes() == (Path(config.kd.cache) / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "whole"]


def test_a_kill_while_noting_the_progress_loses_one_batch_at_most(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second batch's note is written but not yet in its place: what was noted before it still counts."""
    original = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self.name == "done.new" and self.read_text() == "56":
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fill_cache(config)
    monkeypatch.undo()
    seen: list[int] = []
    folder = fill_cache(config, progress=lambda done, total: seen.append(done))
    assert seen == [56]
    assert sorted(file.name for file in folder.iterdir()) == ["cache.json", "glances.npy", "index.csv", "logits.npy"]


def test_what_was_left_of_another_run_is_not_gone_on_with(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fill_cache(replace(config, preprocess=Preprocess(size=48)), progress=stop_after(1))
    seen: list[int] = []
    fill_cache(config, progress=lambda done, total: seen.append(done))
    assert seen == [32, 56]


def test_another_teacher_is_refused(config: TrainConfig, teacher: str, tmp_path: Path) -> None:
    fill_cache(config)
    with pytest.raises(ConfigError, match="logits of other teachers"):
        open_cache(Path(config.kd.cache), ["0" * 64], PIXELS)
    with pytest.raises(ConfigError, match="logits of other teachers"):
        open_cache(Path(config.kd.cache), [fingerprint(teacher)] * 2, PIXELS)


@pytest.mark.parametrize(
    ("field", "value"), [("size", 96), ("fit", "pad"), ("interpolation", "box"), ("wide_range", "minmax")]
)
def test_pictures_prepared_otherwise_are_refused(config: TrainConfig, field: str, value: object) -> None:
    fill_cache(config)
    with pytest.raises(ConfigError, match=rf"preprocess\.{field} .*the run has {value!r}"):
        opened(config, replace(PIXELS, **{field: value}))


def test_the_students_scaling_does_not_matter(config: TrainConfig) -> None:
    """The teacher scales by its own contract."""
    fill_cache(config)
    assert opened(config, replace(PIXELS, mean=0.5, std=0.5)).names == [list(CHEXPERT14)]


def test_other_data_are_refused(config: TrainConfig, tmp_path: Path) -> None:
    fill_cache(config)
    more = write_chexpert(tmp_path / "more", {"train": 25, "valid": 8})
    with pytest.raises(DataError, match=r"cache of other data \(chexpert, 56 images\): it lacks 10 of 50 images"):
        opened(config).rows_of(read(DataOptions(root=str(more))).split("train"))


@pytest.mark.parametrize("memory", [True, False])
def test_other_pictures_under_the_same_names_are_refused(config: TrainConfig, tmp_path: Path, memory: bool) -> None:
    fill_cache(config)
    other = write_chexpert(tmp_path / "other", {"train": 20, "valid": 8}, seed=9)
    part = read(DataOptions(root=str(other))).split("train")
    rows = opened(config).rows_of(part)
    with pytest.raises(DataError, match=r"made of other pictures: \d+ of 40 compared differ, such as .*train/patient"):
        rows.check_pictures(in_memory(part) if memory else RadiographDataset(part, PIXELS))


def test_one_other_picture_is_found_in_memory(config: TrainConfig, tiny_chexpert: Path, tmp_path: Path) -> None:
    fill_cache(config)
    root = shutil.copytree(tiny_chexpert, tmp_path / "copy")
    part = read(DataOptions(root=str(root))).split("train")
    pixels = np.asarray(Image.open(part.files()[7]))
    Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])).save(part.files()[7], quality=95)
    with pytest.raises(DataError, match="1 of 40 compared differ"):
        opened(config).rows_of(part).check_pictures(in_memory(part))


def test_a_decoder_that_rounds_otherwise_is_no_other_picture(config: TrainConfig) -> None:
    fill_cache(config)
    part = read(config.data).split("train")
    dataset = in_memory(part)
    assert dataset.pixels is not None
    noise = torch.randint(-1, 2, dataset.pixels.shape, generator=torch.Generator().manual_seed(0))
    dataset.pixels = (dataset.pixels.int() + noise).clamp(0, 255).to(torch.uint8)
    opened(config).rows_of(part).check_pictures(dataset)


def test_damage_is_named(config: TrainConfig, tmp_path: Path) -> None:
    folder = fill_cache(config)
    logits = np.load(folder / "logits.npy")
    logits[0, 0] += 1
    np.save(folder / "logits.npy", logits)
    with pytest.raises(ArtifactError, match=r"logits\.npy is missing or damaged"):
        opened(config)
    (folder / "cache.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"cache\.json is damaged"):
        opened(config)
    (folder / "cache.json").write_text(json.dumps({"format_version": 9, "files": {}}))
    with pytest.raises(ArtifactError, match="format version 9"):
        opened(config)
    (folder / "cache.json").unlink()
    with pytest.raises(ArtifactError, match="holds no teacher's logits"):
        opened(config)


def test_logits_that_are_not_finite_name_the_image(config: TrainConfig, tmp_path: Path) -> None:
    one = load(config.kd.teachers[0])
    with torch.no_grad():
        one.model.get_classifier().bias[3] = float("inf")
    broken = save(one, tmp_path / "broken")
    with pytest.raises(DataError, match=r"logits of .*train/patient00001/.* are not finite"):
        fill_cache(replace(config, kd=replace(config.kd, teacher=str(broken))))


def test_what_is_needed_is_said(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match=r"kd\.teacher.*kd\.cache"):
        fill_cache(replace(config, kd=replace(config.kd, cache="")))
    with pytest.raises(ConfigError, match=r"kd\.teacher.*kd\.cache"):
        fill_cache(replace(config, kd=KdConfig()))


def test_no_finding_in_common_is_said_before_any_work(config: TrainConfig, tmp_path: Path) -> None:
    one = load(config.kd.teachers[0])
    other = save(replace(one, labels=label_set([f"Finding {i}" for i in range(14)])), tmp_path / "other")
    with pytest.raises(ConfigError, match="no finding in common"):
        fill_cache(replace(config, kd=replace(config.kd, teacher=str(other))), progress=lambda *_: pytest.fail("ran"))
