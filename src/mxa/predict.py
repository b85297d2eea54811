"""From a table of images to predictions. Loose files and archives are for :mod:`mxa.archive`."""

import torch

from mxa.data.loader import EpochSampler, RadiographDataset, make_loader
from mxa.data.table import Table
from mxa.evaluation.predictions import Predictions
from mxa.models.artifact import Classifier

BATCH_SIZE = 64


def predict_table(classifier: Classifier, table: Table, workers: int = 0) -> Predictions:
    """Score every image of a table, in its order.

    Args:
        classifier: the model.
        table: N images.
        workers: loading processes.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    return predict_dataset(classifier, RadiographDataset(table, classifier.preprocess), table, workers)


def predict_dataset(classifier: Classifier, dataset: RadiographDataset, table: Table, workers: int = 0) -> Predictions:
    """Score a table's images from a dataset that may hold them decoded already."""
    sampler = EpochSampler(len(table), shuffle=False)
    loader = make_loader(dataset, sampler, BATCH_SIZE, workers=workers)
    logits = torch.cat([classifier.logits(batch.image).cpu() for batch in loader])
    return Predictions.from_logit(table.frame["path"], table.frame["patient"], logits.numpy(), table.labels)
