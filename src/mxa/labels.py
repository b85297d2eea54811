"""The label schema: the findings, what each data set calls them, and what an uncertain or blank label means.

Canonical names are CheXpert's wherever CheXpert has the finding ("Pleural Effusion", not NIH's "Effusion").
Sources: Irvin et al., "CheXpert", AAAI 2019 (14 observations, uncertainty policies); Wang et al., "ChestX-ray8", CVPR
2017, and its extension to 14 findings; Pham et al., "Interpreting chest X-rays via CNNs that exploit hierarchical
disease dependencies and uncertainty labels", 2021 (smoothed policies and their ranges).
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mxa.errors import ConfigError, DataError

UncertainPolicy = Literal["u-ones", "u-zeros", "u-ignore", "u-ones-smooth", "u-zeros-smooth"]
BlankPolicy = Literal["negative", "ignore"]
UNCERTAIN_POLICIES: tuple[str, ...] = get_args(UncertainPolicy)
BLANK_POLICIES: tuple[str, ...] = get_args(BlankPolicy)

NO_FINDING = "No Finding"
SUPPORT_DEVICES = "Support Devices"
NO_FINDING_RULES = ("product", "ignore")
"""What a teacher without an output for "No Finding" says of it, see :mod:`mxa.models.adapter`."""
_HARDENED = {"u-ones-smooth": "u-ones", "u-zeros-smooth": "u-zeros"}

# Names that are spelled differently from the canonical one, per data set. Nothing else is matched: no guessing by
# case or underscore.
ALIASES: Mapping[str, Mapping[str, str]] = {
    "chexpert": {
        "Airspace Opacity": "Lung Opacity",  # the CheXpert labeler's and MIMIC-CXR's older name
    },
    "nih": {
        "Effusion": "Pleural Effusion",
        "Infiltrate": "Infiltration",  # BBox_List_2017.csv says Infiltrate, Data_Entry_2017.csv says Infiltration
        "Pleural_Thickening": "Pleural Thickening",
    },
    "torchxrayvision": {
        "Effusion": "Pleural Effusion",
        "Pleural_Thickening": "Pleural Thickening",
    },
}


@dataclass(frozen=True)
class LabelSet:
    """An ordered list of findings: column j of every label, logit and probability array is ``findings[j]``.

    Attributes:
        name: Name of the set, such as "chexpert14".
        findings: Canonical names, unique.
        codes: Short names for tables and figures, unique, one per finding.

    Raises:
        ConfigError: If the set is empty, a name is empty or repeated, or the two tuples differ in length.
    """

    name: str
    findings: tuple[str, ...]
    codes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.findings:
            raise ConfigError(f"label set {self.name!r} has no findings; give at least one name")
        if len(self.codes) != len(self.findings):
            raise ConfigError(f"label set {self.name!r}: {len(self.findings)} findings but {len(self.codes)} codes")
        for what, names in (("finding", self.findings), ("code", self.codes)):
            if any(not isinstance(n, str) or not n.strip() for n in names):
                raise ConfigError(f"label set {self.name!r} has an empty {what}: {list(names)}")
            if len(set(names)) != len(names):
                repeated = sorted({n for n in names if names.count(n) > 1})
                raise ConfigError(f"label set {self.name!r} has a {what} twice: {', '.join(repeated)}")

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[str]:
        return iter(self.findings)

    def index(self, finding: str) -> int:
        """Return the column of a finding.

        Raises:
            ConfigError: If the set does not have the finding; the message names the closest one that it has.
        """
        if finding in self.findings:
            return self.findings.index(finding)
        alias = canonical(finding)
        close = (
            [alias] if alias in self.findings else difflib.get_close_matches(finding, self.findings, n=1, cutoff=0.5)
        )
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"label set {self.name!r} has no finding {finding!r}; {hint}It has: {', '.join(self.findings)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, for configurations and model artefacts."""
        return {"name": self.name, "findings": list(self.findings), "codes": list(self.codes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LabelSet":
        """Build a set from what :meth:`to_dict` gave.

        Raises:
            ConfigError: If a field is missing, unknown or of the wrong kind.
        """
        if set(data) != {"name", "findings", "codes"}:
            raise ConfigError(f"a label set needs exactly name, findings and codes, got {sorted(data)}")
        for key in ("findings", "codes"):
            if isinstance(data[key], str) or not isinstance(data[key], Sequence):
                raise ConfigError(f"a label set's {key} must be a list of names, got {data[key]!r}")
        return cls(str(data["name"]), tuple(data["findings"]), tuple(data["codes"]))


CHEXPERT14 = LabelSet(
    "chexpert14",
    (
        NO_FINDING,
        "Enlarged Cardiomediastinum",
        "Cardiomegaly",
        "Lung Opacity",
        "Lung Lesion",
        "Edema",
        "Consolidation",
        "Pneumonia",
        "Atelectasis",
        "Pneumothorax",
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        SUPPORT_DEVICES,
    ),
    ("NF", "ECM", "CM", "LO", "LL", "ED", "CON", "PNA", "ATL", "PTX", "PE", "PO", "FX", "SD"),
)

NIH14 = LabelSet(
    "nih14",
    (
        "Atelectasis",
        "Cardiomegaly",
        "Pleural Effusion",
        "Infiltration",
        "Mass",
        "Nodule",
        "Pneumonia",
        "Pneumothorax",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Fibrosis",
        "Pleural Thickening",
        "Hernia",
    ),
    ("ATL", "CM", "PE", "INF", "MASS", "NOD", "PNA", "PTX", "CON", "ED", "EMPH", "FIB", "PT", "HERN"),
)

LABEL_SETS: Mapping[str, LabelSet] = {s.name: s for s in (CHEXPERT14, NIH14)}


def label_set(spec: str | Sequence[str] | LabelSet) -> LabelSet:
    """Return a label set from a name, a list of findings, or itself.

    Args:
        spec: "chexpert14", "nih14", a :class:`LabelSet`, or a list of finding names. Aliases in a list become
            canonical names and the set is called "custom"; findings of the two known sets keep their codes, others
            get initials.

    Raises:
        ConfigError: If the name is unknown, or the list is empty or names one finding twice.
    """
    if isinstance(spec, LabelSet):
        return spec
    if isinstance(spec, str):
        if spec not in LABEL_SETS:
            raise ConfigError(
                f"unknown label set {spec!r}; choose from {', '.join(LABEL_SETS)} or give a list of findings"
            )
        return LABEL_SETS[spec]
    findings = tuple(canonical(name) for name in spec)
    return LabelSet("custom", findings, _codes(findings))


def _codes(findings: Sequence[str]) -> tuple[str, ...]:
    """Make one short unique code per finding."""
    known = {f: c for s in (NIH14, CHEXPERT14) for f, c in zip(s.findings, s.codes, strict=True)}
    taken = {known[f] for f in findings if f in known}
    codes = []
    for finding in findings:
        if finding in known:
            codes.append(known[finding])
            continue
        words = finding.replace("_", " ").split()
        stem = "".join(w[0] for w in words).upper() if len(words) > 1 else finding[:4].upper()
        code, number = stem, 2
        while code in taken:
            code, number = f"{stem}{number}", number + 1
        taken.add(code)
        codes.append(code)
    return tuple(codes)


def canonical(name: str, dataset: str = "") -> str:
    """Return the canonical name of a finding.

    Args:
        name: The name as the data set spells it.
        dataset: A key of :data:`ALIASES`; empty looks in all of them (no two disagree).

    Returns:
        The canonical name; a name without an alias comes back unchanged.

    Raises:
        ConfigError: If the data set is unknown.
    """
    if dataset and dataset not in ALIASES:
        raise ConfigError(f"no finding names are known for data set {dataset!r}; choose from {', '.join(ALIASES)}")
    for table in (ALIASES[dataset],) if dataset else ALIASES.values():
        if name in table:
            return table[name]
    return name


def map_columns(source: Sequence[str], target: LabelSet, dataset: str = "") -> npt.NDArray[np.int64]:
    """Find, for each finding of a label set, its position among another source's names.

    Args:
        source: Names in the source's order. The empty name (an output that TorchXRayVision never trained) matches
            nothing.
        target: The label set to fill, L findings.
        dataset: Data set whose aliases apply, see :func:`canonical`.

    Returns:
        (L,) int64, index into ``source`` or -1 where the source does not have the finding.

    Raises:
        DataError: If two source names mean the same finding.
    """
    position: dict[str, int] = {}
    for i, name in enumerate(source):
        if not name:
            continue
        finding = canonical(name, dataset)
        if finding in position:
            raise DataError(
                f"columns {source[position[finding]]!r} and {name!r} both mean {finding!r}; keep one of them"
            )
        position[finding] = i
    return np.array([position.get(finding, -1) for finding in target], dtype=np.int64)


@dataclass(frozen=True)
class LabelPolicy:
    """What an uncertain (-1) or blank label becomes.

    The default is the paper's "U-1": uncertain is positive, blank is negative.

    Attributes:
        uncertain: "u-ones" (1), "u-zeros" (0), "u-ignore" (left out of loss and metrics), "u-ones-smooth" or
            "u-zeros-smooth" (a random target in ``smooth_ones`` or ``smooth_zeros``).
        blank: "negative" (0, as the CheXpert paper does) or "ignore" (not mentioned is not taken for absent).
        per_finding: Uncertain policy for single findings, by canonical name.
        smooth_ones: Range of the uniform targets of "u-ones-smooth".
        smooth_zeros: Range of the uniform targets of "u-zeros-smooth".
        seed: Seed of these targets.

    Raises:
        ConfigError: If a value is not allowed; the message names field, value and choices.
    """

    uncertain: str = "u-ones"
    blank: str = "negative"
    per_finding: Mapping[str, str] = field(default_factory=dict, hash=False)
    smooth_ones: tuple[float, float] = (0.55, 0.85)
    smooth_zeros: tuple[float, float] = (0.0, 0.3)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("uncertain", self.uncertain, UNCERTAIN_POLICIES)
        _check_choice("blank", self.blank, BLANK_POLICIES)
        if not isinstance(self.per_finding, Mapping):
            raise ConfigError(f"per_finding must map findings to uncertain policies, got {self.per_finding!r}")
        for finding, policy in self.per_finding.items():
            _check_choice(f"per_finding[{finding!r}]", policy, UNCERTAIN_POLICIES)
        # A later change of the caller's dict must not reach us.
        object.__setattr__(self, "per_finding", dict(self.per_finding))
        object.__setattr__(self, "smooth_ones", _checked_range("smooth_ones", self.smooth_ones))
        object.__setattr__(self, "smooth_zeros", _checked_range("smooth_zeros", self.smooth_zeros))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ConfigError(f"seed must be an integer of at least 0, got {self.seed!r}")

    def hardened(self) -> "LabelPolicy":
        """Return the policy for validation and test: smooth variants become u-ones and u-zeros, nothing is random."""
        return replace(
            self,
            uncertain=_HARDENED.get(self.uncertain, self.uncertain),
            per_finding={finding: _HARDENED.get(p, p) for finding, p in self.per_finding.items()},
        )

    def apply(
        self, values: npt.NDArray[np.floating], annotated: npt.NDArray[np.bool_], labels: LabelSet
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Turn labels as annotated into training targets.

        Random targets are one uniform field over all N rows and L findings, from ``np.random.default_rng(seed)``: an
        entry depends on the seed, its row number and its column, never on other labels, and stays the same for the
        life of a table.

        "No Finding" is special in CheXpert: its labeler writes 1.0 when no pathology is positive or uncertain, and
        otherwise leaves it blank (in train.csv it is never 0 or -1). A blank beside a positive or uncertain pathology
        is therefore a true negative and stays one with ``blank="ignore"``. Support Devices is not a pathology.

        Args:
            values: (N, L), each 1, 0, -1 (uncertain) or NaN (blank).
            annotated: (N, L), False where the data set does not annotate the finding at all.
            labels: The findings of the L columns.

        Returns:
            Targets (N, L) float32 in [0, 1], and a mask (N, L) that is True where the target counts in loss and
            metrics. Masked-out targets are 0.

        Raises:
            ConfigError: If ``per_finding`` names a finding that the label set does not have.
            DataError: If the shapes do not fit, or an annotated value is none of the four.
        """
        _check_values(values, annotated, labels)
        blank = np.isnan(values) & annotated
        uncertain = (values == -1) & annotated
        mask = annotated.copy()
        target = np.where((values == 1) & annotated, np.float32(1), np.float32(0))
        if self.blank == "ignore":
            mask &= ~(blank & ~_known_not_normal(values, annotated, labels))
        self._resolve_uncertain(target, mask, uncertain, labels)
        return target, mask

    def _resolve_uncertain(
        self,
        target: npt.NDArray[np.float32],
        mask: npt.NDArray[np.bool_],
        uncertain: npt.NDArray[np.bool_],
        labels: LabelSet,
    ) -> None:
        """Fill the uncertain entries of target and mask in place."""
        policies = [self.uncertain] * len(labels)
        for finding, policy in self.per_finding.items():
            policies[labels.index(finding)] = policy
        field01 = np.random.default_rng(self.seed).random(target.shape) if _HARDENED.keys() & set(policies) else None
        for j, policy in enumerate(policies):
            rows = uncertain[:, j]
            if policy == "u-ignore":
                mask[rows, j] = False
            elif policy == "u-ones":
                target[rows, j] = 1
            elif field01 is not None and policy in _HARDENED:
                low, high = self.smooth_ones if policy == "u-ones-smooth" else self.smooth_zeros
                target[rows, j] = low + (high - low) * field01[rows, j]


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; choose from {', '.join(choices)}")


def _checked_range(name: str, value: object) -> tuple[float, float]:
    """Return (low, high) as floats; YAML gives a list."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        numbers = [v for v in value if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == 2 and 0 <= numbers[0] <= numbers[1] <= 1:
            return float(numbers[0]), float(numbers[1])
    raise ConfigError(f"{name} is {value!r}; give two numbers (low, high) with 0 <= low <= high <= 1")


def _check_values(values: npt.NDArray[np.floating], annotated: npt.NDArray[np.bool_], labels: LabelSet) -> None:
    if values.ndim != 2 or values.shape[1] != len(labels) or annotated.shape != values.shape:
        raise DataError(
            f"labels of shape {values.shape} and their annotation mask of shape {annotated.shape} "
            f"do not fit {len(labels)} findings"
        )
    legal = np.isnan(values) | (values == 1) | (values == 0) | (values == -1) | ~annotated
    if not legal.all():
        row, column = np.argwhere(~legal)[0]
        raise DataError(
            f"row {row}, {labels.findings[column]}: illegal label {values[row, column]:g}; "
            "a label is 1, 0, -1 (uncertain) or blank"
        )


def _known_not_normal(
    values: npt.NDArray[np.floating], annotated: npt.NDArray[np.bool_], labels: LabelSet
) -> npt.NDArray[np.bool_]:
    """(N, L), True in the No Finding column of rows in which a pathology is positive or uncertain, False elsewhere."""
    known = np.zeros(values.shape, dtype=bool)
    if NO_FINDING in labels.findings:
        pathology = np.array([finding not in {NO_FINDING, SUPPORT_DEVICES} for finding in labels])
        present = ((values == 1) | (values == -1)) & annotated
        known[:, labels.index(NO_FINDING)] = present[:, pathology].any(axis=1)
    return known
