"""Measure loading, from disk to a training batch: the paper's pipeline against the pack.

    python benchmarks/loading.py [--images 512] [--large] [--rounds 7]

All sides run in this process on one torch thread, so per core; each makes batches of 32 at 224 px, of the pictures in
the same order. The page cache holds them, as in the second epoch of a set that fits into memory:

- paper: Pillow decode, bicubic resize, timm's RandAugment, to float, normalise [6.2], picture by picture;
- decode: decode and bicubic resize alone (what packing costs), in full and at reduced size;
- pack: the uint8 batch from the memory map;
- pack, batch augmentation: the same and RandAugment on the whole batch, on the CPU;
- pack, timm augmentation: the same and timm's, picture by picture;
- copy: as many bytes from a memory block of 256 MiB, one part after the other: the memory's bandwidth, the limit of any
  loader; copy in cache: the same bytes again and again.

Packing is measured on all processors, beside decoding alone in as many threads.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from record import Table, against_one, make_parser, positive, publish
from timing import Job, Timing, interleaved
from timm.data.auto_augment import rand_augment_transform

from mxa.data.augment import Augment, Augmenter
from mxa.data.batch_augment import BatchAugmenter, RandAugment
from mxa.data.decode import decode
from mxa.data.loader import RadiographDataset
from mxa.data.options import DataOptions, read
from mxa.data.pack import open_pack
from mxa.data.packing import make_pack
from mxa.data.phantom import make_phantom
from mxa.data.table import Table as Radiographs
from mxa.preprocess import Preprocess

CONTRACT, PACKING_ROUNDS = Preprocess(), 3
MEMORY = 256 * 2**20
"""Bytes that are copied from: more than a processor's caches hold for one core."""
Rows = np.ndarray


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=positive, default=512)
    parser.add_argument("--size", type=positive, default=320, help="short side of the files' pictures in pixels")
    parser.add_argument("--large", action="store_true", help="pictures of CheXpert's full size, 2320 x 2828")
    parser.add_argument("--batch", type=positive, default=32)
    options = parser.parse_args(argv)
    if options.batch > options.images:
        parser.error(f"--batch {options.batch} is more than --images {options.images}; a batch holds no picture twice")
    with tempfile.TemporaryDirectory() as name, one_torch_thread():
        folder = Path(name)
        root = make_phantom(folder / "data", images=options.images, size=options.size, masks=False)
        if options.large:
            enlarge(root)
        table = read(DataOptions(root=str(root)))
        timings = interleaved(sides(table, folder, options.batch), options.rounds, options.seconds)
        made = interleaved(packing(table, folder), PACKING_ROUNDS)
        publish(
            "loading",
            parser,
            options,
            Table(
                f"loading, batches of {options.batch}, one core",
                timings,
                options.batch,
                against_one("paper", list(timings)),
                columns=bandwidth(timings, options.batch),
            ),
            Table("packing, all processors", made, len(table), against_one("decoding alone", list(made))),
        )


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """NumPy, Pillow and torch alike use one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def enlarge(root: Path) -> None:
    """Replace the phantom's pictures by ones of CheXpert's full size."""
    for file in root.rglob("*.jpg"):
        with Image.open(file) as image:
            image.resize((2320, 2828), Image.Resampling.BICUBIC).save(file, quality=90)


def sides(table: Radiographs, folder: Path, batch: int) -> dict[str, Job]:
    """What is timed, each a call that makes the next batch."""
    files = table.files()
    pack = open_pack(make_pack(table, folder / "pack", CONTRACT), CONTRACT)
    dataset = RadiographDataset(table, CONTRACT, pack.pixels, positions=pack.rows_of(table))
    batched, single = BatchAugmenter(RandAugment(5, 0.2), 0, 114), Augmenter(Augment(implementation="timm"), 0, 114)

    def taken(rows: Rows) -> torch.Tensor:
        return dataset.decoded(torch.from_numpy(rows))

    def one_by_one(rows: Rows) -> object:
        return [single(picture, 0, int(row)) for picture, row in zip(taken(rows).numpy(), rows, strict=True)]

    loaders: dict[str, Callable[[Rows], object]] = {
        "paper": paper_pipeline(files),
        "decode": lambda rows: [decode(files[row], CONTRACT) for row in rows],
        "decode, reduced": lambda rows: [decode(files[row], CONTRACT, reduced=True) for row in rows],
        "pack": taken,
        "pack, batch augmentation": lambda rows: batched.apply(taken(rows)[:, None], batched.plan(0, rows)),
        "pack, timm augmentation": one_by_one,
    }
    order = np.random.default_rng(0).permutation(len(table))
    batches = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
    return {side: over(loader, batches) for side, loader in loaders.items()} | copies(batch)


def over(loader: Callable[[Rows], object], batches: Sequence[Rows]) -> Job:
    """Each call loads the next batch, and after the last one the first."""
    turns = cycle(batches)
    return lambda: loader(next(turns))


def paper_pipeline(files: Sequence[Path]) -> Callable[[Rows], torch.Tensor]:
    """The paper's pipeline from its description [6.2]."""
    randaugment = rand_augment_transform("rand-m5-mstd0.2-inc2", {"img_mean": 114})

    def load(rows: Rows) -> torch.Tensor:
        found = []
        for row in rows:
            with Image.open(files[row]) as image:
                small = image.convert("L").resize((CONTRACT.size, CONTRACT.size), Image.Resampling.BICUBIC)
            pixels = np.asarray(randaugment(small), dtype=np.float32) / 255
            found.append((pixels - CONTRACT.mean) / CONTRACT.std)
        return torch.from_numpy(np.stack(found))

    return load


def copies(batch: int) -> dict[str, Job]:
    """As many bytes as a uint8 batch has, copied by NumPy."""
    block = np.ones(max(1, MEMORY // batch_bytes(batch)) * batch_bytes(batch), dtype=np.uint8)
    parts = cycle(np.split(block, len(block) // batch_bytes(batch)))
    again = block[: batch_bytes(batch)]
    return {"copy": lambda: next(parts).copy(), "copy in cache": again.copy}


def batch_bytes(batch: int) -> int:
    """Of a uint8 batch."""
    return batch * CONTRACT.size**2


def bandwidth(timings: Mapping[str, Timing], batch: int) -> dict[str, dict[str, float]]:
    """Bytes per second of the finished uint8 batches, and the share of what memory allows."""
    rate = {side: batch_bytes(batch) / timing.spread.median for side, timing in timings.items()}
    return {
        "GB/s": {side: value / 1e9 for side, value in rate.items()},
        "% of the limit": {side: 100 * value / rate["copy"] for side, value in rate.items()},
    }


def packing(table: Radiographs, folder: Path) -> dict[str, Job]:
    """Packing, and decode and resize alone."""
    number = count()

    def decode_all() -> None:
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda file: decode(file, CONTRACT, reduced=True), table.files()):
                pass

    return {
        "packing": lambda: make_pack(table, folder / f"pack-{next(number)}", CONTRACT),
        "decoding alone": decode_all,
    }


if __name__ == "__main__":
    main()
