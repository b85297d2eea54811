"""The patient-clustered bootstrap against copied rows, SciPy and simulation."""

import numpy as np
import pytest
from scipy import stats
from simulated import copied_rows
from sklearn.metrics import average_precision_score, roc_auc_score

from mxa.errors import DataError
from mxa.evaluation import bootstrap
from mxa.evaluation.bootstrap import ONE_PATIENT, UNDEFINED, Bootstrap, Draws, mean_over_runs
from mxa.evaluation.intervals import exact_rate


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
        (lambda: Draws(["a"]).rate([[0.1]], [[1]]), ValueError, "mask must be bool"),
        (lambda: Draws(["a", "b"]).rate([[0.1]], [[True]]), ValueError, "do not fit 2 images"),
        (lambda: Draws(["a", "b"]).rate([[0.1], [np.nan]], [[True], [True]]), DataError, "counted values that are not"),
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


WANTED = (0, 1, 40, 63, 64, 99)


def each(figure, score: np.ndarray, target: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> list[float]:
    """A figure per finding over some rows (repeated as they are), NaN where a class is missing."""
    found = []
    for j in range(score.shape[1]):
        kept = rows[mask[rows, j]]
        both = 0 < target[kept, j].sum() < len(kept)
        found.append(figure(target[kept, j], score[kept, j]) if both else float("nan"))
    return found


def masked(target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """What does not count is NaN."""
    return np.where(mask, target, np.nan)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_average_precision_is_that_of_copied_rows(decimals: int) -> None:
    score, target, mask, patient = sample(images=60, patients=20, decimals=decimals)
    found = Draws(patient, replicates=100, seed=4).average_precision(score, masked(target, mask), mask)
    for r, rows in zip(WANTED, copied_rows(patient, 4, 100, WANTED), strict=True):
        expected = each(average_precision_score, score, target, mask, rows)
        np.testing.assert_allclose(found.replicates[r], expected, atol=1e-12)
    expected = each(average_precision_score, score, target, mask, np.arange(60))
    np.testing.assert_allclose(found.estimate, expected, atol=1e-12)
    assert found.jackknife is None
    assert found.macro().estimate[0] == pytest.approx(np.mean(expected))


def test_micro_auroc_is_that_of_pooled_copied_rows() -> None:
    score, target, mask, patient = sample(patients=30)

    def pooled(rows: np.ndarray) -> float:
        kept = mask[rows]
        return auc(score[rows][kept], target[rows][kept])

    found = Draws(patient, replicates=100, seed=4).auroc_micro(score, masked(target, mask), mask)
    assert found.replicates.shape == (100, 1)
    assert found.estimate == pytest.approx([pooled(np.arange(120))], abs=1e-12)
    for r, rows in zip(WANTED, copied_rows(patient, 4, 100, WANTED), strict=True):
        assert found.replicates[r, 0] == pytest.approx(pooled(rows), abs=1e-12)
    assert found.jackknife is not None
    for k, name in enumerate(np.unique(patient)):
        assert found.jackknife[k, 0] == pytest.approx(pooled(np.flatnonzero(np.array(patient) != name)), abs=1e-12)


@pytest.mark.parametrize("kind", ["hits", "numbers"])
def test_a_rate_is_a_mean_over_copied_rows(kind: str) -> None:
    score, target, counted, patient = sample(patients=30)
    counted &= target == 1
    counted[:, 2] = False
    counted[np.flatnonzero(np.array(patient) == patient[0])[0], 2] = (
        True  # one case only: undefined without its patient
    )
    hit = score > 0.3 if kind == "hits" else np.where(counted, score, np.nan)

    def mean(rows: np.ndarray) -> list[float]:
        kept = [rows[counted[rows, j]] for j in range(3)]
        return [hit[k, j].mean() if len(k) else np.nan for j, k in enumerate(kept)]

    found = Draws(patient, replicates=100, seed=4).rate(hit, counted)
    np.testing.assert_allclose(found.estimate, mean(np.arange(120)), atol=1e-12)
    for r, rows in zip(WANTED, copied_rows(patient, 4, 100, WANTED), strict=True):
        np.testing.assert_allclose(found.replicates[r], mean(rows), atol=1e-12)
    assert np.isnan(found.replicates[:, 2]).any()
    for k, name in enumerate(np.unique(patient)):
        np.testing.assert_allclose(
            found.jackknife[k], mean(np.flatnonzero(np.array(patient) != name)), atol=1e-12, err_msg=name
        )


FIGURES = {
    "auroc": lambda draws, score, target, mask: draws.auroc(score, target, mask),
    "auroc_micro": lambda draws, score, target, mask: draws.auroc_micro(score, target, mask),
    "average_precision": lambda draws, score, target, mask: draws.average_precision(score, target, mask),
    "rate": lambda draws, score, target, mask: draws.rate(score > 0, mask),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_the_order_of_the_rows_does_not_matter(figure: str) -> None:
    score, target, mask, patient = sample(seed=1)
    order = np.random.default_rng(2).permutation(120)
    one = FIGURES[figure](Draws(patient, replicates=80), score, target, mask)
    two = FIGURES[figure](Draws([patient[i] for i in order], replicates=80), score[order], target[order], mask[order])
    for name in ("estimate", "replicates", "jackknife"):
        if getattr(one, name) is not None:
            np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=0, atol=1e-14)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize(("chunk", "weights"), [(1, 10**9), (7, 10**9), (200, 10**9), (64, 0), (64, 700)])
def test_what_is_weighted_at_once_changes_no_bit(
    figure: str, chunk: int, weights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, target, mask, patient = sample(images=300, patients=90, seed=1)
    one = FIGURES[figure](Draws(patient, replicates=130), score, target, mask)
    monkeypatch.setattr(bootstrap, "CHUNK", chunk)
    monkeypatch.setattr(bootstrap, "WEIGHTS", weights)
    draws = Draws(patient, replicates=130)
    largest = max(len(counts) for _, counts in draws.chunks())
    assert largest == max(1, min(chunk, 130, weights // 300))
    np.testing.assert_array_equal(FIGURES[figure](draws, score, target, mask).replicates, one.replicates)


@pytest.mark.parametrize("figure", FIGURES)
def test_masked_elements_never_matter(figure: str) -> None:
    score, target, mask, patient = sample(seed=1)
    rng = np.random.default_rng(0)
    one = FIGURES[figure](Draws(patient, replicates=80), score, target, mask)
    garbage = np.where(mask, score, 1e9 * rng.normal(size=score.shape))
    two = FIGURES[figure](Draws(patient, replicates=80), garbage, masked(target, mask), mask)
    np.testing.assert_array_equal(two.replicates, one.replicates)
    np.testing.assert_array_equal(two.estimate, one.estimate)


def test_each_drawing_has_as_many_patients_as_there_are() -> None:
    draws = Draws([f"{k}" for k in range(5)], replicates=500)
    for part, counts in draws.chunks():
        assert counts.sum(axis=1).tolist() == [5] * (part.stop - part.start)


def bca_by_hand(estimate: float, drawn: np.ndarray, left_out: np.ndarray | None, level: float) -> tuple[float, float]:
    """Efron and Tibshirani, An Introduction to the Bootstrap, 1993, equations 14.10 to 14.15, ties counting half."""
    bias = stats.norm.ppf(np.mean([(x < estimate) + 0.5 * (x == estimate) for x in drawn]))
    a = 0.0
    if left_out is not None:
        away = [left_out.mean() - x for x in left_out]
        a = sum(d**3 for d in away) / (6 * sum(d**2 for d in away) ** 1.5)
    ends = []
    for alpha in ((1 - level) / 2, (1 + level) / 2):
        z = bias + stats.norm.ppf(alpha)
        ends.append(np.quantile(drawn, stats.norm.cdf(bias + z / (1 - a * z))))
    return ends[0], ends[1]


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_bca_by_hand(level: float) -> None:
    rng = np.random.default_rng(0)
    drawn, left_out = rng.gamma(2, size=(501, 2)), rng.gamma(1, size=(40, 2))
    left_out[:3, 1] = np.nan
    drawn[:5, 1] = np.nan
    estimate = np.array([drawn[7, 0], 1.9])
    one = Bootstrap(estimate, drawn, left_out)
    for j, gone in ((0, 0), (1, 5)):
        found = one.interval(j, level)
        assert found is not None
        expected = bca_by_hand(estimate[j], drawn[gone * j :, j], left_out[3 * j :, j], level)
        assert (found.low, found.high) == pytest.approx(expected)
        assert (found.estimate, found.level, found.undefined) == (estimate[j], level, pytest.approx(gone / 501))
        assert one.interval(j, level, "percentile") != found


@pytest.mark.parametrize("jackknife", [None, np.full((9, 1), 0.3), np.full((9, 1), np.nan)])
def test_without_a_spread_among_the_left_out_only_the_bias_is_corrected(jackknife: np.ndarray | None) -> None:
    drawn = np.random.default_rng(0).gamma(2, size=(400, 1))
    found = Bootstrap(np.array([2.2]), drawn, jackknife).interval()
    assert found is not None
    assert (found.low, found.high) == pytest.approx(bca_by_hand(2.2, drawn[:, 0], None, 0.95))


@pytest.mark.parametrize("estimate", [-1.0, 30.0])
def test_an_estimate_beyond_all_replicates_is_not_corrected(estimate: float) -> None:
    one = Bootstrap(np.array([estimate]), np.arange(21.0)[:, None], np.array([[0.1], [0.2], [0.9]]))
    assert one.interval() == one.interval(method="percentile")


def test_p_values_by_hand() -> None:
    drawn = np.array([[-1.0, 1, 1, np.nan], [2, 2, 2, np.nan], [3, 3, -3, np.nan], [np.nan, 0, -4, np.nan]])
    one = Bootstrap(np.array([1.0, 2, 0.5, 0.1]), drawn)
    assert [one.p_value(j) for j in range(4)] == [1.0, pytest.approx(4 / 5), 1.0, None]
    many = Bootstrap(np.array([1.0]), np.linspace(0.1, 1, 999)[:, None])
    assert many.p_value() == pytest.approx(2 / 1000)
    assert Bootstrap(np.array([-1.0]), -many.replicates).p_value() == many.p_value()
    assert Bootstrap(np.array([np.nan]), many.replicates).p_value() is None
    assert one.interval(3) is None, "defined on the data, but in no replicate"


def test_macro_is_the_mean_of_what_is_defined() -> None:
    nan = np.nan
    one = Bootstrap(
        np.array([0.2, nan, 0.6]),
        np.array([[0.1, 9.0, 0.5], [nan, 9.0, 0.7], [nan, 9.0, nan]]),
        np.array([[0.3, nan, 0.5], [0.4, 1.0, nan]]),
    )
    macro = one.macro()
    np.testing.assert_allclose(macro.estimate, [0.4])
    np.testing.assert_allclose(macro.replicates[:, 0], [0.3, 0.7, nan])
    np.testing.assert_allclose(macro.jackknife[:, 0], [0.4, 0.4])
    nothing = Bootstrap(np.array([nan]), np.array([[0.5]]), np.array([[0.5]])).macro()
    assert nothing.interval() is None
    assert np.isnan(nothing.replicates).all()


def test_a_difference_is_undefined_where_either_is() -> None:
    nan = np.nan
    one = Bootstrap(np.array([0.2, nan]), np.array([[0.1, 0.5], [0.3, nan]]), np.array([[nan, 1.0]]))
    two = Bootstrap(np.array([0.1, 0.3]), np.array([[nan, 0.1], [0.1, 0.3]]), np.array([[0.5, 0.25]]))
    found = one.minus(two)
    np.testing.assert_allclose(found.estimate, [0.1, nan])
    np.testing.assert_allclose(found.replicates, [[nan, 0.4], [0.2, nan]])
    np.testing.assert_allclose(found.jackknife, [[nan, 0.75]])
    with pytest.raises(ValueError, match=r"same draws"):
        one.minus(Bootstrap(two.estimate, two.replicates))
    with pytest.raises(ValueError, match=r"same draws"):
        one.minus(Bootstrap(two.estimate, two.replicates, np.zeros((2, 2))))


def test_coverage_of_a_rate_by_simulation() -> None:
    """600 data sets of 100 patients with three images that are alike, side by side as columns."""
    rng = np.random.default_rng(0)
    own = np.repeat(rng.beta(3, 1.5, size=(100, 600)), 3, axis=0)
    hit, counted = rng.random(own.shape) < own, rng.random(own.shape) < 0.8
    found = Draws([str(k) for k in np.repeat(np.arange(100), 3)], replicates=1000, seed=1).rate(hit, counted)
    intervals = [found.interval(j) for j in range(600)]
    covered = np.mean([one is not None and one.low <= 3 / 4.5 <= one.high for one in intervals])
    assert 0.93 <= covered <= 0.97
    width = np.mean([one.high - one.low for one in intervals if one is not None])
    images = Draws([str(k) for k in range(300)], replicates=1000, seed=1).rate(hit, counted)
    alone = [images.interval(j) for j in range(600)]
    assert np.mean([one is not None and one.low <= 3 / 4.5 <= one.high for one in alone]) < 0.93, "images are not alone"
    assert width > 1.1 * np.mean([one.high - one.low for one in alone if one is not None])


def test_the_mean_over_runs_is_taken_replicate_by_replicate() -> None:
    rng = np.random.default_rng(0)
    ones = [Bootstrap(*(rng.random(shape) for shape in ((3,), (5, 3), (4, 3)))) for _ in range(2)]
    both = mean_over_runs(ones)
    np.testing.assert_allclose(both.estimate, (ones[0].estimate + ones[1].estimate) / 2)
    np.testing.assert_allclose(both.replicates, (ones[0].replicates + ones[1].replicates) / 2)
    np.testing.assert_allclose(both.jackknife, (ones[0].jackknife + ones[1].jackknife) / 2)
    assert mean_over_runs([ones[1], Bootstrap(ones[0].estimate, ones[0].replicates)]).jackknife is None


def rankings(draws: Draws, score: np.ndarray, target: np.ndarray) -> list[Bootstrap]:
    everything = np.ones(target.shape, dtype=bool)
    return [figure(score, target, everything) for figure in (draws.auroc, draws.average_precision, draws.auroc_micro)]


def test_cases_of_one_patient_leave_nothing_to_resample() -> None:
    """Every replicate is the same, which says nothing of how sure the figure is."""
    rng = np.random.default_rng(0)
    score, target = rng.normal(size=(12, 1)), (np.arange(12) % 2)[:, None].astype(float)
    draws = Draws(["one"] * 12 + ["other"], replicates=50)
    score, target = np.vstack([score, [[9.0]]]), np.vstack([target, [[0.0]]])
    own = np.arange(13)[:, None] < 12
    for found in (
        draws.auroc(score, target, own),
        draws.average_precision(score, target, own),
        draws.auroc_micro(score, target, own),
        draws.rate(score > 0, own),
    ):
        assert 0 < found.estimate[0] < 1
        assert found.interval() is found.p_value() is None
        assert found.why_none() == ONE_PATIENT
        for derived in (found.macro(), found.take([0]), found.minus(found), mean_over_runs([found, found])):
            assert (derived.interval(), derived.why_none()) == (None, ONE_PATIENT)


def test_a_ranking_that_cannot_vary_as_a_side_is_of_one_patient() -> None:
    target = np.array([1, 1, 0, 0, 0, 0])[:, None].astype(float)
    mixed, perfect = (
        np.array([column]).T for column in ([0.2, 0.9, 0.1, 0.5, 0.3, 0.6], [0.8, 0.9, 0.1, 0.5, 0.3, 0.6])
    )
    each_one, one_side, many = (Draws(list(patients), replicates=60) for patients in ("aabbbb", "aabcde", "abcdef"))
    for found in rankings(each_one, mixed, target):
        assert (found.interval(), found.why_none()) == (None, ONE_PATIENT), "positives of one, negatives of another"
    for found in rankings(one_side, mixed, target):
        one = found.interval()
        assert one is not None and one.low < one.high, "the negatives vary"
    for found in rankings(one_side, perfect, target):
        assert (found.interval(), found.why_none()) == (None, ONE_PATIENT)
    for found in rankings(many, perfect, target):
        one = found.interval()
        assert one is not None and (one.low, one.high) == (1, 1), "of many patients; the documentation says so"
        assert found.why_none() is None


def test_what_is_fixed_is_taken_as_it_is_unless_all_is() -> None:
    rng = np.random.default_rng(0)
    patient = ["a"] * 6 + [f"p{k}" for k in range(14)]
    hit = rng.random((20, 2)) < 0.5
    counted = np.stack([np.arange(20) < 6, np.arange(20) >= 6], axis=1)
    found = Draws(patient, replicates=60).rate(hit, counted)
    assert [found.why_none(j) for j in range(2)] == [ONE_PATIENT, None]
    mean = found.macro().interval()
    assert mean is not None and mean.low < mean.high
    assert found.take([0]).minus(found.take([1])).why_none() == ONE_PATIENT, "a gap needs both sides"
    assert mean_over_runs([found.take([0]), found.take([1])]).why_none() is None


def test_why_there_is_none() -> None:
    nan = np.nan
    one = Bootstrap(np.array([0.5, nan]), np.full((4, 2), nan))
    assert [one.why_none(j) for j in range(2)] == [UNDEFINED, None]


def test_a_share_of_all_or_none_has_its_exact_interval() -> None:
    hit = np.array([[True, False, True], [True, False, False], [True, False, True], [True, True, True]])
    counted = np.array([[True] * 3, [True] * 3, [True] * 3, [False] * 3])
    draws = Draws(["a", "a", "b", "c"], replicates=50)
    share = draws.rate(hit, counted)
    assert draws.share_interval(share, counted, 0, 0.9) == exact_rate(2, 2, 0.9)
    assert draws.share_interval(share, counted, 1, 0.9) == exact_rate(0, 2, 0.9)
    assert draws.share_interval(share, counted, 2, 0.9) == share.interval(2, 0.9)
    nobody = np.zeros((4, 1), dtype=bool)
    assert draws.share_interval(draws.rate(nobody, nobody), nobody) is None
