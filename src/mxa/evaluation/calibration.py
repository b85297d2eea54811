"""Probabilities that mean what they say: of the images given 0.3, three in ten have the finding.

A calibration is fitted on validation logits and maps later logits to probabilities. "temperature" divides all logits by
one number and "platt" draws one sigmoid per finding: both keep the ranking. "isotonic" draws one rising line of any
shape per finding and keeps the ranking weakly: it may tie images, but turns none round.

Shapes: N images, L findings; n counted images of one finding.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from mxa.errors import ConfigError, DataError
from mxa.evaluation.metrics import FloatArray, count_by_score, require_probability, sigmoid
from mxa.evaluation.scores import counted_columns, missing_class
from mxa.labels import LabelSet

KINDS = ("temperature", "platt", "isotonic")

NEWTON_STEPS = 100
"""Steps after which Platt's fit is given up; it takes about ten."""


@dataclass(frozen=True)
class Temperature:
    """sigmoid(logit / temperature): less sure above 1, surer below (Guo et al., ICML 2017).

    Raises:
        ConfigError: If the temperature is not a finite number above 0.
    """

    temperature: float

    def __post_init__(self) -> None:
        if _number("temperature", self.temperature) <= 0:
            raise ConfigError(f"a temperature must be above 0, got {self.temperature}")

    def __call__(self, logit: FloatArray) -> FloatArray:
        """Map logits (n,), infinite ones too, to probabilities (n,)."""
        return sigmoid(logit / self.temperature)

    @classmethod
    def fit(cls, logit: FloatArray, target: FloatArray) -> "Temperature":
        """Find the temperature with the least mean cross-entropy.

        With the margin m = logit where the target is 1 and -logit where it is 0, the cross-entropy is the mean of
        log(1 + exp(-m / T)). It is convex in 1 / T and has a minimum at a finite T > 0 if and only if some margin
        is below 0 and their mean above.

        Args:
            logit: (n,) without NaN.
            target: (n,) of 0 and 1.

        Raises:
            DataError: If a logit is infinite or there is no minimum.
        """
        from scipy import optimize, special  # fitting alone needs SciPy; applying a calibration must do without

        infinite = int(np.isinf(logit).sum())
        if infinite:
            raise DataError(
                f"a temperature cannot be fitted: {infinite} of {logit.size} counted logits are infinite "
                "(probabilities of exactly 0 or 1); use isotonic calibration"
            )
        margin = np.where(target == 1, logit, -logit)
        if margin.mean() <= 1e-12 * np.abs(margin).mean():  # above 0 by more than rounding
            raise DataError(
                "a temperature cannot be fitted: the counted logits say no more than chance, so that the best "
                "temperature would be infinite; use platt or isotonic calibration"
            )
        wrong = -margin[margin < 0].sum()
        if wrong == 0:
            raise DataError(
                "a temperature cannot be fitted: no counted logit has the wrong sign, so that the best temperature "
                "would be 0; fit on more images or use platt"
            )

        def slope(log_temperature: float) -> float:
            return float(np.mean(margin * special.expit(-margin / math.exp(log_temperature))))

        # At the lower end m expit(-m / T) <= 0.28 T keeps the right margins' share below the wrong ones', which is at
        # least half their sum; at the upper end expit(-x) >= 1/2 - x/4 makes the mean positive.
        low, high = wrong / margin.size, (margin**2).mean() / margin.mean()
        return cls(math.exp(optimize.brentq(slope, math.log(low), math.log(high), xtol=1e-13)))


@dataclass(frozen=True)
class Platt:
    """sigmoid(slope x logit + intercept) (Platt, "Probabilistic outputs for support vector machines", 1999).

    Raises:
        ConfigError: If the slope is not a finite number above 0, or the intercept not a finite number.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        _number("intercept", self.intercept)
        if _number("slope", self.slope) <= 0:
            raise ConfigError(f"a slope must be above 0, or it would turn the ranking round; got {self.slope}")

    def __call__(self, logit: FloatArray) -> FloatArray:
        """Map logits (n,), infinite ones too, to probabilities (n,)."""
        return sigmoid(self.slope * logit + self.intercept)

    @classmethod
    def fit(cls, logit: FloatArray, target: FloatArray) -> "Platt":
        """Find the slope and intercept with the least mean cross-entropy against smoothed targets.

        The targets are (P + 1) / (P + 2) for the P positives and 1 / (Q + 2) for the Q negatives, so that the fit stays
        finite when the classes do not overlap.

        Args:
            logit: (n,) without NaN.
            target: (n,) of 0 and 1.

        Raises:
            DataError: If the curve cannot be found or would fall; the message is the reason alone.
        """
        if np.isinf(logit).any():
            raise DataError("infinite logits (probabilities of exactly 0 or 1)")
        if np.ptp(logit) == 0:
            raise DataError("all logits are equal")
        positives = target.sum()
        smooth = np.where(target == 1, (positives + 1) / (positives + 2), 1 / (len(target) - positives + 2))
        centre, spread = logit.mean(), logit.std()
        found = _newton((logit - centre) / spread, smooth)
        if found is None:
            raise DataError(f"no fit after {NEWTON_STEPS} Newton steps")
        slope, intercept = found[0] / spread, found[1] - found[0] * centre / spread
        if slope <= 0:
            raise DataError(f"the scores rank backwards: the fitted slope is {slope:.3g}")
        return cls(float(slope), float(intercept))


@dataclass(frozen=True)
class Isotonic:
    """A line through K knots that never falls, constant outside (Zadrozny and Elkan, KDD 2002).

    Attributes:
        probability: K uncalibrated probabilities (sigmoid of the logit), rising.
        observed: K calibrated ones, never falling.

    Raises:
        ConfigError: If these are not numbers in [0, 1], equally many and in order.
    """

    probability: tuple[float, ...]
    observed: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("probability", "observed"):
            values = getattr(self, name)
            if not isinstance(values, list | tuple):
                raise ConfigError(f"the {name} of an isotonic calibration must be a list of numbers, got {values!r}")
            if any(not 0 <= _number(name, value) <= 1 for value in values):
                raise ConfigError(f"the {name} of an isotonic calibration must be in [0, 1], got {values}")
            object.__setattr__(self, name, tuple(values))
        if not len(self.probability) == len(self.observed) > 0:
            raise ConfigError(
                f"an isotonic calibration has {len(self.probability)} probabilities but {len(self.observed)} observed"
            )
        if (np.diff(self.probability) <= 0).any() or (np.diff(self.observed) < 0).any():
            raise ConfigError("the knots of an isotonic calibration must rise in probability and not fall in observed")

    def __call__(self, logit: FloatArray) -> FloatArray:
        """Map logits (n,), infinite ones too, to probabilities (n,)."""
        p, x, y = sigmoid(logit), np.array(self.probability), np.array(self.observed)
        # Interpolation may round to just above the next knot, where the line would then fall.
        following = y[np.minimum(np.searchsorted(x, p, side="right"), len(x) - 1)]
        return np.minimum(np.interp(p, x, y), following)

    @classmethod
    def fit(cls, logit: FloatArray, target: FloatArray) -> "Isotonic":
        """Find the never falling line with the least squared error at the distinct probabilities.

        Args:
            logit: (n,) without NaN, n at least 1.
            target: (n,) of 0 and 1.
        """
        from scipy import optimize

        p, positive, negative = count_by_score(sigmoid(logit), target)
        count = positive + negative
        level = optimize.isotonic_regression(positive / count, weights=count).x
        # Inside a level the knots change nothing.
        step = np.diff(level) > 0
        knot = np.append(True, step) | np.append(step, True)
        return cls(tuple(p[knot].tolist()), tuple(level[knot].tolist()))


Curve = Temperature | Platt | Isotonic
_CURVES: Mapping[str, type[Curve]] = dict(zip(KINDS, (Temperature, Platt, Isotonic), strict=True))


@dataclass(frozen=True)
class Calibration:
    """A map from logits to probabilities, per finding.

    Attributes:
        kind: One of :data:`KINDS`.
        findings: L names in column order.
        curves: By finding that was fitted; with "temperature" all are the same.
        reasons: By finding that was not, why; it keeps its plain sigmoid.

    Raises:
        ConfigError: If the kind is unknown, a curve is of another kind, or a finding has not exactly one of curve and
            reason.
    """

    kind: str
    findings: tuple[str, ...]
    curves: Mapping[str, Curve]
    reasons: Mapping[str, str]

    def __post_init__(self) -> None:
        curve = _curve_of(self.kind)
        if any(not isinstance(one, curve) for one in self.curves.values()):
            raise ConfigError(f"not all curves of this calibration are {self.kind}")
        if sorted((*self.curves, *self.reasons)) != sorted(self.findings):
            raise ConfigError(
                f"a calibration needs a curve or a reason for each of {', '.join(self.findings)}, but it has curves "
                f"for {sorted(self.curves)} and reasons for {sorted(self.reasons)}"
            )
        # Later changes of the caller's dicts must not reach us.
        object.__setattr__(self, "curves", dict(self.curves))
        object.__setattr__(self, "reasons", dict(self.reasons))

    def apply(self, logit: npt.ArrayLike) -> FloatArray:
        """Map logits to calibrated probabilities.

        Args:
            logit: (N, L), infinite or finite.

        Returns:
            (N, L) in [0, 1], float64.

        Raises:
            ValueError: If the shape is not (N, L).
            DataError: If a logit is NaN.
        """
        z = _without_nan(logit, self.findings)
        columns = [self.curves.get(name, sigmoid)(z[:, j]) for j, name in enumerate(self.findings)]
        return np.stack(columns, axis=1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; :func:`from_dict` restores the same map to the bit."""
        return {
            "kind": self.kind,
            "findings": list(self.findings),
            "curves": {
                finding: {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(curve).items()}
                for finding, curve in self.curves.items()
            },
            "reasons": dict(self.reasons),
        }


def fit(kind: str, logit: npt.ArrayLike, target: npt.ArrayLike, mask: npt.ArrayLike, labels: LabelSet) -> Calibration:
    """Fit a calibration on validation data.

    A finding without counted positives or without counted negatives is not fitted, nor does it take part in the common
    temperature. Where that does not exist (see :meth:`Temperature.fit`) no finding has one. "platt" also leaves out a
    finding with an infinite counted logit, with equal ones, or whose scores rank backwards. All these are in
    ``reasons``.

    Args:
        kind: One of :data:`KINDS`.
        logit: (N, L), infinite or finite.
        target: (N, L) of 0 and 1 where counted, anything elsewhere.
        mask: (N, L) bool; True counts.
        labels: The L findings in column order.

    Raises:
        ConfigError: If the kind is unknown.
        ValueError: If the shapes differ, are not (N, L), or the mask is not bool.
        DataError: If a logit is NaN (counted or not), or a counted target is neither 0 nor 1.
    """
    curve = _curve_of(kind)
    z = _without_nan(logit, labels.findings)
    curves: dict[str, Curve] = {}
    reasons: dict[str, str] = {}
    usable: dict[str, tuple[FloatArray, FloatArray]] = {}
    for finding, score, truth in counted_columns(z, target, mask, labels):
        reason = missing_class(truth)
        if reason:
            reasons[finding] = reason
        else:
            usable[finding] = (score, truth)
    if curve is Temperature:
        if usable:
            scores, truths = zip(*usable.values(), strict=True)
            try:
                curves = dict.fromkeys(usable, Temperature.fit(np.concatenate(scores), np.concatenate(truths)))
            except DataError as error:
                reasons |= dict.fromkeys(usable, str(error))
    else:
        for finding, (score, truth) in usable.items():
            try:
                curves[finding] = curve.fit(score, truth)
            except DataError as error:
                reasons[finding] = str(error)
    return Calibration(kind, labels.findings, curves, reasons)


def from_dict(data: Mapping[str, Any]) -> Calibration:
    """Build a calibration from what :meth:`Calibration.to_dict` gave.

    Raises:
        ConfigError: If a field is missing, unknown or of the wrong kind.
    """
    if not isinstance(data, Mapping) or set(data) != {"kind", "findings", "curves", "reasons"}:
        raise ConfigError(f"a calibration needs exactly kind, findings, curves and reasons, got {data!r}")
    make = _curve_of(data["kind"])
    findings = data["findings"]
    if not isinstance(findings, list | tuple) or any(not isinstance(name, str) for name in findings):
        raise ConfigError(f"a calibration's findings must be a list of names, got {findings!r}")
    if not isinstance(data["curves"], Mapping) or not isinstance(data["reasons"], Mapping):
        raise ConfigError("a calibration's curves and reasons must each be a mapping by finding")
    if any(not isinstance(reason, str) for reason in data["reasons"].values()):
        raise ConfigError(f"a calibration's reasons must be in words, got {dict(data['reasons'])}")
    expected = {field.name for field in fields(make)}
    for finding, parameters in data["curves"].items():
        if not isinstance(parameters, Mapping) or set(parameters) != expected:
            raise ConfigError(f"the {data['kind']} curve of {finding!r} needs exactly {sorted(expected)}")
    curves = {finding: make(**parameters) for finding, parameters in data["curves"].items()}
    return Calibration(data["kind"], tuple(findings), curves, data["reasons"])


def logit_of(probability: npt.ArrayLike) -> FloatArray:
    """Return log(p / (1 - p)), the inverse of the sigmoid; infinite at 0 and 1.

    Args:
        probability: Any shape, in [0, 1].

    Returns:
        The same shape, float64.

    Raises:
        DataError: If a probability is outside [0, 1] or not finite.
    """
    from scipy import special

    p = np.asarray(probability, dtype=np.float64)
    require_probability(np.atleast_1d(p))
    return np.asarray(special.logit(p))


def _newton(score: FloatArray, target: FloatArray) -> tuple[float, float] | None:
    """Minimise the mean cross-entropy of sigmoid(a x score + b) by damped Newton steps (Lin et al., 2007).

    Args:
        score: (n,) of mean 0 and spread 1.
        target: (n,) in (0, 1).

    Returns:
        a and b, or None if they are not found in :data:`NEWTON_STEPS` steps.
    """
    design = np.stack([score, np.ones_like(score)], axis=1)

    from scipy import special

    def loss(parameters: FloatArray) -> float:
        z = design @ parameters
        return float((np.logaddexp(0.0, z) - target * z).mean())

    parameters = np.array([0.0, special.logit(target.mean())])
    for _ in range(NEWTON_STEPS):
        p = special.expit(design @ parameters)
        gradient = design.T @ (p - target) / len(target)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) / len(target)
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < 1e-24:
            return float(parameters[0]), float(parameters[1])
        # The slack lets the last steps pass, whose gain is below the rounding of the loss.
        while loss(parameters - step) > loss(parameters) + 1e-12:
            step = step / 2
        parameters = parameters - step
    return None


def _curve_of(kind: object) -> type[Curve]:
    if kind not in KINDS:
        raise ConfigError(f"no calibration is called {kind!r}; choose from {', '.join(KINDS)}")
    return _CURVES[kind]


def _without_nan(logit: npt.ArrayLike, findings: tuple[str, ...]) -> FloatArray:
    z = np.asarray(logit, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != len(findings):
        raise ValueError(f"logits must be (N, {len(findings)}), got {z.shape}")
    bad = np.argwhere(np.isnan(z))
    if len(bad):
        row, column = bad[0]
        raise DataError(f"{len(bad)} logits are NaN; the first is in row {row}, counting from 0, {findings[column]}")
    return z


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"the {name} of a calibration must be a finite number, got {value!r}")
    return value
