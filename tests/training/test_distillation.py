"""Training with a teacher: live and cached, what is logged and kept, and that the teacher does not change."""

import csv
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import interrupt_at, same_state, small_config, write_chexpert
from mxa.data.augment import Augment
from mxa.data.decode import decode_all
from mxa.data.loader import Batch
from mxa.data.options import DataOptions, read
from mxa.errors import ArtifactError, ConfigError
from mxa.labels import CHEXPERT14
from mxa.models.artifact import Architecture, Classifier, load, save
from mxa.models.build import build_model
from mxa.models.teacher import Teacher
from mxa.models.xrv import convert
from mxa.predict import predict_table
from mxa.preprocess import Preprocess
from mxa.training import distillation
from mxa.training.callbacks import TrainingInterrupted
from mxa.training.config import KdConfig, ModelConfig, OptimConfig, TrainConfig
from mxa.training.run import train
from mxa.training.teacher_cache import fill_cache

OPTIM = OptimConfig(epochs=2, batch_size=8, lr_batch_size=8, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.9)


def base(root: Path, out: Path) -> TrainConfig:
    return small_config(root, out, OPTIM)


@pytest.fixture(scope="module")
def teacher(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A DenseNet-121 trained from scratch by ``mxa train``: an ordinary saved model with another size and scaling."""
    config = replace(
        base(tiny_chexpert, tmp_path_factory.mktemp("teacher") / "run"),
        model=ModelConfig(name="densenet121"),
        preprocess=Preprocess(size=48, mean=0.5, std=0.25),
    )
    return str(train(config).model)


@pytest.fixture
def config(tiny_chexpert: Path, teacher: str, tmp_path: Path) -> TrainConfig:
    return replace(base(tiny_chexpert, tmp_path / "run"), kd=KdConfig(teacher=teacher))


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load(folder).model.state_dict())


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_the_teacher_is_bit_identical_after_training(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Teacher] = []
    original = distillation.ready_teacher

    def remember(*arguments: object) -> Teacher:
        used.append(original(*arguments))  # type: ignore[arg-type]
        return used[-1]

    monkeypatch.setattr(distillation, "ready_teacher", remember)
    train(config)
    (network,) = used[0].networks
    before, after = state_of(Path(config.kd.teachers[0])), network.state_dict()
    assert any("running_mean" in key for key in before)
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not network.training
    assert all(parameter.grad is None for parameter in used[0].parameters())


def test_everything_is_logged_apart(config: TrainConfig, teacher: str) -> None:
    result = train(replace(config, kd=replace(config.kd, alpha=0.3)))
    for row in history(result.folder):
        total, base_loss, distill = (float(row[f"train/{name}"]) for name in ("loss", "base_loss", "distill_loss"))
        assert total == pytest.approx(0.7 * base_loss + 0.3 * distill, rel=1e-4)
        weights = [float(row[f"kd/weight/{finding}"]) for finding in CHEXPERT14]
        assert all(0 < w < 1 for w in weights)
        assert 0 < float(row["kd/teacher_auroc_macro"]) <= 1
    told = json.loads((result.folder / "teacher.json").read_text())
    assert told["taught"] == list(CHEXPERT14)
    assert told["not_taught"] == []
    assert told["teachers"][0]["path"] == teacher
    stored = json.loads((result.model / "config.json").read_text())["training"]
    assert stored["distillation"] == told
    assert "## Teacher" in (result.model / "README.md").read_text()
    saved = torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert {key.split(".")[0] for key in saved} == {"model", "ema"}, "the teacher is not in the checkpoints"


def test_boxes_follow_the_teachers_maps(config: TrainConfig) -> None:
    """What is taught is logged and part of the loss; boxes come nearer to it."""
    kd = replace(config.kd, alpha=0.3, regions=2.0)
    optim = replace(config.optim, epochs=4, region_lr=20.0)
    rows = history(train(replace(config, kd=kd, optim=optim)).folder)
    names = ("loss", "base_loss", "distill_loss", "region_loss")
    for row in rows:
        total, base_loss, distill, regions = (float(row[f"train/{name}"]) for name in names)
        assert total == pytest.approx(0.7 * base_loss + 0.3 * distill + 2 * regions, rel=1e-4)
    distances = [float(row["train/region_loss"]) for row in rows]
    assert distances[-1] < 0.8 * distances[0]


def test_regions_are_not_taught_to_a_model_without_them(config: TrainConfig) -> None:
    plain = replace(config, model=ModelConfig(name="efficientvit_m0"), kd=replace(config.kd, regions=1.0))
    with pytest.raises(ConfigError, match=r"kd\.regions is given, but the model has no region predictor"):
        train(plain)


@pytest.mark.parametrize(("name", "options"), [("test_convnext", {}), ("test_resnet", {"global_pool": "max"})])
def test_a_teacher_without_exact_maps_teaches_no_regions(
    config: TrainConfig, tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    torch.manual_seed(0)
    network = build_model(name, 14, 96, options=options).eval()
    architecture = Architecture(name, options)
    teacher = save(Classifier(network, architecture, CHEXPERT14, Preprocess(size=96), {}), tmp_path / "other")
    with pytest.raises(ConfigError, match=f"no exact class-activation map of {name}"):
        train(replace(config, kd=KdConfig(teacher=str(teacher), regions=1.0)))
    assert not Path(config.out).exists()


def test_a_cache_is_not_asked_for_regions(config: TrainConfig, tmp_path: Path) -> None:
    cached = replace(config, kd=replace(config.kd, cache=str(tmp_path / "cache")))
    fill_cache(cached)
    table = read(config.data)
    batch = Batch(*(torch.zeros(1) for _ in Batch._fields))
    with pytest.raises(ConfigError, match=r"kd\.cache holds logits alone; leave kd\.cache out"):
        distillation.CachedTeacher(cached, table).look(batch)


def test_the_shown_findings_are_the_images_own(config: TrainConfig) -> None:
    """Positive, counted, known to the teacher, and with a place: not No Finding."""
    source = distillation.LiveTeacher(config, read(config.data))
    image = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    target, mask = torch.zeros(3, 14), torch.ones(3, 14, dtype=torch.bool)
    target[0, [CHEXPERT14.index("No Finding"), CHEXPERT14.index("Edema")]] = 1
    target[1, CHEXPERT14.index("Edema")] = 1
    mask[1] = False
    batch = Batch(image, target, mask, torch.arange(3))
    expected = torch.zeros(3, 14, dtype=torch.bool)
    expected[0, CHEXPERT14.index("Edema")] = True
    assert torch.equal(source._shown(batch), expected)
    logits, regions = source.look(batch)
    torch.testing.assert_close(logits, source(batch))
    assert regions[1:].isnan().all()


def test_the_teachers_own_auc(config: TrainConfig, teacher: str) -> None:
    """At the teacher's size no resizing lies between: the same as scoring the teacher by itself."""
    one = load(teacher)
    result = train(replace(config, preprocess=replace(config.preprocess, size=48)))
    table = read(config.data).split("valid")
    found = json.loads((result.folder / "teacher.json").read_text())["validation"]
    direct = predict_table(one, table).evaluate(table.target, table.mask)
    assert found["auroc_macro_over"] == list(direct.auroc_macro_over)
    assert found["auroc_macro"] == pytest.approx(direct.auroc_macro, abs=1e-6)
    assert found["loss"] == pytest.approx(direct.loss, rel=1e-4)


def test_weights_are_the_mean_over_the_batches(config: TrainConfig) -> None:
    """Without augmentation the teacher says the same in every epoch: 1 - its mean probability over the 40 images."""
    result = train(config)
    table = read(config.data).split("train")
    pixels = torch.from_numpy(decode_all(table.files(), config.preprocess))[:, None]
    teacher = Teacher([load(config.kd.teachers[0])], CHEXPERT14)
    expected = 1 - teacher(pixels).sigmoid().mean(0)
    for row in history(result.folder):
        found = torch.tensor([float(row[f"kd/weight/{finding}"]) for finding in CHEXPERT14])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_cached_equals_live_without_augmentation(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Up to the rounding of another batch size, which AdamW's first steps amplify."""
    live = train(config)
    cached = replace(config, out=str(tmp_path / "cached"), kd=replace(config.kd, cache=str(tmp_path / "cache")))
    fill_cache(cached)
    with caplog.at_level(logging.INFO, logger="mxa"):
        result = train(cached)
    assert "without augmentation" in caplog.text
    for a, b in zip(history(live.folder), history(result.folder), strict=True):
        assert float(a["train/distill_loss"]) == pytest.approx(float(b["train/distill_loss"]), rel=2e-3)
        assert float(a["val/loss"]) == pytest.approx(float(b["val/loss"]), rel=2e-3)
    told = json.loads((result.folder / "teacher.json").read_text())
    assert told["validation"]["auroc_macro"] == pytest.approx(live_auc(live.folder), abs=1e-6)


def live_auc(folder: Path) -> float:
    return json.loads((folder / "teacher.json").read_text())["validation"]["auroc_macro"]


def test_the_live_teacher_sees_the_augmented_picture(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = distillation.LiveTeacher.__call__

    def watch(self: distillation.LiveTeacher, batch: object) -> torch.Tensor:
        pairs.append((batch.image.clone(), batch.row.clone()))  # type: ignore[attr-defined]
        return original(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(distillation.LiveTeacher, "__call__", watch)
    train(replace(config, augment=Augment(), workers=0))
    table = read(config.data).split("train")
    image, row = pairs[0]
    plain = torch.from_numpy(decode_all(table.files(), config.preprocess))[row]
    assert not torch.equal(image[:, 0], plain)
    first, second = (dict(zip(r.tolist(), i, strict=True)) for i, r in (pairs[0], pairs[5]))
    shared = set(first) & set(second)
    assert not all(torch.equal(first[i], second[i]) for i in shared), "augmented anew in the second epoch"


def test_alpha_zero_is_training_without_a_teacher(config: TrainConfig, tmp_path: Path) -> None:
    """To the bit: the teacher draws no random number of the student's."""
    plain = train(replace(config, out=str(tmp_path / "plain"), kd=KdConfig()))
    taught = train(replace(config, kd=replace(config.kd, alpha=0.0)))
    assert same_state(state_of(plain.model), state_of(taught.model))
    assert not (plain.folder / "teacher.json").exists()
    assert "kd/teacher_auroc_macro" not in history(plain.folder)[0]


def test_the_student_follows_its_teacher(tmp_path: Path, tiny_chexpert: Path) -> None:
    """With alpha = 1 the student does not look at the labels, and learns them all the same from a teacher that does."""
    root = write_chexpert(tmp_path / "more", {"train": 120, "valid": 30})
    optim = replace(OPTIM, epochs=5)
    teacher = train(replace(base(root, tmp_path / "teacher"), optim=optim))
    assert teacher.validation.auroc_macro > 0.8
    kd = KdConfig(teacher=str(teacher.model), alpha=1.0)
    student = train(replace(base(root, tmp_path / "student"), optim=optim, kd=kd, seed=5))
    assert student.validation.auroc_macro > 0.8


def test_resuming_with_a_teacher(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of the second epoch; with another teacher in the first one's place it is refused."""
    moved = shutil.copytree(config.kd.teachers[0], tmp_path / "teacher")
    config = replace(config, kd=KdConfig(teacher=str(moved)))
    whole = train(replace(config, out=str(tmp_path / "whole")))
    interrupt_at(monkeypatch, 7)
    with pytest.raises(TrainingInterrupted):
        train(config)
    monkeypatch.undo()
    shutil.copytree(config.out, tmp_path / "second")
    resumed = train(config, resume=True)
    assert same_state(state_of(whole.model), state_of(resumed.model))
    shutil.rmtree(moved)
    save(load(whole.model), moved)
    shutil.rmtree(config.out)
    shutil.move(tmp_path / "second", config.out)
    with pytest.raises(ConfigError, match=r"kd\.teacher is another model"):
        train(config, resume=True)


def test_several_teachers(config: TrainConfig, teacher: str, xrv_cache: Path, tmp_path: Path) -> None:
    chex = convert("densenet121-res224-chex", tmp_path / "chex", xrv_cache)
    result = train(replace(config, kd=KdConfig(teacher=[teacher, str(chex)]), optim=replace(OPTIM, epochs=1)))
    told = json.loads((result.folder / "teacher.json").read_text())
    assert [one["path"] for one in told["teachers"]] == [teacher, str(chex)]
    assert told["taught"] == list(CHEXPERT14)


def test_a_teacher_of_another_split_is_warned_about(
    config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_chexpert(tmp_path / "other", {"train": 10, "valid": 8}, seed=5)
    once = replace(config, optim=replace(OPTIM, epochs=1))
    train(replace(once, out=str(tmp_path / "same")))
    assert "another split" not in caplog.text
    train(replace(once, data=DataOptions(root=str(other))))
    assert "another split" in caplog.text


@pytest.mark.parametrize(
    ("kd", "error", "message"),
    [
        ({"teacher": "nowhere"}, ArtifactError, "nowhere is not a saved model"),
        ({"teacher": "densenet121-res224-chex"}, ArtifactError, "mxa teacher convert"),
        ({"cache": "nowhere"}, ArtifactError, "holds no teacher's logits"),
    ],
)
def test_it_fails_before_any_picture_is_decoded(
    config: TrainConfig, kd: dict[str, str], error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mxa.training.loaders.decode_all", lambda *_: pytest.fail("decoded"))
    with pytest.raises(error, match=message):
        train(replace(config, kd=replace(config.kd, **kd)))
    assert not Path(config.out).exists()


def test_no_finding_in_common(config: TrainConfig, xrv_cache: Path, tmp_path: Path) -> None:
    chex = convert("densenet121-res224-chex", tmp_path / "chex", xrv_cache)
    untaught = replace(config.data, labels=["Pleural Other", "Support Devices", "No Finding"])
    with pytest.raises(ConfigError, match="no finding in common"):
        train(replace(config, kd=KdConfig(teacher=str(chex)), data=untaught))
