import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mxa.errors import ConfigError, DataError
from mxa.labels import (
    ALIASES,
    BLANK_POLICIES,
    CHEXPERT14,
    NIH14,
    UNCERTAIN_POLICIES,
    LabelPolicy,
    LabelSet,
    canonical,
    label_set,
    map_columns,
)

XRV_CHEX = [
    *("Atelectasis", "Consolidation", "", "Pneumothorax", "Edema", "", "", "Effusion", "Pneumonia", "", "Cardiomegaly"),
    *("", "", "", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"),
]
THREE = LabelSet("three", ("No Finding", "Edema", "Support Devices"), ("NF", "ED", "SD"))
NAN = float("nan")


def apply(rows, labels=THREE, annotated=None, **options):
    values = np.array(rows, dtype=np.float32)
    annotated = np.ones(values.shape, dtype=bool) if annotated is None else np.array(annotated)
    return LabelPolicy(**options).apply(values, annotated, labels)


class TestLabelSet:
    def test_chexpert_order_and_codes_are_the_papers(self):
        assert dict(zip(CHEXPERT14.codes, CHEXPERT14.findings, strict=True)) == {
            "NF": "No Finding",
            "ECM": "Enlarged Cardiomediastinum",
            "CM": "Cardiomegaly",
            "LO": "Lung Opacity",
            "LL": "Lung Lesion",
            "ED": "Edema",
            "CON": "Consolidation",
            "PNA": "Pneumonia",
            "ATL": "Atelectasis",
            "PTX": "Pneumothorax",
            "PE": "Pleural Effusion",
            "PO": "Pleural Other",
            "FX": "Fracture",
            "SD": "Support Devices",
        }
        assert " ".join(CHEXPERT14.codes) == "NF ECM CM LO LL ED CON PNA ATL PTX PE PO FX SD"

    def test_one_finding_has_one_code_in_both_sets(self):
        for finding in set(CHEXPERT14) & set(NIH14):
            assert CHEXPERT14.codes[CHEXPERT14.index(finding)] == NIH14.codes[NIH14.index(finding)]
        assert len(set(CHEXPERT14) & set(NIH14)) == 7

    def test_length_iteration_and_index(self):
        assert len(NIH14) == 14
        assert [NIH14.index(f) for f in NIH14] == list(range(14))

    @pytest.mark.parametrize(
        ("wrong", "meant"), [("Oedema", "Edema"), ("Effusion", "Pleural Effusion"), ("pneumonia", "Pneumonia")]
    )
    def test_index_of_unknown_names_it_and_the_closest(self, wrong, meant):
        with pytest.raises(ConfigError, match=f"'{wrong}'; did you mean '{meant}'"):
            CHEXPERT14.index(wrong)

    def test_index_without_a_close_name_lists_all(self):
        with pytest.raises(ConfigError, match="no finding 'xyz'; It has: No Finding, Enlarged"):
            CHEXPERT14.index("xyz")

    def test_round_trip(self):
        assert LabelSet.from_dict(CHEXPERT14.to_dict()) == CHEXPERT14
        assert isinstance(CHEXPERT14.to_dict()["findings"], list)

    @pytest.mark.parametrize("change", [{"codes": None}, {"findings": "Edema"}, {"extra": 1}])
    def test_from_dict_refuses_other_shapes(self, change):
        data = {**NIH14.to_dict(), **change}
        with pytest.raises(ConfigError):
            LabelSet.from_dict(data)

    @pytest.mark.parametrize(
        ("findings", "codes", "message"),
        [
            ((), (), "no findings"),
            (("a", "a"), ("x", "y"), "finding twice: a"),
            (("a", "b"), ("x", "x"), "code twice: x"),
            (("a", "b"), ("x",), "2 findings but 1 codes"),
            (("a", " "), ("x", "y"), "empty finding"),
        ],
    )
    def test_illegal_sets(self, findings, codes, message):
        with pytest.raises(ConfigError, match=message):
            LabelSet("s", findings, codes)


class TestLabelSetByName:
    def test_names_and_itself(self):
        assert label_set("chexpert14") is CHEXPERT14
        assert label_set("nih14") is NIH14
        assert label_set(THREE) is THREE

    def test_unknown_name_lists_the_choices(self):
        with pytest.raises(ConfigError, match="'chexpert'; choose from chexpert14, nih14"):
            label_set("chexpert")

    def test_list_gets_canonical_names_and_unique_codes(self):
        made = label_set(["Effusion", "Calcified Nodule", "Cardiac Node", "Scoliosis", "Scolex"])
        assert made.name == "custom"
        assert made.findings == ("Pleural Effusion", "Calcified Nodule", "Cardiac Node", "Scoliosis", "Scolex")
        assert made.codes == ("PE", "CN", "CN2", "SCOL", "SCOL2")

    def test_generated_code_leaves_known_codes_alone(self):
        assert label_set(["Pulmonary Embolism", "Pleural Effusion"]).codes == ("PE2", "PE")

    def test_two_names_of_one_finding(self):
        with pytest.raises(ConfigError, match="Pleural Effusion"):
            label_set(["Effusion", "Pleural Effusion"])


class TestNames:
    def test_aliases_of_two_data_sets_never_disagree(self):
        merged = {}
        for table in ALIASES.values():
            for name, finding in table.items():
                assert merged.setdefault(name, finding) == finding

    def test_aliases_lead_to_canonical_names(self):
        known = {*CHEXPERT14, *NIH14}
        assert all(finding in known for table in ALIASES.values() for finding in table.values())
        assert not any(name in known for table in ALIASES.values() for name in table)

    @pytest.mark.parametrize(
        ("name", "dataset", "expected"),
        [
            ("Effusion", "nih", "Pleural Effusion"),
            ("Effusion", "", "Pleural Effusion"),
            ("Effusion", "chexpert", "Effusion"),
            ("Infiltrate", "nih", "Infiltration"),
            ("Pleural_Thickening", "torchxrayvision", "Pleural Thickening"),
            ("Airspace Opacity", "chexpert", "Lung Opacity"),
            ("effusion", "", "effusion"),
            ("Whatever", "", "Whatever"),
        ],
    )
    def test_canonical(self, name, dataset, expected):
        assert canonical(name, dataset) == expected

    def test_unknown_data_set(self):
        with pytest.raises(ConfigError, match=r"'mimic'.*chexpert, nih, torchxrayvision"):
            canonical("Edema", "mimic")

    def test_map_torchxrayvision_outputs(self):
        index = map_columns(XRV_CHEX, CHEXPERT14, "torchxrayvision")
        assert index.dtype == np.int64
        got = {finding: XRV_CHEX[i] if i >= 0 else None for finding, i in zip(CHEXPERT14, index, strict=True)}
        none = {"No Finding", "Pleural Other", "Support Devices"}
        assert {f for f, name in got.items() if name is None} == none
        assert got.pop("Pleural Effusion") == "Effusion"
        assert all(name == finding for finding, name in got.items() if finding not in none)

    def test_empty_names_match_nothing_and_may_repeat(self):
        assert map_columns(["", "Edema", ""], THREE).tolist() == [-1, 1, -1]

    def test_two_columns_for_one_finding(self):
        with pytest.raises(DataError, match="'Effusion' and 'Pleural Effusion' both mean"):
            map_columns(["Effusion", "Edema", "Pleural Effusion"], NIH14, "nih")


class TestPolicy:
    def test_default_is_the_papers_u1(self):
        target, mask = apply([[1, 0, -1], [NAN, NAN, NAN]])
        assert target.dtype == np.float32
        assert mask.dtype == bool
        assert target.tolist() == [[1, 0, 1], [0, 0, 0]]
        assert mask.all()

    @pytest.mark.parametrize(
        ("policy", "target", "counts"), [("u-ones", 1, True), ("u-zeros", 0, True), ("u-ignore", 0, False)]
    )
    def test_uncertain(self, policy, target, counts):
        got, mask = apply([[0, -1, 0]], uncertain=policy)
        assert (got[0, 1], mask[0, 1]) == (target, counts)
        assert mask[0, [0, 2]].all()

    def test_per_finding(self):
        got, mask = apply([[-1, -1, -1]], per_finding={"Edema": "u-zeros", "Support Devices": "u-ignore"})
        assert got.tolist() == [[1, 0, 0]]
        assert mask.tolist() == [[True, True, False]]

    def test_per_finding_must_exist_when_applied(self):
        policy = LabelPolicy(per_finding={"Hernia": "u-ones"})
        with pytest.raises(ConfigError, match="no finding 'Hernia'"):
            policy.apply(np.zeros((1, 3), np.float32), np.ones((1, 3), bool), THREE)

    def test_not_annotated_counts_nowhere_whatever_the_value(self):
        got, mask = apply([[1, -1, 7]], annotated=[[False, False, False]])
        assert not mask.any()
        assert not got.any()

    def test_blank_ignored(self):
        got, mask = apply([[1, NAN, 0]], blank="ignore")
        assert got.tolist() == [[1, 0, 0]]
        assert mask.tolist() == [[True, False, True]]

    @pytest.mark.parametrize(
        ("edema", "device", "known"),
        [(1, NAN, True), (-1, NAN, True), (0, NAN, False), (NAN, NAN, False), (NAN, 1, False), (0, -1, False)],
    )
    def test_blank_no_finding_beside_a_pathology_is_a_true_negative(self, edema, device, known):
        got, mask = apply([[NAN, edema, device]], blank="ignore")
        assert got[0, 0] == 0
        assert mask[0, 0] == known

    def test_pathology_that_is_not_annotated_says_nothing_about_no_finding(self):
        _, mask = apply([[NAN, 1, NAN]], annotated=[[True, False, True]], blank="ignore")
        assert not mask[0, 0]

    @pytest.mark.parametrize(("policy", "low", "high"), [("u-ones-smooth", 0.55, 0.85), ("u-zeros-smooth", 0.0, 0.3)])
    def test_smooth_targets_fill_their_range(self, policy, low, high):
        got, mask = apply(np.full((500, 3), -1), uncertain=policy)
        assert mask.all()
        assert low <= got.min() < low + 0.02
        assert high - 0.02 < got.max() <= high
        assert abs(got.mean() - (low + high) / 2) < 0.02
        assert len(np.unique(got)) > 1400

    def test_smooth_targets_are_fixed_by_seed_and_row(self):
        rows = np.full((50, 3), -1)
        first, _ = apply(rows, uncertain="u-ones-smooth", seed=3)
        fewer, _ = apply(rows[:10], uncertain="u-ones-smooth", seed=3)
        other, _ = apply(rows, uncertain="u-ones-smooth", seed=4)
        changed = rows.copy()
        changed[:20] = 0
        rest, _ = apply(changed, uncertain="u-ones-smooth", seed=3)
        assert (first[:10] == fewer).all()
        assert (first[20:] == rest[20:]).all()
        assert (first != other).mean() > 0.9

    def test_hardened_has_nothing_random(self):
        policy = LabelPolicy("u-zeros-smooth", per_finding={"Edema": "u-ones-smooth", "Fracture": "u-ignore"})
        assert policy.hardened() == LabelPolicy("u-zeros", per_finding={"Edema": "u-ones", "Fracture": "u-ignore"})

    @pytest.mark.parametrize(("value", "text"), [(2, "2"), (0.5, "0.5"), (np.inf, "inf")])
    def test_illegal_value_names_row_finding_and_value(self, value, text):
        with pytest.raises(DataError, match=f"row 1, Edema: illegal label {text};"):
            apply([[1, 0, 0], [1, value, 0]])

    def test_shapes_must_fit(self):
        with pytest.raises(DataError, match="do not fit 14 findings"):
            apply([[1, 0, 0]], labels=CHEXPERT14)
        with pytest.raises(DataError, match="do not fit"):
            apply([[1, 0, 0]], annotated=[[True]])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"uncertain": "u_ones"}, "uncertain is 'u_ones'; choose from u-ones, u-zeros"),
            ({"blank": "drop"}, "blank is 'drop'; choose from negative, ignore"),
            ({"per_finding": {"Edema": "zero"}}, r"per_finding\['Edema'\] is 'zero'; choose from"),
            ({"per_finding": ["Edema"]}, "per_finding must map"),
            ({"smooth_ones": (0.9, 0.5)}, r"smooth_ones is \(0.9, 0.5\)"),
            ({"smooth_zeros": (0.0, 1.5)}, "smooth_zeros"),
            ({"smooth_zeros": ("0", "1")}, "smooth_zeros"),
            ({"smooth_ones": 0.5}, "smooth_ones is 0.5"),
            ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
            ({"seed": 1.5}, "seed"),
        ],
    )
    def test_illegal_options(self, options, message):
        with pytest.raises(ConfigError, match=message):
            LabelPolicy(**options)

    def test_keeps_no_reference_to_the_callers_dict_and_travels_to_workers(self):
        given_dict = {"Edema": "u-zeros"}
        policy = LabelPolicy(per_finding=given_dict, smooth_ones=[0.6, 0.7])
        given_dict["Edema"] = "nonsense"
        assert policy.per_finding == {"Edema": "u-zeros"}
        assert policy.smooth_ones == (0.6, 0.7)
        assert pickle.loads(pickle.dumps(policy)) == policy == copy.deepcopy(policy)
        assert hash(policy) == hash(copy.deepcopy(policy))


legal_values = hnp.arrays(
    np.float32, st.tuples(st.integers(0, 6), st.just(14)), elements=st.sampled_from([1.0, 0.0, -1.0, NAN])
)
policies = st.builds(
    LabelPolicy,
    uncertain=st.sampled_from(UNCERTAIN_POLICIES),
    blank=st.sampled_from(BLANK_POLICIES),
    per_finding=st.dictionaries(st.sampled_from(CHEXPERT14.findings), st.sampled_from(UNCERTAIN_POLICIES), max_size=3),
    seed=st.integers(0, 5),
)


# No example database: it would be written into the working folder.
@settings(database=None, deadline=None)
@given(legal_values, policies, st.data())
def test_every_policy_keeps_certain_labels_and_stays_in_range(values, policy, data):
    annotated = data.draw(hnp.arrays(bool, values.shape))
    before = values.copy()
    target, mask = policy.apply(values, annotated, CHEXPERT14)
    np.testing.assert_array_equal(values, before)
    assert ((target >= 0) & (target <= 1)).all()
    assert not (mask & ~annotated).any()
    assert (target[~mask] == 0).all()
    certain = annotated & ((values == 1) | (values == 0))
    assert mask[certain].all()
    assert (target[certain] == values[certain]).all()
    blank = annotated & np.isnan(values)
    assert (target[blank] == 0).all()
    if policy.blank == "negative":
        assert mask[blank].all()
    else:
        assert not mask[blank & (np.arange(14) != 0)].any()


# No example database: it would be written into the working folder.
@settings(database=None, deadline=None)
@given(legal_values, policies)
def test_hardened_policy_gives_zeros_and_ones_and_the_same_mask(values, policy):
    annotated = np.ones(values.shape, dtype=bool)
    _, mask = policy.apply(values, annotated, CHEXPERT14)
    target, hard_mask = policy.hardened().apply(values, annotated, CHEXPERT14)
    assert set(np.unique(target)) <= {0.0, 1.0}
    assert (mask == hard_mask).all()
