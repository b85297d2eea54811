import itertools
import json

import numpy as np
import pytest
from marked_cases import blobs, box_scores, map_scores, random_boxes, rectangle

from mxa.evaluation.localisation import learn
from mxa.evaluation.localisation.baselines import (
    SIDES,
    baseline_boxes,
    baseline_points,
    matched_and_shuffled,
    pairs_of_boxes,
    pairs_of_maps,
)
from mxa.evaluation.localisation.geometry import BLOCK
from mxa.evaluation.localisation.measures import Regions


def centred(k, m):
    """Width k and height m twentieths."""
    return [0.5 - k / 40, 0.5 - m / 40, 0.5 + k / 40, 0.5 + m / 40]


class TestLearn:
    def test_the_best_centred_box_is_found_exactly(self):
        one = learn(["A"], [rectangle(20, 4, 7, 16, 13)]).overall
        assert one.centred == pytest.approx(centred(12, 6))

    def test_as_by_trying_every_size(self):
        rng = np.random.default_rng(0)
        masks, names = blobs(rng, 7, 9), ["A", "B", "A", "A", "B", "C", "A"]
        found = learn(names, list(masks))
        sizes = list(itertools.product(range(1, SIDES + 1), repeat=2))
        table = [[box_scores(mask, centred(k, m))["iou"] for m, k in sizes] for mask in masks]
        for finding, prior in (("overall", found.overall), *found.findings.items()):
            rows = [i for i, name in enumerate(names) if finding in ("overall", name)]
            mean = [sum(table[i][s] for i in rows) / len(rows) for s in range(len(sizes))]
            m, k = sizes[mean.index(max(mean))]
            assert prior.centred == pytest.approx(centred(k, m)), finding
            assert prior.marks == len(rows)
        assert len({prior.centred for prior in found.findings.values()}) > 1

    def test_of_equal_sizes_the_lowest_and_narrowest_counts(self):
        plus = rectangle(20, 0, 9, 20, 11) | rectangle(20, 9, 0, 11, 20)
        lying, upright = (box_scores(plus, centred(*size))["iou"] for size in ((20, 2), (2, 20)))
        assert lying == pytest.approx(upright)
        assert learn(["A"], [plus]).overall.centred == pytest.approx(centred(20, 2))

    def test_the_mean_box_is_that_of_the_tight_boxes(self):
        masks = [rectangle(10, 0, 0, 4, 6), rectangle(10, 2, 4, 10, 8), rectangle(10, 4, 4, 6, 6)]
        found = learn(["A", "A", "B"], masks)
        assert found.findings["A"].mean == pytest.approx((0.1, 0.2, 0.7, 0.7))
        assert found.findings["B"].mean == pytest.approx((0.4, 0.4, 0.6, 0.6))
        assert found.overall.mean == pytest.approx((0.2, 0.8 / 3, 2 / 3, 2 / 3))

    def test_the_point_is_the_most_often_marked_pixel(self):
        masks = [
            rectangle(10, 0, 0, 4, 4),
            rectangle(10, 3, 3, 6, 6),
            rectangle(10, 3, 2, 9, 4),
            rectangle(10, 8, 8, 9, 9),
        ]
        found = learn(["A", "A", "B", "C"], masks)
        assert found.overall.point == pytest.approx((0.35, 0.35))
        assert found.findings["A"].point == pytest.approx((0.35, 0.35))
        assert found.findings["C"].point == pytest.approx((0.85, 0.85))

    def test_of_several_pixels_the_one_nearest_to_their_middle_counts(self):
        assert learn(["A"], [rectangle(11, 2, 4, 9, 7)]).overall.point == pytest.approx((5.5 / 11, 5.5 / 11))
        apart = rectangle(11, 0, 0, 1, 1) | rectangle(11, 4, 0, 6, 1)
        assert learn(["A"], [apart]).overall.point == pytest.approx((4.5 / 11, 0.5 / 11))  # 1 is not marked
        often, once = rectangle(11, 0, 0, 5, 1), rectangle(11, 6, 0, 11, 1)
        assert learn(["A"] * 3, [often, once, often]).overall.point == pytest.approx((2.5 / 11, 0.5 / 11))

    def test_plain_json(self):
        found = learn(["A"], [rectangle(4, 0, 0, 4, 4)]).to_dict()
        whole = {"marks": 1, "centred": [0, 0, 1, 1], "mean": [0, 0, 1, 1], "point": [0.375, 0.375]}
        assert json.loads(json.dumps(found)) == {"overall": whole, "findings": {"A": whole}}

    @pytest.mark.parametrize(
        ("findings", "regions", "message"),
        [
            ([], [], "at least one"),
            (["A"], [], "got 0 and 1"),
            (["A", "B"], [np.ones((4, 4), bool), np.ones((5, 5), bool)], "not on one square grid"),
            (["A"], [np.ones((4, 5), bool)], "not on one square grid"),
            (["A", "B"], [np.ones((4, 4), bool), np.zeros((4, 4), bool)], "no marked pixel"),
        ],
    )
    def test_what_cannot_teach_is_refused(self, findings, regions, message):
        with pytest.raises(ValueError, match=message):
            learn(findings, regions)


class TestOfCases:
    TRAINED = learn(["A", "B"], [rectangle(4, 1, 1, 3, 3), rectangle(4, 0, 0, 4, 2)])

    def test_boxes_follow_the_findings(self):
        found = baseline_boxes(["B", "X", "A"], self.TRAINED)
        assert list(found) == [
            "whole image", "centred box", "centred box per finding", "mean box", "mean box per finding"
        ]  # fmt: skip
        assert found["whole image"].tolist() == [[0, 0, 1, 1]] * 3
        np.testing.assert_allclose(found["mean box"], [[0.125, 0.125, 0.875, 0.625]] * 3)
        np.testing.assert_allclose(
            found["mean box per finding"], [[0, 0, 1, 0.5], [np.nan] * 4, [0.25, 0.25, 0.75, 0.75]]
        )
        np.testing.assert_allclose(found["centred box"], [self.TRAINED.overall.centred] * 3)
        np.testing.assert_allclose(found["centred box per finding"][2], [0.25, 0.25, 0.75, 0.75])

    def test_points_follow_the_findings(self):
        found = baseline_points(["B", "X", "A"], self.TRAINED)
        assert list(found) == ["most marked pixel", "most marked pixel per finding"]
        assert found["most marked pixel"].tolist() == [[0.375, 0.375]] * 3
        np.testing.assert_allclose(
            found["most marked pixel per finding"], [[0.375, 0.125], [np.nan] * 2, [0.375, 0.375]]
        )

    def test_without_training_marks_there_is_the_whole_image(self):
        assert list(baseline_boxes(["A"], None)) == ["whole image"]
        assert baseline_points(["A"], None) == {}


class TestShuffled:
    RNG = np.random.default_rng(0)
    MASKS = blobs(RNG, 5, 9)
    PATIENTS = np.array(["p", "q", "p", "r", "q"])
    OTHER = PATIENTS[:, None] != PATIENTS

    def expected(self, score):
        own = [score(i, i) for i in range(5)]
        others = [[score(i, j) for j in range(5) if self.PATIENTS[j] != self.PATIENTS[i]] for i in range(5)]
        return own, others

    def check(self, found, score, b):
        own, others = self.expected(score)
        for name in found[0]:
            np.testing.assert_allclose(found[0][name][:, b], [one[name] for one in own], atol=1e-12, err_msg=name)
            mean = [sum(one[name] for one in of) / len(of) for of in others]
            np.testing.assert_allclose(found[1][name][:, b], mean, atol=1e-12, err_msg=name)
        assert not np.allclose(found[0]["iou"], found[1]["iou"])

    def test_boxes_with_the_marks_of_other_patients(self):
        boxes = random_boxes(self.RNG, 5, 2)
        found = matched_and_shuffled(pairs_of_boxes(Regions.of(self.MASKS), boxes), self.OTHER)
        for b in range(2):
            self.check(found, lambda i, j, b=b: box_scores(self.MASKS[i], boxes[j, b]), b)

    def test_maps_with_the_marks_of_other_patients(self):
        maps, windows = self.RNG.normal(size=(5, 4, 4)), np.array([[0.0, 0, 1, 1], [-0.1, 0, 1.1, 1]])[[0, 1, 0, 1, 1]]
        found = matched_and_shuffled(pairs_of_maps(Regions.of(self.MASKS), maps, windows), self.OTHER)
        self.check(found, lambda i, j: map_scores(self.MASKS[i], maps[j], windows[j]), 0)

    def test_more_cases_than_a_block_holds(self):
        rng, count = np.random.default_rng(1), BLOCK + 6
        masks, boxes, maps = blobs(rng, count, 5), random_boxes(rng, count, 1), rng.normal(size=(count, 2, 2))
        windows, other = np.tile([0.0, 0, 1, 1], (count, 1)), ~np.eye(count, dtype=bool)
        i, j = BLOCK + 2, 3
        for pairs, score in (
            (pairs_of_boxes(Regions.of(masks), boxes), lambda i, j: box_scores(masks[i], boxes[j, 0])["iou"]),
            (
                pairs_of_maps(Regions.of(masks), maps, windows),
                lambda i, j: map_scores(masks[i], maps[j], windows[j])["iou"],
            ),
        ):
            own, shuffled = matched_and_shuffled(pairs, other)
            for row in (i, j):
                assert own["iou"][row, 0] == pytest.approx(score(row, row))
                mean = sum(score(row, k) for k in range(count) if k != row) / (count - 1)
                assert shuffled["iou"][row, 0] == pytest.approx(mean)

    def test_without_another_one_it_is_undefined(self):
        boxes = random_boxes(self.RNG, 5, 1)
        other = self.OTHER.copy()
        other[3] = False
        own, shuffled = matched_and_shuffled(pairs_of_boxes(Regions.of(self.MASKS), boxes), other)
        assert np.isnan(shuffled["iou"][:, 0]).tolist() == [False, False, False, True, False]
        assert not np.isnan(own["iou"]).any()
        mean = sum(box_scores(self.MASKS[0], boxes[j, 0])["iou"] for j in (1, 3, 4)) / 3
        assert shuffled["iou"][0, 0] == pytest.approx(mean)  # 3 has no other, but is another one to 0

    def test_equal_images_score_the_same_shuffled(self):
        masks, boxes = np.repeat(self.MASKS[:1], 5, axis=0), np.tile([0.2, 0.1, 0.7, 0.8], (5, 1, 1))
        own, shuffled = matched_and_shuffled(pairs_of_boxes(Regions.of(masks), boxes), self.OTHER)
        for name, values in own.items():
            np.testing.assert_allclose(shuffled[name], values)
