"""Running the grid: what is finished stays, what was killed goes on, several runs at once where there are GPUs."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
import yaml

from mxa.data.options import read
from mxa.data.phantom import make_phantom
from mxa.errors import ConfigError, DataError
from mxa.evaluation.files import write_json
from mxa.models.artifact import load
from mxa.predict import predict_dataset
from mxa.processes import follow_parent, leave
from mxa.quiet import quiet_lightning
from mxa.reproduce.checks import check_grid
from mxa.reproduce.config import ReproduceConfig
from mxa.training.callbacks import TrainingInterrupted
from mxa.training.config import TrainConfig, since_then
from mxa.training.loaders import make_dataset
from mxa.training.run import state, train
from mxa.training.teacher_cache import fill_cache

log = logging.getLogger(__name__)

CONFIG_FILE = "reproduce.yaml"
FREE = ("jobs", "replicates", "shown", "groups", "split", "seeds")
"""Options that may change between two calls, as no run depends on them; seeds and cells may also be added."""

RUNS_OF_A_CELL = ("versus", "changes", "distilled")
"""What a cell's runs depend on; its title and what else it is compared with may change."""


def run_grid(config: ReproduceConfig) -> None:
    """Make everything that the report needs: data, teacher, and every cell's runs with their predictions.

    Raises:
        ConfigError: the grid's folder is of other options, or an option is wrong: found before anything runs.
        ArtifactError: the teacher is no saved model, found as early.
        DataError: a run failed; it names the run.
        TrainingInterrupted: stopped from outside; the same call goes on.
    """
    runs = {key: [config.run(key, seed) for seed in config.seeds] for key in config.cells}
    check_grid(config)
    _claim_folder(config)
    _draw(config)
    _teach(config)
    _train_all([one for together in zip(*runs.values(), strict=True) for one in together], config.jobs)
    for runs_of_cell in runs.values():
        for one in runs_of_cell:
            _predict(one, config.split)


def _claim_folder(config: ReproduceConfig) -> None:
    """The folder belongs to one set of options."""
    file = config.folder / CONFIG_FILE
    text = yaml.safe_dump({**_plain(config.to_dict()), "jobs": 0}, sort_keys=False, allow_unicode=True)
    if file.exists():
        stored, wanted = (yaml.safe_load(one) for one in (file.read_text(encoding="utf-8"), text))
        differ = _differing(stored, wanted, [key for key in config.cells if (config.folder / "cells" / key).exists()])
        if differ:
            raise ConfigError(
                f"{config.folder} was started with other options ({', '.join(differ)} differ); use another out, or "
                f"the options of {file}"
            )
    elif config.folder.exists() and any(config.folder.iterdir()):
        raise ConfigError(f"{config.folder} exists and is no grid's folder; use another out")
    config.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _differing(stored: Mapping[str, Any], wanted: Mapping[str, Any], begun: Sequence[str]) -> list[str]:
    """The options, and cells that have runs already, that are not as they were."""
    stored = {**stored, "base": _plain(since_then(stored.get("base", {})))}
    names = [name for name in wanted if name not in (*FREE, "cells") and stored.get(name) != wanted[name]]
    known, now = stored.get("cells", {}), wanted["cells"]
    return names + [
        f"cells.{key}"
        for key in begun
        if key in known and any(known[key].get(name) != now[key][name] for name in RUNS_OF_A_CELL)
    ]


def _plain(value: Any) -> Any:
    """Through JSON: tuples become lists, which YAML writes without tags."""
    return json.loads(json.dumps(value))


def _draw(config: ReproduceConfig) -> None:
    """The phantom appears whole or not at all."""
    if not config.phantom or config.data_folder.exists():
        return
    log.info("drawing %d phantom radiographs", config.phantom)
    part = config.folder / ".data.part"
    shutil.rmtree(part, ignore_errors=True)
    make_phantom(part, images=config.phantom)
    part.rename(config.data_folder)


def _teach(config: ReproduceConfig) -> None:
    """Train the grid's teacher, and store its logits."""
    if not any(config.is_distilled(key) for key in config.cells):
        return
    if config.teacher_changes:
        run_one(config.teacher_run())
    cache = config.cache_run()
    if cache.kd.cache and not Path(cache.kd.cache).exists():
        log.info("storing the teacher's logits")
        fill_cache(cache)


def _train_all(runs: Sequence[TrainConfig], jobs: int) -> None:
    """All runs that are not finished, in order, several at once if asked for."""
    devices = torch.cuda.device_count()
    at_once = jobs or max(1, devices)
    if at_once == 1:
        for one in runs:
            run_one(one)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    others = multiprocessing.active_children()
    places: Queue[int] = context.Queue()
    for k in range(at_once):
        places.put(k)
    with ProcessPoolExecutor(at_once, context, _settle, (places, at_once, devices)) as pool:
        waiting = {pool.submit(_run_for_grid, one): one for one in runs}
        try:
            for done in as_completed(waiting):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()  # its run takes its last step and saves itself
            raise


def _settle(places: "Queue[int]", at_once: int, devices: int) -> None:
    """One GPU for each process, or its share of the processors.

    It ends with the grid's process, even if that is killed: the same command, called again, would train in the same
    folder beside it.
    """
    follow_parent(_stop)
    place = places.get()
    if devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(devices)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[place % devices]
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // at_once))
    logging.basicConfig(format=f"[{place}] %(message)s")
    logging.getLogger("mxa").setLevel(logging.INFO)
    quiet_lightning()


def _stop() -> None:
    """As a signal from outside: a run takes its last step and saves itself, what waits for a run ends."""
    os.kill(os.getpid(), signal.SIGTERM)


def _run_for_grid(config: TrainConfig) -> Path:
    try:
        return run_one(config)
    except TrainingInterrupted:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            leave()  # or this process would wait for ever for another run
        raise


def run_one(config: TrainConfig) -> Path:
    """Train one run, or go on with it, or leave it as it is finished already.

    Returns:
        The saved model's folder.

    Raises:
        ConfigError: the run's folder is of another configuration.
        DataError: training failed; the message names the run.
        TrainingInterrupted: stopped from outside; called again it goes on.
    """
    folder = Path(config.out)
    found = state(config)
    if found == "finished":
        return folder / "model"
    log.info("%s %s", {"new": "training", "started": "going on with"}[found], folder)
    try:
        return train(config, resume=found == "started").model
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    except TrainingInterrupted as stopped:
        raise TrainingInterrupted(f"stopped in {folder}; the same command goes on from there") from stopped


def _predict(config: TrainConfig, split: str) -> None:
    """Score a finished run's model, once."""
    out = Path(config.out) / split
    if (out / "metrics.json").exists():
        return
    if split == "valid":  # training has scored the saved model on it, at its end
        out.mkdir(exist_ok=True)
        for name in ("predictions.csv", "metrics.json"):
            shutil.copy(Path(config.out) / "validation" / name, out / name)
        return
    classifier = load(Path(config.out) / "model")
    table = read(config.data, labels=classifier.labels).split(split)
    log.info("scoring %s", config.out)
    predictions = predict_dataset(classifier, make_dataset(config, table, cached=False), table)
    result = predictions.evaluate(table.target, table.mask)
    out.mkdir(exist_ok=True)
    predictions.write_csv(out / "predictions.csv")
    write_json(out / "metrics.json", result.to_dict())
