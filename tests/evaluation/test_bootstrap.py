"""The patient-clustered bootstrap against copied rows, SciPy and simulation."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from mxa.errors import DataError
from mxa.evaluation.bootstrap import Bootstrap, Draws


def bootstrap_auroc(
    score: np.ndarray, target: np.ndarray, mask: np.ndarray, patient: list[str], replicates: int = 2000, seed: int = 0
) -> Bootstrap:
    return Draws(patient, replicates=replicates, seed=seed).auroc(score, target, mask)


def sample(
    images: int = 120, findings: int = 3, patients: int = 40, seed: int = 0, decimals: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Scores with ties, targets, masks, patients of several images each."""
    rng = np.random.default_rng(seed)
    target = (rng.random((images, findings)) < 0.3).astype(float)
    score = np.round(rng.normal(size=(images, findings)) + target, decimals)
    mask = rng.random((images, findings)) < 0.8
    return score, target, mask, [f"p{k}" for k in rng.integers(0, patients, images)]


def auc(score: np.ndarray, target: np.ndarray) -> float:
    return roc_auc_score(target, score) if 0 < target.sum() < len(target) else float("nan")


def test_replicates_are_resampled_patients() -> None:
    """Each replicate against scikit-learn on rows that are really copied."""
    score, target, mask, patient = sample()
    found = bootstrap_auroc(score, target, mask, patient, replicates=70, seed=3)
    names = np.unique(patient)
    rng = np.random.default_rng(3)
    counts = np.concatenate([rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=k) for k in (64, 6)])
    rows_of = {name: np.flatnonzero(np.array(patient) == name) for name in names}
    for r in (0, 1, 63, 64, 69):
        rows = np.concatenate([np.repeat(rows_of[name], k) for name, k in zip(names, counts[r], strict=True)])
        for j in range(3):
            kept = rows[mask[rows, j]]
            assert found.replicates[r, j] == pytest.approx(auc(score[kept, j], target[kept, j]), abs=1e-12)
    for j in range(3):
        expected = auc(score[mask[:, j], j], target[mask[:, j], j])
        assert found.estimate[j] == pytest.approx(expected, abs=1e-12)


def test_the_jackknife_leaves_each_patient_out() -> None:
    score, target, mask, patient = sample(patients=25)
    found = bootstrap_auroc(score, target, mask, patient, replicates=1)
    for k, name in enumerate(np.unique(patient)):
        rest = np.array(patient) != name
        for j in range(3):
            kept = rest & mask[:, j]
            assert found.jackknife[k, j] == pytest.approx(auc(score[kept, j], target[kept, j]), abs=1e-12)


def test_bca_and_percentile_against_scipy() -> None:
    """One image per patient and one finding: SciPy's bootstrap of the same statistic."""
    score, target, _, _ = sample(images=60, findings=1, decimals=6)
    everything = np.ones((60, 1), dtype=bool)
    ours = bootstrap_auroc(score, target, everything, [str(i) for i in range(60)], replicates=2000, seed=1)
    for method in ("bca", "percentile"):
        theirs = stats.bootstrap(
            (score[:, 0], target[:, 0]),
            auc,
            paired=True,
            vectorized=False,
            n_resamples=2000,
            method="BCa" if method == "bca" else method,
            rng=np.random.default_rng(2),
        ).confidence_interval
        found = ours.interval(method=method)
        assert found is not None
        assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02), method


def test_what_is_undefined_stays_so() -> None:
    score, target, mask, patient = sample()
    target[:, 1] = 0
    mask[:, 2] = False
    found = bootstrap_auroc(score, target, mask, patient, replicates=50)
    assert np.isnan(found.estimate[1:]).all()
    assert found.interval(1) is None
    assert found.p_value(2) is None
    macro = found.macro()
    assert macro.estimate[0] == found.estimate[0]
    np.testing.assert_array_equal(macro.replicates[:, 0], found.replicates[:, 0])
    target[:, 0] = 0
    first = np.flatnonzero(mask[:, 0])[0]
    target[first, 0] = 1
    rare = bootstrap_auroc(score, target, mask, patient, replicates=2000).interval(0)
    assert rare is not None
    assert rare.undefined == pytest.approx(np.exp(-1), abs=0.05), "the only positive's patient is not drawn"


def test_the_same_seed_pairs_two_models() -> None:
    score, target, mask, patient = sample()
    one = bootstrap_auroc(score, target, mask, patient, replicates=200, seed=5)
    again = bootstrap_auroc(np.exp(score), target, mask, patient, replicates=200, seed=5)
    difference = one.minus(again)
    assert (difference.replicates == 0).all(), "a monotone transform changes nothing"
    assert difference.p_value(0) == 1.0
    other = bootstrap_auroc(score, target, mask, patient, replicates=200, seed=6)
    assert not np.array_equal(one.replicates, other.replicates)
    with pytest.raises(ValueError, match="same draws"):
        one.minus(bootstrap_auroc(score[:50], target[:50], mask[:50], patient[:50], replicates=200))


def test_a_flipped_label_mirrors_the_interval() -> None:
    score, target, mask, patient = sample()
    up = bootstrap_auroc(score, target, mask, patient, replicates=300).interval(0, method="percentile")
    down = bootstrap_auroc(-score, target, mask, patient, replicates=300).interval(0, method="percentile")
    assert up is not None
    assert down is not None
    assert (down.low, down.high) == pytest.approx((1 - up.high, 1 - up.low))


def clustered(rng: np.random.Generator, patients: int, shift: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Two models' scores; three images per patient that share the label and most of the noise."""
    label = rng.random(patients) < 0.4
    own = rng.normal(size=(patients, 2)) * 0.8
    score = np.repeat(own + shift * label[:, None], 3, axis=0) + rng.normal(size=(3 * patients, 2)) * 0.6
    return score, np.repeat(label, 3).astype(float)[:, None], [str(k) for k in np.repeat(np.arange(patients), 3)]


def test_coverage_and_type_one_error_by_simulation() -> None:
    """95% intervals of clustered data cover the truth in 93 to 97%; equal models differ in 3 to 7%."""
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(1.0 / np.sqrt(2))  # shift 1, total variance 0.8^2 + 0.6^2 = 1 in both classes
    covered, rejected, runs = 0, 0, 600
    for _ in range(runs):
        score, target, patient = clustered(rng, 100, 1.0)
        everything = np.ones_like(target, dtype=bool)
        one, two = (bootstrap_auroc(score[:, [k]], target, everything, patient, replicates=400, seed=7) for k in (0, 1))
        interval = one.interval()
        assert interval is not None
        covered += interval.low <= truth <= interval.high
        p = one.minus(two).p_value()
        assert p is not None
        rejected += p < 0.05
    assert 0.93 <= covered / runs <= 0.97
    assert 0.03 <= rejected / runs <= 0.07


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Draws(["a", "b"]).auroc([[1.0]], [[1.0]], [[True]]), ValueError, "do not fit 2 images"),
        (lambda: Draws(["a"]).auroc([[np.nan]], [[1.0]], [[True]]), DataError, "not finite"),
        (lambda: Draws(["a"]).auroc([[0.1]], [[0.4]], [[True]]), DataError, "neither 0 nor 1"),
        (lambda: Draws(["a"]).auroc([[0.1]], [[1.0]], [[1]]), ValueError, "mask must be bool"),
        (lambda: Draws(["a"], replicates=0), ValueError, "replicates"),
        (lambda: Draws([]), ValueError, "no image"),
    ],
)
def test_wrong_input_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_an_impossible_interval_is_refused() -> None:
    one = Bootstrap(np.array([0.5]), np.array([[0.4], [0.6]]), np.array([[0.5], [0.5]]))
    with pytest.raises(ValueError, match="level"):
        one.interval(level=2)
    with pytest.raises(ValueError, match="method"):
        one.interval(method="magic")
