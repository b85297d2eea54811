"""Batches: the right rows, every row once, and a start in the middle of an epoch."""

import os
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from mxa.data.augment import Augment, Augmenter
from mxa.data.decode import decode, decode_all
from mxa.data.loader import EpochSampler, RadiographDataset, make_loader
from mxa.data.options import DataOptions, read
from mxa.data.table import Table
from mxa.errors import DataError
from mxa.preprocess import Preprocess

CONTRACT = Preprocess(size=32)


@pytest.fixture
def table(tiny_chexpert: Path) -> Table:
    return read(DataOptions(root=str(tiny_chexpert))).split("train")


def test_decode_all_is_decode_for_each(table: Table) -> None:
    seen: list[tuple[int, int]] = []
    pixels = decode_all(table.files(), CONTRACT, progress=lambda done, total: seen.append((done, total)))
    assert pixels.shape == (40, 32, 32)
    assert pixels.dtype == np.uint8
    for row, file in enumerate(table.files()):
        assert (pixels[row] == decode(file, CONTRACT)).all()
    assert seen[-1] == (40, 40)


def test_decode_all_names_the_first_bad_file(table: Table, tmp_path: Path) -> None:
    files = table.files()
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(files[0].read_bytes()[:300])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        decode_all([*files[:5], broken, tmp_path / "missing.jpg"], CONTRACT)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_row_once_with_its_own_labels(table: Table, cached: bool, workers: int) -> None:
    pixels = decode_all(table.files(), CONTRACT)
    dataset = RadiographDataset(table, CONTRACT, pixels if cached else None)
    loader = make_loader(dataset, EpochSampler(len(table), shuffle=True, seed=1), 16, workers=workers)
    rows = []
    for batch in loader:
        assert batch.image.dtype == torch.uint8
        assert batch.image.shape[1:] == (1, 32, 32)
        rows += batch.row.tolist()
        np.testing.assert_array_equal(batch.image[:, 0].numpy(), pixels[batch.row])
        np.testing.assert_array_equal(batch.target.numpy(), table.target[batch.row])
        np.testing.assert_array_equal(batch.mask.numpy(), table.mask[batch.row])
    assert sorted(rows) == list(range(40))


@pytest.mark.parametrize("kind", ["decoded now", "decoded before", "map", "part of a map"])
def test_loading_processes_that_are_no_copies_see_the_same(table: Table, tmp_path: Path, kind: str) -> None:
    pixels = decode_all(table.files(), CONTRACT)
    np.save(tmp_path / "pixels.npy", np.concatenate([pixels[:7], pixels]))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="c")
    given = {"decoded now": None, "decoded before": pixels, "map": mapped, "part of a map": mapped[7:]}[kind]
    positions = np.arange(40) + 7 if kind == "map" else None
    dataset = RadiographDataset(table, CONTRACT, given, positions=positions)
    loader = make_loader(dataset, EpochSampler(40, shuffle=True, seed=1), 16, workers=1, forked=False)
    rows = []
    for batch in loader:
        rows += batch.row.tolist()
        np.testing.assert_array_equal(batch.image[:, 0].numpy(), pixels[batch.row])
    assert sorted(rows) == list(range(40))


@pytest.mark.parametrize("forked", [True, False])
def test_a_signal_to_the_whole_group_leaves_the_loading_processes(table: Table, forked: bool) -> None:
    """As a terminal's Ctrl-C, and a scheduler's notice, reach them beside the one that decides what to do."""
    dataset = RadiographDataset(table, CONTRACT)
    batches = iter(make_loader(dataset, EpochSampler(40, shuffle=False), 4, workers=1, forked=forked))
    rows = next(batches).row.tolist()
    (worker,) = batches._workers  # type: ignore[attr-defined]
    os.kill(worker.pid, signal.SIGINT)
    os.kill(worker.pid, signal.SIGTERM)
    rows += [row for batch in batches for row in batch.row.tolist()]
    assert rows == list(range(40))


def test_a_memory_map_is_handed_on_by_name(table: Table, tmp_path: Path) -> None:
    np.save(tmp_path / "pixels.npy", np.full((1000, 32, 32), 7, np.uint8))
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="c")
    dataset = RadiographDataset(table, CONTRACT, mapped, positions=np.arange(40) + 900)
    handed = pickle.dumps(dataset)
    assert len(handed) < 100_000
    again = pickle.loads(handed)
    np.save(tmp_path / "pixels.npy", np.full((1000, 32, 32), 9, np.uint8))  # the same file, not a copy of its pixels
    assert (again.__getitems__([(0, 3)]).image == 9).all()


def test_augmented_pictures_do_not_depend_on_the_workers(table: Table) -> None:
    pixels = decode_all(table.files(), CONTRACT)
    batches = []
    for workers in (0, 2):
        dataset = RadiographDataset(table, CONTRACT, pixels, Augmenter(Augment(), 0, 114))
        loader = make_loader(dataset, EpochSampler(len(table), shuffle=True), 8, workers=workers)
        loader.sampler.set_epoch(3)
        batches.append(torch.cat([batch.image for batch in loader]))
    assert torch.equal(*batches)
    assert not torch.equal(batches[0][:, 0], torch.from_numpy(pixels))


def test_the_order_changes_with_epoch_and_seed_alone() -> None:
    def order(epoch: int, seed: int) -> list[int]:
        sampler = EpochSampler(50, shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return [row for _, row in sampler]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(epoch, seed)) for epoch in range(3) for seed in range(3)}) == 9
    assert [row for _, row in EpochSampler(5, shuffle=False)] == [0, 1, 2, 3, 4]


def test_a_loader_goes_on_where_it_was(table: Table) -> None:
    def loader() -> "object":
        return make_loader(RadiographDataset(table, CONTRACT), EpochSampler(40, shuffle=True), 8, drop_last=True)

    whole = loader()
    whole.sampler.set_epoch(2)  # type: ignore[attr-defined]
    expected = [batch.row.tolist() for batch in whole]  # type: ignore[attr-defined]
    whole.mark(2, 3)  # type: ignore[attr-defined]
    again = loader()
    again.load_state_dict(whole.state_dict())  # type: ignore[attr-defined]
    assert [batch.row.tolist() for batch in again] == expected[3:]  # type: ignore[attr-defined]
    again.sampler.set_epoch(3)  # type: ignore[attr-defined]
    assert len(list(again)) == 5  # type: ignore[call-overload]


def test_after_the_last_batch_comes_the_next_epoch(table: Table) -> None:
    loader = make_loader(RadiographDataset(table, CONTRACT), EpochSampler(40, shuffle=True), 8, drop_last=True)
    loader.load_state_dict({"epoch": 4, "batches": 5})
    assert loader.sampler.epoch == 5
    assert len(list(loader)) == 5
