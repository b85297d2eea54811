"""The training and validation loaders of a run."""

import logging
import os

from mxa.data.augment import Augmenter
from mxa.data.batch_augment import BatchAugmenter, RandAugment
from mxa.data.decode import decode_all
from mxa.data.loader import EpochSampler, RadiographDataset, ResumableLoader, make_loader
from mxa.data.pack import open_pack
from mxa.data.table import Table
from mxa.training.config import TrainConfig
from mxa.training.distributed import ALONE, Place

log = logging.getLogger(__name__)


def make_loaders(config: TrainConfig, table: Table, place: Place = ALONE) -> tuple[ResumableLoader, ResumableLoader]:
    """Open the pack, or decode what fits into memory, and make both loaders.

    Args:
        config: the run.
        table: the whole data set.
        place: the process that they are for; each gets its own rows. Several processes share a pack's memory, but
            would each need their own decoded pictures, so they decode them in every epoch.

    Raises:
        DataError: an image that is decoded now cannot be read, or is not in the pack; the message names it.
        ConfigError: the augmentation is unknown, or the pack is of another contract.
    """
    parts = [table.split("train"), table.split("valid")]
    augmenter = Augmenter(config.augment, config.seed, fill(config)) if config.augment.by_picture else None
    fits = sum(map(len, parts)) * config.preprocess.size**2 <= config.cache_gib * 2**30
    cached = fits and place.world == 1
    if cached and not config.pack:
        log.info("decoding %d images into memory", sum(map(len, parts)))
    training, validation = (make_dataset(config, part, cached=cached) for part in parts)
    training.augmenter = augmenter
    rank, world = place
    order = EpochSampler(
        len(training), shuffle=True, seed=config.seed, step=config.optim.batch_size, rank=rank, world=world
    )
    size, alone = config.part_size, place.world == 1
    return (
        make_loader(
            training,
            order,
            size,
            workers=loading_processes(config, training.pixels is not None and augmenter is None),
            forked=alone,
        ),
        make_loader(
            validation,
            EpochSampler(len(validation), shuffle=False, rank=rank, world=world),
            size,
            workers=loading_processes(config, validation.pixels is not None),
            forked=alone,
        ),
    )


def batch_augmenter(config: TrainConfig) -> BatchAugmenter | None:
    """What changes whole training batches on the model's device, or None.

    Raises:
        ConfigError: the RandAugment string is not understood.
    """
    if not config.augment.by_batch:
        return None
    return BatchAugmenter(RandAugment.parse(config.augment.randaugment), config.seed, fill(config))


def fill(config: TrainConfig) -> int:
    """The grey of what comes in from outside a moved picture: the contract's mean."""
    return round(255 * config.preprocess.mean)


def make_dataset(config: TrainConfig, part: Table, *, cached: bool) -> RadiographDataset:
    """A table's pictures without augmentation: from the run's pack, decoded into memory now, or each when asked.

    Raises:
        ConfigError: the pack is of another contract.
        DataError: the pack is damaged, lacks a picture or was made of others, or an image that is decoded now cannot
            be read.
    """
    if config.pack:
        pack = open_pack(config.pack, config.preprocess)
        pack.check_pictures(part)
        return RadiographDataset(part, config.preprocess, pack.pixels, positions=pack.rows_of(part))
    pixels = decode_all(part.files(), config.preprocess) if cached else None
    return RadiographDataset(part, config.preprocess, pixels)


def loading_processes(config: TrainConfig, light: bool) -> int:
    """How many to use; none where a batch is one indexing of memory (``light``)."""
    if config.workers >= 0:
        return config.workers
    return 0 if light else min(os.cpu_count() or 1, 8)
