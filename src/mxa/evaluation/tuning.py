"""What is chosen on validation data and stored in the model: operating points and calibrations.

Test data never choose: they are only scored with what is stored here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mxa.errors import ArtifactError, ConfigError, DataError
from mxa.evaluation import calibration
from mxa.evaluation.calibration import Calibration
from mxa.evaluation.thresholds import OperatingPoint, Rule, choose_operating_point
from mxa.labels import LabelSet

if TYPE_CHECKING:
    from mxa.evaluation.cases import Cases  # pandas; reading what was chosen must do without

Chosen = TypeVar("Chosen")

RULES = ("youden", "f1", "sensitivity=0.9", "specificity=0.9")
"""The operating points of a freshly trained model."""


@dataclass(frozen=True)
class Tuning:
    """Operating points and calibrations of one model.

    Attributes:
        operating_points: by name, which is their rule's text.
        calibrations: by kind (temperature, platt, isotonic).
        fitted_on: the validation data: data set, split, fingerprint, images and whatever else the caller knows.
        operating_point: name of the one that predictions use where nothing else is asked for; "" for none.
        calibration: kind of the one that they use; "" for none.
    """

    operating_points: Mapping[str, OperatingPoint] = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    fitted_on: Mapping[str, Any] = field(default_factory=dict)
    operating_point: str = ""
    calibration: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "operating_points": {name: point.to_dict() for name, point in self.operating_points.items()},
            "calibrations": {kind: one.to_dict() for kind, one in self.calibrations.items()},
            "fitted_on": dict(self.fitted_on),
            "operating_point": self.operating_point,
            "calibration": self.calibration,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], labels: LabelSet) -> "Tuning":
        """Build from what :meth:`to_dict` gave; an empty mapping is a model without any.

        Raises:
            ConfigError: a part is missing, garbled or not of these findings.
        """
        if not data:
            return cls()
        try:
            points = {name: OperatingPoint.from_dict(point) for name, point in data["operating_points"].items()}
            calibrations = {kind: calibration.from_dict(one) for kind, one in data["calibrations"].items()}
            fitted_on = dict(data["fitted_on"])
            used = str(data.get("operating_point", "")), str(data.get("calibration", ""))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ConfigError(f"the stored operating points or calibrations are garbled ({error!r})") from error
        names = [(name, point.rule) for name, point in points.items()]
        names += [(kind, one.kind) for kind, one in calibrations.items()]
        if wrong := [f"{name!r} holds {held!r}" for name, held in names if name != held]:
            raise ConfigError(f"the stored operating points or calibrations are garbled ({', '.join(wrong)})")
        of = [(name, point.findings) for name, point in points.items()]
        of += [(kind, one.findings) for kind, one in calibrations.items()]
        for what, findings in of:
            if findings != labels.findings:
                raise ConfigError(f"the stored {what} is not of the findings {', '.join(labels)}")
        return cls(points, calibrations, fitted_on).using(*used)

    def using(self, operating_point: str = "", calibration: str = "") -> "Tuning":
        """The same, with what predictions use where nothing else is asked for; "" for none.

        Raises:
            ConfigError: there is no such operating point or calibration.
        """
        if operating_point:
            self.point(operating_point)
        if calibration:
            self.calibrated(calibration)
        return replace(self, operating_point=operating_point, calibration=calibration)

    def point(self, name: str) -> OperatingPoint:
        """An operating point by its name.

        Raises:
            ConfigError: there is none of that name; the message lists those that there are.
        """
        return _chosen(self.operating_points, name, f"operating point {name!r} was chosen")

    def calibrated(self, kind: str) -> Calibration:
        """A calibration by its kind.

        Raises:
            ConfigError: there is none of that kind; the message lists those that there are.
        """
        return _chosen(self.calibrations, kind, f"calibration {kind!r} was fitted")


def stored_tuning(stored: Mapping[str, Any], labels: LabelSet, model: Path) -> Tuning:
    """What a saved model holds.

    Args:
        stored: as :meth:`Tuning.to_dict` gave it.
        labels: the model's findings.
        model: its folder, for messages.

    Raises:
        ArtifactError: a part is missing, garbled or not of these findings.
    """
    try:
        return Tuning.from_dict(stored, labels)
    except ConfigError as error:
        raise ArtifactError(f"{model}: {error}; choose them anew with `mxa calibrate`") from error


def _chosen(there: Mapping[str, Chosen], name: str, what: str) -> Chosen:
    if name not in there:
        raise ConfigError(f"no {what} on validation data; there are: {', '.join(there) or 'none'}")
    return there[name]


def tune(
    cases: "Cases",
    *,
    rules: Sequence[str] = RULES,
    kinds: Sequence[str] = calibration.KINDS,
    fitted_on: Mapping[str, Any] | None = None,
) -> Tuning:
    """Choose operating points and fit calibrations on validation data.

    Args:
        cases: the validation data with their predictions.
        rules: of the operating points, see :class:`mxa.evaluation.thresholds.Rule`.
        kinds: of the calibrations.
        fitted_on: describes the data.

    Raises:
        ConfigError: a rule or kind is unknown.
        DataError: the labels are illegal, or nothing is annotated.
    """
    labels, y, counted = cases.labels, cases.target, cases.mask
    if not counted.any():
        raise DataError(
            "nothing is annotated on the validation data, so there is no threshold to choose; check its labels, and "
            "--policy.uncertain and --policy.blank"
        )
    points = {
        str(rule): choose_operating_point(rule, cases.probability, y, counted, labels)
        for rule in map(Rule.parse, rules)
    }
    logit = calibration.logit_of(cases.probability) if cases.logit is None else cases.logit
    calibrations = {kind: calibration.fit(kind, logit, y, counted, labels) for kind in kinds}
    return Tuning(points, calibrations, dict(fitted_on or {}))
