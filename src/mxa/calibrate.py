"""Choosing a saved model's operating points and calibrations anew, for another place's patients."""

import logging
from collections.abc import Sequence
from pathlib import Path

from mxa.data.options import DataOptions, read
from mxa.errors import ConfigError, DataError
from mxa.evaluate import FOREIGN
from mxa.evaluation.calibration import KINDS
from mxa.evaluation.cases import cases_of
from mxa.evaluation.thresholds import Rule
from mxa.evaluation.tuning import RULES, Tuning, tune
from mxa.models.artifact import load, store_tuning
from mxa.predict import predict_table
from mxa.training.provenance import split_otherwise

log = logging.getLogger(__name__)


def calibrate(
    model: Path,
    data: DataOptions,
    rules: Sequence[str] = RULES,
    workers: int = 0,
    *,
    use_operating_point: str = "",
    use_calibration: str = "",
) -> Tuning:
    """Choose operating points and fit calibrations on the validation split of a data set, and store them in the model.

    There is no way to do it on a test split. The weights and the model's fingerprint stay as they are.

    Args:
        model: folder of the saved model; its ``config.json`` and card are rewritten.
        data: the data set, such as one's own hospital's.
        rules: of the operating points, see :class:`mxa.evaluation.thresholds.Rule`.
        workers: loading processes.
        use_operating_point: the one that predictions decide at where nothing else is asked for; "" takes no decisions.
        use_calibration: the kind that their probabilities are calibrated with; "" leaves them as they are.

    Raises:
        ConfigError: no rule is given, one is unknown, or what predictions are to use is not among them.
        ArtifactError: the model cannot be loaded.
        DataError: the data set cannot be read, has no validation split, or no finding of that has both positives and
            negatives to choose a threshold by. The model keeps what it has then.
    """
    if not rules:
        raise ConfigError("no rules are given, which would leave the model without operating points; name one at least")
    names = [str(Rule.parse(rule)) for rule in rules]  # before anything is predicted
    for option, wanted, there in (
        ("use_operating_point", use_operating_point, names),
        ("use_calibration", use_calibration, KINDS),
    ):
        if wanted and wanted not in there:
            raise ConfigError(f"{option} is {wanted!r}; choose one of {', '.join(there)}, or leave it empty")
    classifier = load(model)
    table = read(data, labels=classifier.labels)
    if split_otherwise(classifier.training, table):
        log.warning(FOREIGN)
    part = table.split("valid")
    cases = cases_of(predict_table(classifier, part, workers), part)
    about = {"dataset": table.dataset, "split": "valid", "images": len(part), "fingerprint": part.fingerprint()}
    tuning = tune(cases, rules=rules, fitted_on=about).using(use_operating_point, use_calibration)
    if all(point.reasons.keys() >= set(classifier.labels) for point in tuning.operating_points.values()):
        raise DataError(
            f"{table.root}: no finding has positives and negatives in the validation split, so there is no threshold "
            f"to choose; {model} is left as it was"
        )
    store_tuning(model, tuning.to_dict())
    return tuning
