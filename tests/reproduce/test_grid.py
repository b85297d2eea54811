"""A small grid, from the first run to the page: runs.py, changes.py, summary.py, tables.py and report.py."""

import json
import os
import pickle
import queue
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import roc_auc_score

from conftest import interrupt_at, same_state, small_config
from killed import is_alive, wait_until
from mxa.data.options import read
from mxa.data.packing import make_pack
from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation.bootstrap import Draws, mean_over_runs
from mxa.evaluation.predictions import read_csv
from mxa.labels import CHEXPERT14
from mxa.models.artifact import load
from mxa.predict import predict_table
from mxa.reproduce import runs, tables
from mxa.reproduce.changes import changes
from mxa.reproduce.config import Cell, ReproduceConfig
from mxa.reproduce.gain import Gain
from mxa.reproduce.published import CAVEAT, PUBLISHED
from mxa.reproduce.report import write_grid_report
from mxa.reproduce.runs import run_grid
from mxa.reproduce.summary import Gains, over_seeds, summarise
from mxa.training.callbacks import TrainingInterrupted
from mxa.training.config import OptimConfig

OPTIM = OptimConfig(epochs=2, batch_size=8, lr_batch_size=8, warmup_epochs=0, cooldown_epochs=0)


def small_grid(data: Path, out: Path, **fields: object) -> ReproduceConfig:
    base = replace(small_config(data, Path("unused"), OPTIM), seed=0)
    base = replace(base, model=replace(base.model, name="efficientvit_m0"))
    cells = {
        "baseline": Cell(title="EfficientViT", published="baseline"),
        "mxa": Cell(
            title="+ MXA",
            versus="baseline",
            changes={"model": {"name": "mxa_efficientvit_m0"}},
            published="mxa",
        ),
        "mxa_kd": Cell(title="+ MXA + KD", versus="mxa", distilled=True, published="mxa_kd"),
    }
    given = {
        "out": str(out),
        "seeds": [0, 1],
        "base": base,
        "cells": cells,
        "teacher_changes": {"model": {"name": "mxa_efficientvit_m0"}, "optim": {"epochs": 1}},
        "teacher_cache": True,
        "shown": "Support Devices",
        "groups": {"two": ["Pleural Effusion", "Fracture"]},
        "replicates": 200,
        "jobs": 1,
    }
    return ReproduceConfig(**{**given, **fields})  # type: ignore[arg-type]


def weights(config: ReproduceConfig, key: str, seed: int) -> dict[str, object]:
    return load_file(Path(config.run(key, seed).out) / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def finished(tiny_chexpert: Path, tmp_path_factory: pytest.TempPathFactory) -> ReproduceConfig:
    """A grid that ran through, with its report."""
    config = small_grid(tiny_chexpert, tmp_path_factory.mktemp("grid") / "out")
    run_grid(config)
    write_grid_report(config)
    return config


@pytest.fixture
def copied(finished: ReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished grid's folder, free to be spoilt, under the name that its runs have stored."""
    kept = tmp_path / "kept"
    shutil.copytree(finished.folder, kept)
    yield finished.folder
    shutil.rmtree(finished.folder)
    shutil.move(kept, finished.folder)


# ---------------------------------------------------------------- running


def test_one_folder_per_cell_and_seed(finished: ReproduceConfig) -> None:
    found = {str(file.parent.relative_to(finished.folder)) for file in finished.folder.rglob("model.safetensors")}
    expected = {f"cells/{key}/seed-{seed}/model" for key in finished.cells for seed in finished.seeds}
    assert found == expected | {"teacher/model"}
    for key in finished.cells:
        assert not same_state(weights(finished, key, 0), weights(finished, key, 1)), "another seed is another run"  # type: ignore[arg-type]


def test_a_finished_grid_is_not_run_again(finished: ReproduceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "fill_cache", "predict_dataset", "make_phantom"):
        monkeypatch.setattr(runs, name, lambda *_, **__: pytest.fail("done again"))
    run_grid(finished)
    run_grid(replace(finished, jobs=3, shown="Fracture", replicates=10))


def test_a_killed_grid_goes_on_to_the_same_weights(
    finished: ReproduceConfig, tiny_chexpert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = {key: finished.cells[key] for key in ("baseline", "mxa")}
    config = replace(finished, out=str(tmp_path / "out"), cells=cells)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        with pytest.raises(TrainingInterrupted, match="cells/baseline/seed-0; the same command goes on"):
            run_grid(config)
    assert not (config.folder / "cells" / "mxa").exists(), "it stopped in the first run"
    run_grid(config)
    for key in cells:
        for seed in config.seeds:
            assert same_state(weights(config, key, seed), weights(finished, key, seed))  # type: ignore[arg-type]


def test_what_a_kill_left_half_made_is_made_again(copied: Path, finished: ReproduceConfig) -> None:
    run = copied / "cells" / "mxa" / "seed-1"
    before = weights(finished, "mxa", 1)
    (run / "model" / "config.json").unlink()  # killed while it saved the model
    (copied / "cells" / "mxa" / "seed-0" / "test" / "metrics.json").unlink()  # killed while it scored
    other = copied / "cells" / "baseline" / "seed-0"
    for name in ("model", "checkpoints", "test"):  # killed in its first epoch
        shutil.rmtree(other / name)
    expected = read_csv(copied / "cells" / "mxa" / "seed-0" / "test" / "predictions.csv", CHEXPERT14).probability
    run_grid(finished)
    assert same_state(weights(finished, "mxa", 1), before)  # type: ignore[arg-type]
    assert (other / "test" / "metrics.json").is_file()
    again = read_csv(copied / "cells" / "mxa" / "seed-0" / "test" / "predictions.csv", CHEXPERT14).probability
    np.testing.assert_array_equal(again, expected)


def test_scoring_takes_its_pictures_from_the_pack(
    finished: ReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finished.run("mxa", 0)
    table = read(run.data)
    pack = make_pack(table, tmp_path / "pack", run.preprocess)
    runs._predict(run, "valid")
    plain = (Path(run.out) / "valid" / "predictions.csv").read_bytes()
    (Path(run.out) / "valid" / "metrics.json").unlink()
    monkeypatch.setattr("mxa.data.loader.decode", lambda *_: pytest.fail("decoded"))
    runs._predict(replace(run, pack=str(pack)), "valid")
    assert (Path(run.out) / "valid" / "predictions.csv").read_bytes() == plain


def test_two_at_once_give_the_same_weights(
    finished: ReproduceConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = replace(
        finished, out=str(tmp_path / "out"), cells={"baseline": finished.cells["baseline"]}, teacher_changes={}, jobs=2
    )
    run_grid(config)
    for seed in config.seeds:
        ours, theirs = weights(config, "baseline", seed), weights(finished, "baseline", seed)
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, atol=1e-5, err_msg=name)  # threads may differ in number
    said = capfd.readouterr().err
    assert "[1] training" in said or "[0] training" in said
    assert "GPU available" not in said, "Lightning's own remarks"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_runs_stop_when_their_grid_does(finished: ReproduceConfig, tmp_path: Path, how: signal.Signals) -> None:
    """Otherwise they train on, and the same command, called again, would train in their folders beside them."""
    base = replace(finished.base, optim=replace(OPTIM, epochs=100))
    config = replace(
        finished,
        out=str(tmp_path / "out"),
        base=base,
        cells={"baseline": Cell("EfficientViT")},
        teacher_changes={},
        jobs=2,
    )
    (tmp_path / "config").write_bytes(pickle.dumps(config))
    script = "import pickle, sys; from mxa.reproduce import runs; runs.run_grid(pickle.load(open(sys.argv[1], 'rb')))"
    folders = [Path(config.run("baseline", seed).out) for seed in config.seeds]
    command = [sys.executable, "-c", script, tmp_path / "config"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as grid:
        assert wait_until(lambda: all((folder / "checkpoints" / "last.ckpt").exists() for folder in folders), 120)
        children = [int(pid) for pid in Path(f"/proc/{grid.pid}/task/{grid.pid}/children").read_text().split()]
        grid.send_signal(how)  # to it alone
        _, said = grid.communicate(timeout=120)
    assert len(children) >= 2
    assert wait_until(lambda: not any(is_alive(child) for child in children))
    assert said.count("stopping after this step") == 2, said
    for folder in folders:
        assert (folder / "checkpoints" / "last.ckpt").exists()
        assert not (folder / "model").exists()


def test_other_options_are_refused(finished: ReproduceConfig) -> None:
    with pytest.raises(ConfigError, match=r"started with other options \(teacher_cache differ\)"):
        run_grid(replace(finished, teacher_cache=not finished.teacher_cache))
    cells = {**finished.cells, "mxa": replace(finished.cells["mxa"], changes={"model": {"name": "densenet121"}})}
    with pytest.raises(ConfigError, match=r"started with other options \(cells\.mxa differ\)"):
        run_grid(replace(finished, cells=cells))


def test_an_option_that_is_new_has_its_default(
    copied: Path, finished: ReproduceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    for file in (copied / "reproduce.yaml", *copied.glob("cells/mxa/*/config.yaml")):
        options = yaml.safe_load(file.read_text())
        del options.get("base", options)["optim"]["region_area"]
        file.write_text(yaml.safe_dump(options))
    run_grid(finished)
    assert not any("region_area" in one for change in changes(finished) for one in change.unexpected)


def test_a_grid_grows(copied: Path, finished: ReproduceConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell and a seed more are trained, another split is scored; what is there stays."""
    trained = []
    monkeypatch.setattr(runs, "run_one", lambda config: trained.append(config.out))
    monkeypatch.setattr(runs, "_predict", lambda *_: None)
    cells = {**finished.cells, "more": Cell(versus="mxa", changes={"optim": {"lr": 0.002}})}
    run_grid(replace(finished, seeds=[*finished.seeds, 7], split="valid", cells=cells))
    new = {f"{key}/seed-7" for key in cells} | {f"more/seed-{seed}" for seed in finished.seeds}
    assert new <= {out.partition("cells/")[2] for out in trained}
    run_grid(finished)


def test_another_title_trains_nothing_again(
    copied: Path, finished: ReproduceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    mxa = replace(finished.cells["mxa"], title="another", published="", also=["mxa_kd"])
    run_grid(replace(finished, cells={**finished.cells, "mxa": mxa}))


def test_the_validation_splits_scores_are_those_of_the_saved_model(copied: Path, finished: ReproduceConfig) -> None:
    """Training has them already; here they are computed anew."""
    run_grid(replace(finished, split="valid"))
    table = read(finished.base.data).split("valid")
    for key in finished.cells:
        out = Path(finished.run(key, 1).out)
        stored = read_csv(out / "valid" / "predictions.csv", CHEXPERT14)
        anew = predict_table(load(out / "model"), table)
        np.testing.assert_allclose(stored.probability, anew.probability, atol=1e-6)
        told = json.loads((out / "valid" / "metrics.json").read_text())
        assert told["auroc_macro"] == pytest.approx(anew.evaluate(table.target, table.mask).auroc_macro)


def test_a_foreign_folder_is_left_alone(finished: ReproduceConfig, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is no grid's folder"):
        run_grid(replace(finished, out=str(tmp_path)))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"nam": "x"}}, r"cells\.bad\.changes\.model\.nam"),
        ({"model": {"name": "mxa_eficientvit_m0"}}, r"cells\.bad: model\.name is 'mxa_eficientvit_m0'"),
        ({"model": {"options": {"mxa_jitter": 0.1}}}, r"cells\.bad: model\.options .* do not fit"),
        ({"data": {"views": ["frontal"]}}, r"cells\.bad\.changes\.data: .* only data\.policy may differ"),
        ({"model": {"warm_start": "nowhere"}}, "nowhere is not a saved model"),
    ],
)
def test_a_wrong_cell_is_found_before_anything_runs(
    finished: ReproduceConfig, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    cells = {**finished.cells, "bad": Cell(changes=changes)}
    with pytest.raises((ConfigError, ArtifactError), match=message):
        run_grid(replace(finished, out=str(tmp_path / "out"), cells=cells))
    assert not (tmp_path / "out").exists()


def test_what_a_grid_needs_is_looked_for_before_anything_runs(
    finished: ReproduceConfig, tmp_path: Path, tiny_chexpert: Path
) -> None:
    grid = replace(finished, out=str(tmp_path / "out"), teacher_changes={}, teacher="nowhere/teacher")
    with pytest.raises(ArtifactError, match="nowhere/teacher is not a saved model"):
        run_grid(grid)
    shutil.copytree(tiny_chexpert, tmp_path / "data")
    for file in (tmp_path / "data").rglob("test*.csv"):
        file.unlink()
    data = replace(finished.base.data, root=str(tmp_path / "data"))
    with pytest.raises(ConfigError, match=r"split is 'test', but .* has train, valid"):
        run_grid(replace(finished, out=str(tmp_path / "out"), base=replace(finished.base, data=data)))
    assert not (tmp_path / "out").exists()


def test_a_cell_that_never_ran_may_be_mended(
    copied: Path, finished: ReproduceConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "_train_all", lambda *_: None)
    monkeypatch.setattr(runs, "_predict", lambda *_: None)
    for rate in (0.1, 0.2):
        run_grid(replace(finished, cells={**finished.cells, "new": Cell(changes={"optim": {"lr": rate}})}))


def test_a_cells_own_policy_does_not_score_it(copied: Path, finished: ReproduceConfig) -> None:
    """What training has stored of the cell is by its own labels; the tables compare cells by the same."""
    file = copied / "cells" / "mxa" / "seed-0" / "test" / "metrics.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps(stored | {"auroc_macro": 0.123}))
    assert summarise(finished).cells["mxa"].values("auroc_macro")[0] == pytest.approx(stored["auroc_macro"])


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("2,3", "3"), ("GPU-a,GPU-b", "GPU-b")])
def test_runs_keep_to_the_gpus_that_the_grid_was_given(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.setattr(runs, "follow_parent", lambda _: None)
    monkeypatch.setattr(runs.logging, "basicConfig", lambda **_: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    places: queue.Queue[int] = queue.Queue()
    places.put(1)
    runs._settle(places, 2, 2)  # type: ignore[arg-type]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_a_failing_run_is_named(finished: ReproduceConfig, tmp_path: Path) -> None:
    cells = {"baseline": Cell(changes={"optim": {"batch_size": 400}})}
    with pytest.raises(DataError, match=r"cells/baseline/seed-0: the training split has 40 images"):
        run_grid(replace(finished, out=str(tmp_path / "out"), cells=cells))


def test_a_half_drawn_phantom_is_drawn_again(
    finished: ReproduceConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(finished, out=str(tmp_path / "out"), phantom=30)
    drawn = []

    def make_phantom(out: Path, images: int) -> Path:
        assert not out.exists()
        out.mkdir(parents=True)
        drawn.append(images)
        if len(drawn) == 1:
            raise KeyboardInterrupt
        return out

    monkeypatch.setattr(runs, "make_phantom", make_phantom)
    monkeypatch.setattr(runs, "_teach", lambda _: None)
    monkeypatch.setattr(runs, "_train_all", lambda *_: None)
    monkeypatch.setattr(runs, "_predict", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        run_grid(config)
    assert not config.data_folder.exists()
    run_grid(config)
    run_grid(config)
    assert drawn == [30, 30]
    assert config.data_folder.is_dir()


# ----------------------------------------------------------- what changed


def test_only_the_named_factor_differs(finished: ReproduceConfig) -> None:
    found = {change.cell: change for change in changes(finished)}
    assert found["baseline"].differs == {}
    assert found["mxa"].differs == {"model.name": ("efficientvit_m0", "mxa_efficientvit_m0")}
    assert list(found["mxa_kd"].differs) == ["kd.teacher", "kd.cache"]
    assert all(not change.unexpected for change in found.values())


def test_a_cell_beside_a_further_one(copied: Path, finished: ReproduceConfig) -> None:
    """It takes nothing over from it, and the numbers are those of the pair."""
    cells = {**finished.cells, "mxa_kd": replace(finished.cells["mxa_kd"], also=["baseline"])}
    config = replace(finished, cells=cells)
    assert config.run("mxa_kd", 1) == finished.run("mxa_kd", 1)
    found = {(change.cell, change.versus): change for change in changes(config)}
    assert list(found[("mxa_kd", "baseline")].differs) == ["model.name", "kd.teacher", "kd.cache"]
    write_grid_report(config)
    summary = summarise(config)
    gains = summary.cells["mxa_kd"].gains(summary.cells["baseline"])
    row = tables.ablation(config, summary).rows[-1]
    assert row[:7] == ("+ MXA + KD", "–", "–", "–", "EfficientViT", *tables._both(gains.micro))
    assert row[7:9] == tables._both(gains.macro)
    assert set(row[9:]) == {"–"}
    group = tables.by_group(config, summary).rows[-1]
    assert group[:5] == ("two", "+ MXA + KD", "–", "EfficientViT", tables.signed(_two(gains).over_patients()))
    by_seed = tables.by_seed(config, summary).rows[-2:]
    assert [entry[:3] for entry in by_seed] == [("+ MXA + KD", "EfficientViT", seed) for seed in ("0", "1")]
    stored = json.loads((config.report_folder / "results.json").read_text())["cells"]["mxa_kd"]["also"]["baseline"]
    assert stored["auroc_macro"]["estimate"] == gains.macro.over_patients().estimate  # type: ignore[union-attr]


def _two(gains: Gains) -> Gain:
    return gains.group([CHEXPERT14.index(name) for name in ("Pleural Effusion", "Fracture")])


def test_whatever_else_differs_is_named(copied: Path, finished: ReproduceConfig) -> None:
    run = copied / "cells" / "mxa" / "seed-1"
    stored = yaml.safe_load((run / "config.yaml").read_text())
    stored["optim"]["lr"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(stored))
    for file, name, value in (("data.json", "fingerprint", "x"), ("environment.json", "python", "2.7")):
        content = json.loads((run / file).read_text())
        content[name] = value
        (run / file).write_text(json.dumps(content))
    found = {change.cell: change.unexpected for change in changes(finished)}
    expected = ("seed 1: option optim.lr", "seed 1: data", "seed 1: software (python)")
    assert found["mxa"] == found["mxa_kd"] == expected
    page = write_grid_report(finished).read_text()
    assert "More than the named options differs" in page
    assert "seed 1: option optim.lr" in page


def test_a_models_first_option_is_one_difference(copied: Path, finished: ReproduceConfig) -> None:
    file = copied / "cells" / "mxa" / "seed-1" / "config.yaml"
    stored = yaml.safe_load(file.read_text())
    assert stored["model"]["options"] == {}
    stored["model"]["options"] = {"mxa_reduction": 8}
    file.write_text(yaml.safe_dump(stored))
    found = {change.cell: change.unexpected for change in changes(finished)}
    assert found["mxa"] == ("seed 1: option model.options.mxa_reduction",)


# ------------------------------------------------------------ the numbers


def scores(config: ReproduceConfig, key: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    table = read(config.base.data).split("test")
    found = read_csv(Path(config.run(key, seed).out) / "test" / "predictions.csv", CHEXPERT14)
    probability = found.join(table.frame["path"].tolist()).probability
    return probability, table.target, table.mask, table.frame["patient"].tolist()


def sklearn_macro(probability: np.ndarray, target: np.ndarray) -> float:
    both = [j for j in range(14) if 0 < target[:, j].sum() < len(target)]
    return float(np.mean([roc_auc_score(target[:, j], probability[:, j]) for j in both]))


def test_the_figures_are_those_of_the_predictions(finished: ReproduceConfig) -> None:
    summary = summarise(finished)
    for key, cell in summary.cells.items():
        for k, seed in enumerate(finished.seeds):
            probability, target, _, _ = scores(finished, key, seed)
            assert cell.values("auroc_macro")[k] == pytest.approx(sklearn_macro(probability, target), abs=1e-6)
            pooled = roc_auc_score(target.ravel(), probability.ravel())
            assert cell.values("auroc_micro")[k] == pytest.approx(pooled, abs=1e-4)
            assert cell.areas[k].micro.estimate[0] == pytest.approx(pooled, abs=1e-12)
        assert len(cell.epochs[0]) == 2
    assert summary.cells["mxa"].parameters > summary.cells["baseline"].parameters > 1_000_000
    assert summary.cells["mxa"].flop > summary.cells["baseline"].flop > 1_000_000


def test_the_paired_interval_is_that_of_the_seed_averaged_difference(finished: ReproduceConfig) -> None:
    summary = summarise(finished)
    gain = summary.cells["mxa"].gains(summary.cells["baseline"]).macro
    difference = np.zeros((finished.replicates, 1))
    for seed in finished.seeds:
        for key, sign in (("mxa", 1), ("baseline", -1)):
            probability, target, mask, patient = scores(finished, key, seed)
            drawn = Draws(patient, replicates=finished.replicates).auroc(probability, target, mask).macro()
            difference += sign * drawn.replicates / len(finished.seeds)
    averaged = mean_over_runs(gain.runs)
    np.testing.assert_allclose(averaged.replicates, difference, atol=1e-12)
    shown = gain.over_patients()
    assert shown == averaged.interval()
    areas = [
        [sklearn_macro(*scores(finished, key, seed)[:2]) for seed in finished.seeds] for key in ("mxa", "baseline")
    ]
    each = np.subtract(*areas)
    both = gain.over_both()
    assert both is not None
    assert both.estimate == pytest.approx(each.mean())
    reach = np.hypot(
        stats.t.ppf(0.975, len(each) - 1) * stats.sem(each), stats.norm.ppf(0.975) * difference.std(ddof=1)
    )
    assert (both.low, both.high) == pytest.approx((each.mean() - reach, each.mean() + reach))


def test_a_groups_figure_is_the_mean_over_its_findings(finished: ReproduceConfig) -> None:
    table = tables.by_group(finished, summarise(finished))
    assert [row[:2] for row in table.rows] == [("two", finished.title(key)) for key in finished.cells]
    columns = [CHEXPERT14.index(name) for name in ("Pleural Effusion", "Fracture")]
    means = {}
    for key in ("baseline", "mxa"):
        runs = [scores(finished, key, seed) for seed in finished.seeds]
        areas = [[roc_auc_score(run[1][:, j], run[0][:, j]) for j in columns] for run in runs]
        means[key] = np.mean(areas, axis=1)
    assert table.rows[1][2] == f"{means['mxa'].mean():.3f} ± {means['mxa'].std(ddof=1):.3f}"
    assert str(table.rows[1][4]).startswith(f"{means['mxa'].mean() - means['baseline'].mean():+.3f} (")
    numbers = json.loads((finished.report_folder / "results.json").read_text())
    stored = numbers["cells"]["mxa"]["change"]["groups"]["two"]
    assert stored["estimate"] == pytest.approx(means["mxa"].mean() - means["baseline"].mean(), abs=1e-12)
    assert stored["p"] == pytest.approx(table.rows[1][5])
    assert stored["seeds_too"]["p"] == pytest.approx(table.rows[1][7])
    assert f"({stored['seeds_too']['low']:+.3f} to {stored['seeds_too']['high']:+.3f})" in str(table.rows[1][6])


def test_over_seeds_is_the_t_interval() -> None:
    values = np.array([0.7, 0.72, 0.78])
    low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    found = over_seeds(values)
    assert found is not None
    assert (found.estimate, found.low, found.high) == pytest.approx((values.mean(), low, high))
    assert over_seeds(np.array([0.5, np.nan])) is None
    single = over_seeds(np.array([0.5]))
    assert single is not None
    assert (single.low, single.high) == (0.5, 0.5)


def test_cells_of_the_tables() -> None:
    assert tables.spread(np.array([0.7, 0.8])) == "0.750 ± 0.071"
    assert tables.spread(np.array([0.7])) == 0.7
    assert tables.spread(np.array([0.7, np.nan])) == "undefined in 1 of 2 seeds"
    assert tables.signed(None) == "undefined"
    assert tables.quote(None) == "–"


# --------------------------------------------------------------- the page


def test_the_papers_tables_and_figures_are_there(finished: ReproduceConfig) -> None:
    page = (finished.report_folder / "report.html").read_text()
    for words in (
        "Table 3.",
        "Table 4.",
        "Table 5.",
        "Figure 2.",
        "Figure 3.",
        "Figure 4.",
        "What changed between cells",
    ):
        assert words in page
    assert re.search(r"<h2>Ablation</h2>\s*<div", page), "it opens with the table that matters"
    assert "https://" not in page
    assert "http://" not in page
    for name in ("figure2", "figure3", "figure4", "changes"):
        assert (finished.report_folder / f"{name}.png").stat().st_size > 10_000
    for name in ("table3", "table4", "table4-by-seed", "table5", "what-changed", "groups"):
        assert (finished.report_folder / "tables" / f"{name}.csv").is_file()
    assert "Table 4" in (finished.report_folder / "tables.md").read_text()
    assert "Table 4" in (finished.report_folder / "tables.tex").read_text()


def test_published_numbers_stand_beside_and_are_labelled(finished: ReproduceConfig) -> None:
    import html

    page = html.unescape((finished.report_folder / "report.html").read_text())
    assert CAVEAT in page
    table = tables.ablation(finished, summarise(finished))
    assert table.header[-2:] == ("Paper (CheXpert): loss", "micro AUROC")
    assert [row[-2:] for row in table.rows] == [(0.6819, 0.6659), (0.3729, 0.8344), (0.3685, 0.8393)]


def test_the_published_numbers_are_the_papers() -> None:
    """Against the paper's text, where it lies beside the repository."""
    paper = Path(__file__).resolve().parents[3] / "shared" / "paper" / "mxa-paper.txt"
    if not paper.is_file():
        pytest.skip("the paper's text is not here")
    lines = paper.read_text(encoding="utf-8").splitlines()
    table5 = {
        line.split()[0]: line.split()[1:] for line in lines if re.fullmatch(r"[A-Z]{2,3}( (0\.\d\d|NaN)){3}", line)
    }
    assert len(table5) == 14
    for code, values in table5.items():
        for key, value in zip(("baseline", "mxa", "mxa_kd"), values, strict=True):
            assert PUBLISHED[key].findings.get(code) == (None if value == "NaN" else float(value)), (code, key)
    rows = {
        line.rsplit(" ", 4)[0]: line.split()[-4:] for line in lines if line.startswith(("Baseline (E", "Proposed (E"))
    }
    for name, key in (("Baseline (EfficientViT)", "baseline"), ("Proposed (EfficientViT + MXA + KD)", "mxa_kd")):
        one = PUBLISHED[key]
        quoted = [100 * (one.accuracy or 0), one.loss, one.f1, one.auroc]
        assert quoted == pytest.approx([float(value) for value in rows[name]])
    four = [line.split()[-2:] for line in lines if re.match(r"U1 \+ Better Augs.* 0\.\d+ 0\.\d+$", line)]
    assert [[PUBLISHED[k].ablation_loss, PUBLISHED[k].ablation_auroc] for k in ("baseline", "mxa", "mxa_kd")] == [
        [float(loss), float(area)] for loss, area in four
    ]


def test_the_numbers_on_the_page_are_those_in_the_files(finished: ReproduceConfig) -> None:
    numbers = json.loads((finished.report_folder / "results.json").read_text())
    summary = summarise(finished)
    for key, cell in summary.cells.items():
        stored = numbers["cells"][key]
        assert stored["mean"]["auroc_macro"]["estimate"] == pytest.approx(cell.values("auroc_macro").mean())
        if stored["against"]:
            gain = cell.gains(summary.cells[stored["against"]]).macro.over_patients()
            assert stored["change"]["auroc_macro"]["low"] == gain.low  # type: ignore[union-attr]
            table4 = (finished.report_folder / "tables" / "table4.csv").read_text()
            assert gain.signed() in table4  # type: ignore[union-attr]
    assert numbers["split"] == "test"


def test_a_grid_without_mxa_says_why_there_is_no_figure_2(finished: ReproduceConfig, tmp_path: Path) -> None:
    config = replace(finished, cells={"baseline": finished.cells["baseline"]}, seeds=[0], teacher_changes={})
    page = write_grid_report(config).read_text()
    assert "There is no Figure 2: efficientvit_m0 has no MXA block" in page
    assert "no cell is compared with another" in page or "–" in page
    write_grid_report(finished)
