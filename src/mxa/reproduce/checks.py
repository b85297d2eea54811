"""What would stop a grid after hours of training, found before its first run."""

from mxa.data.options import read
from mxa.errors import ConfigError
from mxa.labels import label_set
from mxa.models.artifact import read_config
from mxa.models.build import build_model
from mxa.reproduce.config import ReproduceConfig


def check_grid(config: ReproduceConfig) -> None:
    """Look at everything that the grid will need and that is there already.

    Raises:
        ConfigError: a cell's network cannot be made (the message names the cell), or the data have no such split.
        ArtifactError: the teacher, or a model to start from, is no saved model.
        DataError: the data's table cannot be read.
    """
    if config.teacher and any(config.is_distilled(key) for key in config.cells):
        read_config(config.teacher)
    for key in config.cells:
        _check_network(config, key)
    if not config.phantom:
        splits = read(config.shared().data).splits
        if config.split not in splits:
            raise ConfigError(
                f"split is {config.split!r}, but {config.base.data.root} has {', '.join(splits)}; choose one of these"
            )


def _check_network(config: ReproduceConfig, key: str) -> None:
    run = config.run(key, config.seeds[0])
    if run.model.warm_start:
        read_config(run.model.warm_start)
    try:
        build_model(run.model.name, len(label_set(run.data.labels)), run.preprocess.size, options=run.model.options)
    except ConfigError as error:
        raise ConfigError(f"cells.{key}: {error}") from error
