"""Two processes on the CPU against one with the same steps: rows, losses, weights, validation figures."""

import csv
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import yaml
from torch import nn

from conftest import same_state, small_config, write_chexpert
from killed import wait_until
from mxa.data.images import read_grey
from mxa.data.loader import EpochSampler
from mxa.data.options import read
from mxa.errors import ConfigError, DataError
from mxa.models.artifact import load
from mxa.models.build import build_model
from mxa.training.config import KdConfig, ModelConfig, OptimConfig, TrainConfig
from mxa.training.distillation import DistillationLoss
from mxa.training.distributed import (
    average_buffers,
    everybodys,
    from_first,
    gather_rows,
    total,
    with_shared_batch_norm,
)
from mxa.training.losses import masked_bce_with_logits
from mxa.training.region_watch import box_statistics, read_regions
from mxa.training.run import train

OPTIM = OptimConfig(epochs=2, batch_size=8, lr_batch_size=8, warmup_epochs=0, cooldown_epochs=0, ema_decay=0.9)


# ------------------------------------------------------------ what they tell each other


def join(rank: int, port: int, job: Callable[[int], Any], box: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        box.put((rank, job(rank)))
        dist.barrier()
    finally:
        dist.destroy_process_group()


def on_two(job: Callable[[int], Any]) -> list[Any]:
    """The results of a function on two joined processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    box = context.Queue()
    workers = [context.Process(target=join, args=(rank, port, job, box)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = dict(box.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    return [results[0], results[1]]


def talk(rank: int) -> dict[str, Any]:
    norm = nn.BatchNorm1d(3)
    norm.running_mean += rank * 4.0
    average_buffers(norm)
    rows = np.array([[4, 0, 2], [3, 1]][rank])
    gathered = gather_rows(rows, {"value": rows * 10.0, "pair": np.stack([rows, -rows], 1)})
    twice = ""
    try:
        gather_rows(np.array([7]), {})
    except ValueError as error:
        twice = str(error)
    return {
        "total": total(torch.tensor([rank + 1.0, 10.0])).tolist(),
        "mean": norm.running_mean.tolist(),
        "counted": int(norm.num_batches_tracked),
        "value": gathered["value"].tolist(),
        "pair": gathered["pair"].tolist(),
        "everybodys": everybodys(f"from {rank}"),
        "first": from_first("said" if rank == 0 else None),
        "twice": twice,
    }


def test_what_processes_tell_each_other() -> None:
    for told in on_two(talk):
        assert told["total"] == [3.0, 20.0]
        assert told["mean"] == [2.0, 2.0, 2.0]
        assert told["counted"] == 0
        assert told["value"] == [0.0, 10.0, 20.0, 30.0, 40.0]
        assert told["pair"] == [[0, 0], [1, -1], [2, -2], [3, -3], [4, -4]]
        assert told["everybodys"] == ["from 0", "from 1"]
        assert told["first"] == "said"
        assert "two processes" in told["twice"]


def test_alone_nothing_is_asked() -> None:
    values = torch.tensor([1.0])
    assert total(values) is values
    assert everybodys("x") == ["x"]
    assert gather_rows(np.array([2, 0]), {"v": np.array([5, 6])})["v"].tolist() == [6, 5]
    assert from_first(3) == 3


LEAVING = """
import sys
import time
from pathlib import Path
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from mxa.training.distributed import disbanding, from_first

def names():
    return sorted({file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")})

def work(fails):
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1], rank=0, world_size=1)
    model = DistributedDataParallel(nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    assert any("gloo" in name for name in names()), names()
    if fails:
        raise ValueError("as it may")
    return from_first("done")

try:
    with disbanding():
        assert work(sys.argv[2] == "fails") == "done"
except ValueError as error:
    assert str(error) == "as it may"
    error.__traceback__ = None
assert not dist.is_initialized()
until = time.monotonic() + 10  # the kernel lists a thread for a moment after it has been waited for
while any("gloo" in name for name in names()) and time.monotonic() < until:
    time.sleep(0.01)
assert not any("gloo" in name for name in names()), names()

dist.init_process_group("gloo", init_method="file://" + sys.argv[1] + "2", rank=0, world_size=1)
with disbanding():
    pass
assert dist.is_initialized(), "somebody else's"
dist.destroy_process_group()
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the names of threads are Linux's")
@pytest.mark.parametrize("ends", ["well", "fails"])
def test_no_thread_of_the_group_outlives_the_run(tmp_path: Path, ends: str) -> None:
    """One that does may abort the process at its end, after all is done."""
    command = [sys.executable, "-c", LEAVING, str(tmp_path / "store"), ends]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def batch_of_eight() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 14, generator=generator) for _ in range(2))
    target = (torch.rand(8, 14, generator=generator) > 0.5).float()
    mask = torch.rand(8, 14, generator=generator) > torch.linspace(0.05, 0.9, 8)[:, None]  # unequal halves
    return student, teacher, target, mask


def half_of_the_loss(rank: int) -> list[Any]:
    student, teacher, target, mask = (part[rank * 4 : rank * 4 + 4] for part in batch_of_eight())
    found: list[Any] = []
    for kd in (None, KdConfig(teacher="t"), KdConfig(teacher="t", type="hard", full_weight_untaught=True)):
        own = student.clone().requires_grad_()
        if kd is None:
            loss = masked_bce_with_logits(own, target, mask)
        else:
            loss = DistillationLoss(kd, torch.arange(14) < 12)(own, teacher, target, mask).total
        loss.backward()
        found.append((loss.item(), own.grad.numpy()))
    return found


def test_the_mean_of_the_processes_losses_is_the_whole_batchs() -> None:
    """Also where one half has many more labels than the other; so are the gradients, which DDP averages."""
    halves = on_two(half_of_the_loss)
    student, teacher, target, mask = batch_of_eight()
    for number, kd in enumerate(
        (None, KdConfig(teacher="t"), KdConfig(teacher="t", type="hard", full_weight_untaught=True))
    ):
        whole = student.clone().requires_grad_()
        if kd is None:
            loss = nn.functional.binary_cross_entropy_with_logits(whole, target, reduction="none")[mask].mean()
        else:
            loss = DistillationLoss(kd, torch.arange(14) < 12)(whole, teacher, target, mask).total
        loss.backward()
        values, gradients = zip(*(half[number] for half in halves), strict=True)
        assert np.mean(values) == pytest.approx(loss.item(), rel=1e-6)
        np.testing.assert_allclose(np.concatenate(gradients) / 2, whole.grad.numpy(), rtol=1e-5, atol=1e-9)


# ------------------------------------------------------------------------- rows


@pytest.mark.parametrize(("length", "step", "world"), [(50, 8, 2), (50, 12, 4), (48, 12, 3), (7, 7, 1)])
def test_a_step_has_the_same_rows_on_any_number_of_processes(length: int, step: int, world: int) -> None:
    def rows(**place: int) -> list[int]:
        sampler = EpochSampler(length, shuffle=True, seed=3, step=step, **place)
        sampler.set_epoch(2)
        found = [row for _, row in sampler]
        assert len(found) == len(sampler)
        return found

    alone = np.array(rows()).reshape(-1, step)
    shared = [np.array(rows(rank=rank, world=world)).reshape(len(alone), -1) for rank in range(world)]
    assert len(alone) == length // step
    np.testing.assert_array_equal(np.concatenate(shared, axis=1), alone)


@pytest.mark.parametrize(("length", "world"), [(17, 2), (5, 4), (12, 3)])
def test_validation_rows_are_dealt_out_once(length: int, world: int) -> None:
    samplers = [EpochSampler(length, shuffle=False, rank=rank, world=world) for rank in range(world)]
    rows = [[row for _, row in sampler] for sampler in samplers]
    assert [len(part) for part in rows] == [len(sampler) for sampler in samplers]
    assert sorted(row for part in rows for row in part) == list(range(length))


def test_a_step_must_divide() -> None:
    with pytest.raises(ValueError, match="7 rows cannot be shared equally by 2"):
        EpochSampler(20, shuffle=True, step=7, world=2)


# ------------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """44 training images (one more step than fits), and 17 of validation: neither divides by two processes."""
    folder = write_chexpert(tmp_path_factory.mktemp("odd"), {"train": 22, "valid": 9})
    file = folder / "CheXpert-v1.0-small" / "valid.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    return folder


def transformer(root: Path, out: Path, **changes: Any) -> TrainConfig:
    """A network without batch norm, so that what a process sees of a batch does not matter."""
    config = small_config(root, out, OPTIM)
    model = ModelConfig(name="test_vit", options={"img_size": 64})
    return replace(config, model=model, precision="32", workers=0, **changes)


@contextmanager
def started(
    config: TrainConfig, *, torchrun: bool = True, options: tuple[str, ...] = ()
) -> Iterator[subprocess.Popen[str]]:
    """`mxa train` on two processes, as a user starts it; what has not ended at the end of the block is killed."""
    file = Path(config.out).with_suffix(".yaml")
    file.write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))))
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if torchrun else []
    process = subprocess.Popen(
        [sys.executable, *starter, "-m", "mxa", "train", "--config", str(file), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def launch(
    config: TrainConfig, *, torchrun: bool = True, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Start, and wait for the end."""
    with started(config, torchrun=torchrun, options=options) as process:
        printed, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, printed, errors)


def history(folder: str | Path) -> list[dict[str, str]]:
    with (Path(folder) / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("torchrun", "workers"), [(True, 0), (False, 1)])
def test_two_processes_train_as_one(root: Path, tmp_path: Path, torchrun: bool, workers: int) -> None:
    """Started by torchrun, or by Lightning itself; with loading processes, or without."""
    alone = transformer(root, tmp_path / "alone")
    train(alone)
    shared = replace(alone, out=str(tmp_path / "shared"), devices=2, workers=workers)
    done = launch(shared, torchrun=torchrun)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("on the validation split") == 1, "the first process alone speaks"
    for one, two in zip(history(alone.out), history(shared.out), strict=True):
        assert one["step"] == two["step"]
        for name in ("lr", "train/loss", "val/auroc_macro", "val/loss", "val_ema/auroc_macro", "val_ema/f1_micro"):
            assert float(two[name]) == pytest.approx(float(one[name]), rel=1e-4), name
    one_state, two_state = (dict(load(Path(c.out) / "model").model.state_dict()) for c in (alone, shared))
    for name, value in one_state.items():
        torch.testing.assert_close(two_state[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_batch_norms_network_on_two_processes(root: Path, tmp_path: Path) -> None:
    """The figures of the last epoch, gathered from two processes, are those of its checkpoint scored by one."""
    optim = replace(OPTIM, epochs=1)
    config = replace(small_config(root, tmp_path / "run", optim), devices=2)
    done = launch(config)
    assert done.returncode == 0, done.stderr
    logged = history(config.out)[0]
    stored = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["training"]
    for weights, place in (("raw", "val"), ("ema", "val_ema")):
        for name in ("auroc_macro", "loss", "f1_micro", "accuracy"):
            assert float(logged[f"{place}/{name}"]) == pytest.approx(stored["validation"][weights][name], rel=1e-5)
    raw = load(tmp_path / "run" / "model", weights=None if stored["weights"] == "raw" else "raw")
    valid = read(config.data).split("valid")
    pixels = np.stack([config.preprocess.resize(read_grey(file)) for file in valid.files()])
    boxes = raw.regions(torch.from_numpy(pixels)[:, None])
    rows = read_regions(tmp_path / "run" / "regions.csv")
    assert [row.block for row in rows] == list(boxes)
    for row in rows:
        for name, value in box_statistics(boxes[row.block].numpy()).items():
            assert getattr(row, name) == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_an_interrupted_run_goes_on(root: Path, tmp_path: Path) -> None:
    """The signal reaches one process; both stop, leave one checkpoint, and go on from it to the same weights."""
    longer = replace(OPTIM, epochs=8)
    whole, stopped = (transformer(root, tmp_path / name, optim=longer, devices=2) for name in ("whole", "stopped"))
    assert launch(whole, torchrun=False).returncode == 0
    with started(stopped, torchrun=False) as process:
        reached = wait_until(lambda: process.poll() is not None or (tmp_path / "stopped" / "history.csv").exists(), 120)
        assert reached, "no epoch in two minutes: the processes wait for each other"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "--resume to go on" in errors
    assert 1 <= len(history(stopped.out)) < 8
    done = launch(stopped, options=("--resume",))
    assert done.returncode == 0, done.stderr
    assert [row["epoch"] for row in history(stopped.out)] == [str(epoch) for epoch in range(8)]
    one, two = (load(Path(config.out) / "model").model.state_dict() for config in (whole, stopped))
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_signal_to_the_whole_group_is_no_failure(root: Path, tmp_path: Path) -> None:
    """As a scheduler sends it: it reaches the loading processes too, which must not fail under the training ones."""
    config = transformer(root, tmp_path / "run", optim=replace(OPTIM, epochs=30), devices=2)
    with started(replace(config, workers=1), torchrun=False) as process:
        reached = wait_until(lambda: process.poll() is not None or (tmp_path / "run" / "history.csv").exists(), 120)
        assert reached, "no epoch in two minutes: the processes wait for each other"
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "--resume to go on" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


def test_parts_of_a_step_add_up(root: Path, tmp_path: Path) -> None:
    """Without masks a step in four parts is the step in one."""
    runs = []
    for parts in (1, 4):
        config = transformer(root, tmp_path / f"in-{parts}")
        policy = replace(config.data.policy, uncertain="u-ones", blank="negative")
        config = replace(config, data=replace(config.data, policy=policy), optim=replace(OPTIM, accumulate=parts))
        train(config)
        runs.append((history(config.out), load(Path(config.out) / "model").model.state_dict()))
    (one, one_state), (four, four_state) = runs
    for a, b in zip(one, four, strict=True):
        assert a["step"] == b["step"]
        assert float(b["train/loss"]) == pytest.approx(float(a["train/loss"]), rel=1e-4)
        assert float(b["lr"]) == pytest.approx(float(a["lr"]))
    for name, value in one_state.items():
        torch.testing.assert_close(four_state[name], value, rtol=1e-3, atol=1e-5, msg=name)


# --------------------------------------------------------------------- refusals


def test_what_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 8; it must be a multiple of devices x nodes .* = 6"):
        TrainConfig(devices=3, optim=replace(OPTIM, accumulate=2))
    with pytest.raises(ConfigError, match="devices is 0"):
        TrainConfig(devices=0)


def test_a_launcher_with_another_number_of_processes_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "4",
        "GROUP_RANK": "0",
        "LOCAL_WORLD_SIZE": "4",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="torchrun has started 4 processes, but devices x nodes is 1"):
        train(transformer(root, tmp_path / "run"))


def test_more_processes_than_validation_images_are_refused(root: Path, tmp_path: Path) -> None:
    config = replace(small_config(root, tmp_path / "run", replace(OPTIM, batch_size=20)), devices=20)
    with pytest.raises(DataError, match=r"17 images, fewer than there are processes \(20\)"):
        train(config)


@pytest.mark.parametrize("name", ["mxa_efficientvit_m0", "densenet121", "efficientnet_b0", "resnet18"])
def test_shared_batch_norm_is_the_same_network(name: str) -> None:
    """timm's DenseNets apply the activation inside the norm, which torch's own conversion forgets."""
    torch.manual_seed(0)
    network = build_model(name, 14, 64).eval()
    image, state = torch.randn(2, 1, 64, 64), {key: value.clone() for key, value in network.state_dict().items()}
    before = network(image)
    shared = with_shared_batch_norm(network)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in shared.modules())
    torch.testing.assert_close(shared(image), before, rtol=0, atol=0)
    assert same_state(state, shared.state_dict())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_synchronised_batch_norm_needs_gpus(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sync_batch_norm needs GPUs"):
        train(transformer(root, tmp_path / "run", sync_batch_norm=True))
