import numpy as np
import pytest

from mxa.data.phantom.statistics import FINDINGS, LUNG_OPACITY, OPACITIES, draw_kinds, draw_labels, load_statistics
from mxa.labels import CHEXPERT14

PATHOLOGY = [j for j, f in enumerate(FINDINGS) if f not in {"No Finding", "Support Devices"}]


@pytest.fixture(scope="module")
def samples():
    """20,000 studies of the two groups that make up most of CheXpert, in patients of four."""
    out = {}
    for name in ("AP", "PA,L"):
        rng = np.random.default_rng(5)
        drawn = [draw_labels(rng, [name] * 4) for _ in range(5000)]
        out[name] = tuple(np.concatenate(part) for part in zip(*drawn, strict=True))
    return out


@pytest.mark.parametrize("name", ["AP", "PA,L"])
def test_states_are_as_frequent_as_in_chexpert(samples, name):
    labels = samples[name][0][:, 1:]
    group = load_statistics().groups[name]
    drawn = np.stack(
        [(labels == 1).mean(0), (labels == 0).mean(0), (labels == -1).mean(0), np.isnan(labels).mean(0)], axis=1
    )
    # Four studies share a patient: the standard error is below 0.006.
    np.testing.assert_allclose(drawn, group.states, atol=0.02)
    # Rare findings are rare, in proportion too.
    rare = group.states[:, 0] < 0.1
    np.testing.assert_allclose(drawn[rare, 0] / group.states[rare, 0], 1, atol=0.25)


@pytest.mark.parametrize("name", ["AP", "PA,L"])
def test_findings_co_occur_as_in_chexpert(samples, name):
    positive = (samples[name][0][:, 1:] == 1).astype(float)
    both = positive.T @ positive / len(positive)
    expected = load_statistics().groups[name].both_positive
    np.testing.assert_allclose(both, expected, atol=0.02)
    # Independent findings would not pass: the sample must follow the table's excess over independence.
    off = ~np.eye(len(both), dtype=bool)
    excess = (both - np.outer(positive.mean(0), positive.mean(0)))[off]
    table = (expected - np.outer(np.diag(expected), np.diag(expected)))[off]
    assert np.corrcoef(excess, table)[0, 1] > 0.95


@pytest.mark.parametrize("name", ["AP", "PA,L"])
def test_no_finding_is_as_frequent_as_in_chexpert_and_consistent(samples, name):
    labels, truth = samples[name]
    mentioned = ((labels[:, PATHOLOGY] == 1) | (labels[:, PATHOLOGY] == -1)).any(axis=1)
    group = load_statistics().groups[name]
    assert (~mentioned).mean() == pytest.approx(group.clear, abs=0.015)
    normal = labels[:, 0] == 1
    assert np.isnan(labels[~normal, 0]).all()
    assert normal.any()
    assert not (normal & mentioned).any()
    # Devices are allowed, and happen.
    assert (labels[normal, -1] == 1).any()
    assert normal.sum() / (~mentioned).sum() == pytest.approx(np.mean(group.no_finding_if_clear), abs=0.06)
    np.testing.assert_array_equal(truth[:, 0], ~truth[:, PATHOLOGY].any(axis=1))
    assert truth[normal, 0].all()


def test_truth_follows_the_label(samples):
    labels, truth = samples["AP"]
    children = truth[:, list(OPACITIES)].any(axis=1)
    assert truth[children, LUNG_OPACITY].all()
    for j in PATHOLOGY:
        assert truth[labels[:, j] == 1, j].all()
        free = ~children if j == LUNG_OPACITY else np.ones(len(truth), dtype=bool)
        assert not truth[(labels[:, j] == 0) & free, j].any()
    atelectasis = FINDINGS.index("Atelectasis")
    assert truth[labels[:, atelectasis] == -1, atelectasis].mean() == pytest.approx(0.5, abs=0.03)
    blank = np.isnan(labels[:, atelectasis])
    assert 0 < truth[blank, atelectasis].mean() < 0.03


def test_a_finding_tends_to_stay_with_its_patient():
    rng = np.random.default_rng(1)
    effusion = FINDINGS.index("Pleural Effusion")
    drawn = np.array([draw_labels(rng, ["AP", "AP"])[0][:, effusion] == 1 for _ in range(3000)])
    assert np.corrcoef(drawn.T)[0, 1] > 0.15


def test_kinds_of_study_are_as_frequent_as_in_chexpert():
    kinds = draw_kinds(np.random.default_rng(0), 20000)
    table = load_statistics().kinds
    assert set(kinds) == set(table)
    assert sum(table.values()) == pytest.approx(1, abs=0.001)
    for name, share in table.items():
        assert kinds.count(name) / len(kinds) == pytest.approx(share, abs=0.012)


def test_the_shipped_file_has_chexperts_findings():
    assert CHEXPERT14.findings == FINDINGS
    for group in load_statistics().groups.values():
        assert group.states.shape == (13, 4)
        np.testing.assert_allclose(group.states.sum(axis=1), 1, atol=1e-4)
        np.testing.assert_allclose(np.diag(group.both_positive), group.states[:, 0], atol=1e-4)
