"""Images per second from disk to a training batch: the paper's pipeline against the pack, sides in turn, medians.

Sides, all on this process and (where it matters) one torch thread, so per core; each makes batches of 32 at 224 px:

- paper: Pillow decode, bicubic resize, timm's RandAugment, to float, normalise [6.2], picture by picture;
- decode: decode and bicubic resize alone (what packing costs), in full and at reduced size;
- pack: the uint8 batch from the memory map;
- pack, batch augmentation: the same and RandAugment on the whole batch, on the CPU;
- pack, timm augmentation: the same and timm's, picture by picture;
- copy: as many bytes copied by NumPy, the limit of any loader.

    python benchmarks/loading.py [--images 512] [--large] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform

from mxa.data.augment import Augment, Augmenter
from mxa.data.batch_augment import BatchAugmenter, RandAugment
from mxa.data.decode import decode
from mxa.data.loader import RadiographDataset
from mxa.data.options import DataOptions, read
from mxa.data.pack import open_pack
from mxa.data.packing import make_pack
from mxa.data.phantom import make_phantom
from mxa.preprocess import Preprocess

CONTRACT, BATCH, ROUNDS = Preprocess(), 32, 7


def enlarge(root: Path) -> None:
    """Replace the phantom's pictures by ones of CheXpert's full size, 2320 x 2828."""
    for file in root.rglob("*.jpg"):
        with Image.open(file) as image:
            image.resize((2320, 2828), Image.Resampling.BICUBIC).save(file, quality=90)


def sides(root: Path, folder: Path) -> dict[str, Callable[[np.ndarray], object]]:
    """What is timed; each takes the rows of one batch."""
    table = read(DataOptions(root=str(root)))
    files = table.files()
    pack = open_pack(make_pack(table, folder / "pack", CONTRACT), CONTRACT)
    dataset = RadiographDataset(table, CONTRACT, pack.pixels, positions=pack.rows_of(table))
    randaugment = rand_augment_transform("rand-m5-mstd0.2-inc2", {"img_mean": 114})
    batched, single = BatchAugmenter(RandAugment(5, 0.2), 0, 114), Augmenter(Augment(implementation="timm"), 0, 114)
    source = np.random.default_rng(0).integers(0, 256, (BATCH, CONTRACT.size, CONTRACT.size)).astype(np.uint8)

    def paper(rows: np.ndarray) -> object:
        found = []
        for row in rows:
            with Image.open(files[row]) as image:
                small = image.convert("L").resize((CONTRACT.size, CONTRACT.size), Image.Resampling.BICUBIC)
            pixels = np.asarray(randaugment(small), dtype=np.float32) / 255
            found.append((pixels - CONTRACT.mean) / CONTRACT.std)
        return torch.from_numpy(np.stack(found))

    def taken(rows: np.ndarray) -> torch.Tensor:
        return dataset.decoded(torch.from_numpy(rows))

    def one_by_one(rows: np.ndarray) -> object:
        return [single(picture, 0, int(row)) for picture, row in zip(taken(rows).numpy(), rows, strict=True)]

    return {
        "paper": paper,
        "decode": lambda rows: [decode(files[row], CONTRACT) for row in rows],
        "decode, reduced": lambda rows: [decode(files[row], CONTRACT, reduced=True) for row in rows],
        "pack": taken,
        "pack, batch augmentation": lambda rows: batched.apply(taken(rows)[:, None], batched.plan(0, rows)),
        "pack, timm augmentation": one_by_one,
        "copy": lambda _: source.copy(),
    }


def packing(root: Path, folder: Path) -> dict[str, float]:
    """Images/s of packing on all processors, and of decode and resize alone in the same number of threads."""
    from concurrent.futures import ThreadPoolExecutor

    table = read(DataOptions(root=str(root)))
    found: dict[str, list[float]] = {"packing": [], "decoding alone": []}
    for turn in range(3):
        start = time.perf_counter()
        make_pack(table, folder / f"again-{turn}", CONTRACT)
        found["packing"].append(len(table) / (time.perf_counter() - start))
        start = time.perf_counter()
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda file: decode(file, CONTRACT, reduced=True), table.files()):
                pass
        found["decoding alone"].append(len(table) / (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Print a line per side, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--large", action="store_true", help="pictures of 2320 x 2828 instead of 320 x 390")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = make_phantom(folder / "data", images=options.images, masks=False)
        if options.large:
            enlarge(root)
        jobs = sides(root, folder)
        rates: dict[str, list[float]] = {side: [] for side in jobs}
        rng = np.random.default_rng(0)
        count = len(read(DataOptions(root=str(root))))
        for _ in range(ROUNDS):
            rows = rng.permutation(count)[:BATCH]
            for side, job in jobs.items():
                job(rows)  # its pages and caches are warm, as in the second epoch
                repeats = 1 if side in {"paper", "decode", "decode, reduced"} else 20
                start = time.perf_counter()
                for _ in range(repeats):
                    job(rows)
                rates[side].append(repeats * BATCH / (time.perf_counter() - start))
        medians = {side: statistics.median(values) for side, values in rates.items()}
        for side, values in rates.items():
            ratio = medians[side] / medians["paper"]
            print(
                f"{side}: {medians[side]:,.0f} images/s ({min(values):,.0f} to {max(values):,.0f}), {ratio:.1f} x paper"
            )
        made = packing(root, folder)
        print(", ".join(f"{what}: {rate:,.0f} images/s" for what, rate in made.items()), "on all processors")
    if options.json:
        options.json.write_text(json.dumps({"images_per_s": rates, "packing": made}, indent=2) + "\n")


if __name__ == "__main__":
    main()
