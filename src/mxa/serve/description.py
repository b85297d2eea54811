"""What a server tells of its model. Paths and commands of the machine where it was trained are left out."""

from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

from mxa.evaluation.report import DISCLAIMER
from mxa.models.card import model_card
from mxa.predictor import Predictor
from mxa.serve.options import ServeOptions
from mxa.serve.schemas import LimitsBody, ModelBody, OperatingPointBody
from mxa.version import __version__

_OF_TRAINING = ("source", "data", "distillation", "weights", "validation")
_OF_FITTING = ("dataset", "split", "images", "fingerprint")


def describe(predictor: Predictor, blocks: Sequence[str], maps_missing: str, options: ServeOptions) -> ModelBody:
    """Describe a model.

    Args:
        predictor: the model.
        blocks: its MXA blocks.
        maps_missing: why it has no maps; "" where it has.
        options: for the limits of uploads.
    """
    tuning, config = predictor.tuning, public_config(predictor.config)
    return ModelBody(
        architecture=config["architecture"]["name"],
        parameters=config.get("parameters"),
        findings=list(predictor.labels.findings),
        codes=list(predictor.labels.codes),
        preprocess=predictor.preprocess.to_dict(),
        operating_points={
            name: OperatingPointBody(
                thresholds=dict(zip(point.findings, point.thresholds, strict=True)), reasons=dict(point.reasons)
            )
            for name, point in tuning.operating_points.items()
        },
        calibrations={kind: dict(one.reasons) for kind, one in tuning.calibrations.items()},
        operating_point=tuning.operating_point,
        calibration=tuning.calibration,
        views=list(predictor.views),
        fitted_on=_named(_OF_FITTING, tuning.fitted_on),
        blocks=list(blocks),
        maps_missing=maps_missing,
        runtime=predictor.runtime.name,
        model_hash=predictor.model_hash,
        version=__version__,
        notes=list(predictor.notes),
        card=model_card(config),
        limits=LimitsBody(
            bytes=options.max_bytes,
            pixels=options.max_pixels,
            upload_seconds=options.upload_seconds,
            predict_seconds=options.predict_seconds,
        ),
        disclaimer=DISCLAIMER,
    )


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's ``config.json`` for everybody.

    Of the training it keeps where weights, data and teachers came from and how they did on validation; not the run's
    options, its command and machine. Of a path only the last part is left.
    """
    training = _named(_OF_TRAINING, config.get("training", {}))
    return {**config, "training": _without_folders(training, frozenset(config["labels"]["findings"]))}


def _named(keys: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}


def _without_folders(value: Any, findings: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(item, findings) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item, findings) for item in value]
    if isinstance(value, str) and value not in findings:
        return PureWindowsPath(value).name if "/" in value or "\\" in value else value  # splits at both separators
    return value
