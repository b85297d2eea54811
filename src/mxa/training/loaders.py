"""The training and validation loaders of a run."""

import logging
import os

from mxa.data.augment import Augmenter
from mxa.data.decode import decode_all
from mxa.data.loader import EpochSampler, RadiographDataset, ResumableLoader, make_loader
from mxa.data.table import Table
from mxa.training.config import TrainConfig

log = logging.getLogger(__name__)


def make_loaders(config: TrainConfig, table: Table) -> tuple[ResumableLoader, ResumableLoader]:
    """Decode what fits into memory, and make both loaders.

    Raises:
        DataError: an image that is decoded now cannot be read; the message names it.
        ConfigError: the augmentation is unknown.
    """
    parts = [table.split("train"), table.split("valid")]
    augmenter = None
    if not config.augment.is_off:
        augmenter = Augmenter(config.augment, config.seed, fill=round(255 * config.preprocess.mean))
    images = sum(map(len, parts))
    cached = images * config.preprocess.size**2 <= config.cache_gib * 2**30
    if cached:
        log.info("decoding %d images into memory", images)
    pixels = [decode_all(part.files(), config.preprocess) if cached else None for part in parts]
    training = RadiographDataset(parts[0], config.preprocess, pixels[0], augmenter)
    validation = RadiographDataset(parts[1], config.preprocess, pixels[1])
    order = EpochSampler(len(training), shuffle=True, seed=config.seed)
    size = config.optim.batch_size
    return (
        make_loader(
            training, order, size, workers=loading_processes(config, cached and augmenter is None), drop_last=True
        ),
        make_loader(
            validation, EpochSampler(len(validation), shuffle=False), size, workers=loading_processes(config, cached)
        ),
    )


def loading_processes(config: TrainConfig, light: bool) -> int:
    """How many to use; none where a batch is one indexing of memory (``light``)."""
    if config.workers >= 0:
        return config.workers
    return 0 if light else min(os.cpu_count() or 1, 8)
