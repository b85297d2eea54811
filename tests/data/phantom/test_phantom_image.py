import numpy as np
import pytest
from scipy import ndimage

from mxa.data.phantom.anatomy import draw_patient, draw_pose
from mxa.data.phantom.dataset import pack_masks
from mxa.data.phantom.image import draw_image, parts_of
from mxa.data.phantom.signs import TRAITS, Sign, draw_visibility
from mxa.data.phantom.statistics import FINDINGS

SIZE = 160
DRAWN = FINDINGS[1:]


def case(number, view):
    rng = np.random.default_rng(number)
    patient = draw_patient(rng, "Female" if number % 2 else "Male", 25 + 13 * number % 60)
    return patient, draw_pose(rng, view)


def sign(finding, number, visibility=0.9, alone=True):
    traits = np.random.default_rng([9, number]).random(TRAITS)
    return Sign(finding, visibility, tuple(traits.tolist()), alone)


def draw(number, view, signs, size=SIZE):
    return draw_image(*case(number, view), signs, size, [number])


def full(mask):
    return mask.repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("view", ["AP", "PA", "L"])
@pytest.mark.parametrize("finding", DRAWN)
def test_a_sign_changes_the_image_where_its_mask_is(finding, view):
    inside = []
    for number in range(4):
        plain = draw(number, view, []).pixels.astype(np.float64)
        drawing = draw(number, view, [sign(finding, number)])
        change = np.abs(drawing.pixels - plain) ** 2
        mask = full(drawing.masks[finding])
        assert mask.any()
        # Six pixels at this size are about a centimetre: the soft rim of a sign.
        near = ndimage.binary_dilation(mask, iterations=6)
        inside.append(change[near].sum() / change.sum())
        assert change[mask].mean() > 2 * change[~near].mean()
    assert np.mean(inside) > 0.85


@pytest.mark.parametrize("finding", DRAWN)
def test_a_clear_sign_is_seen_better_than_a_faint_one(finding):
    def contrast(visibility):
        return np.mean([
            np.abs(draw(n, "PA", [sign(finding, n, visibility)]).pixels - draw(n, "PA", []).pixels.astype(float)).mean()
            for n in range(4)
        ])  # fmt: skip

    assert contrast(1.0) > 1.3 * contrast(0.15) > 0


def test_without_findings_there_are_no_masks():
    drawing = draw(0, "AP", [])
    assert drawing.masks == {}
    assert drawing.boxes == []


@pytest.mark.parametrize("view", ["AP", "L"])
@pytest.mark.parametrize("finding", DRAWN)
def test_boxes_are_the_connected_parts_of_the_mask(finding, view):
    drawing = draw(1, view, [sign(finding, 3)])
    mask = drawing.masks[finding]
    h, w = mask.shape
    covered = np.zeros_like(mask)
    for name, x1, y1, x2, y2 in drawing.boxes:
        assert name in {finding, "Lung Opacity"}
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
        rows, columns = slice(round(y1 * h), round(y2 * h)), slice(round(x1 * w), round(x2 * w))
        part = mask[rows, columns]
        # Tight: the mask touches all four sides.
        assert all(edge.any() for edge in (part[0], part[-1], part[:, 0], part[:, -1]))
        covered[rows, columns] = True
    assert not (mask & ~covered).any()
    assert sum(name == finding for name, *_ in drawing.boxes) == ndimage.label(mask, np.ones((3, 3)))[1]


def test_parts_of_drops_specks_and_joins_diagonals():
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:12, 20:22] = mask[12:14, 22:24] = True
    mask[40, 90] = True
    clean, boxes = parts_of(mask)
    assert boxes == [(0.2, 0.2, 0.24, 0.28)]
    assert clean.sum() == 8


def heart_ratio(drawing):
    heart = np.ptp(np.flatnonzero(drawing.heart.any(axis=0))) + 1
    lungs = np.ptp(np.flatnonzero(drawing.lungs.any(axis=0))) + 1
    return heart / lungs


@pytest.mark.parametrize("view", ["AP", "PA"])
def test_the_heart_is_wider_than_half_the_chest_only_in_cardiomegaly(view):
    for number in range(12):
        assert 0.33 < heart_ratio(draw(number, view, [])) < 0.5
        for visibility in (0.05, 1.0):
            assert 0.5 < heart_ratio(draw(number, view, [sign("Cardiomegaly", number, visibility)])) < 0.75


def test_edema_is_on_both_sides():
    drawing = draw(2, "PA", [sign("Edema", 2)])
    half = drawing.masks["Edema"].shape[1] // 2
    left, right = drawing.masks["Edema"][:, :half].sum(), drawing.masks["Edema"][:, half:].sum()
    assert 0.4 < left / right < 2.5


def test_beyond_a_pneumothorax_the_lung_is_darker_and_an_effusion_is_brighter():
    for finding, way in (("Pneumothorax", -1), ("Pleural Effusion", 1), ("Consolidation", 1)):
        change = [
            (draw(n, "PA", [sign(finding, n)]).pixels.astype(float) - draw(n, "PA", []).pixels)[
                full(draw(n, "PA", [sign(finding, n)]).masks[finding])
            ].mean()
            for n in range(4)
        ]
        assert np.mean(change) * way > 3


def test_effusion_lies_lower_than_pneumothorax():
    low = np.argwhere(draw(0, "PA", [sign("Pleural Effusion", 0)]).masks["Pleural Effusion"])[:, 0].mean()
    high = np.argwhere(draw(0, "PA", [sign("Pneumothorax", 0)]).masks["Pneumothorax"])[:, 0].mean()
    assert low > high + 10


def test_lung_opacity_covers_its_children_and_draws_its_own_sign_only_alone():
    lesion = sign("Lung Lesion", 4)
    alone = draw(0, "AP", [lesion])
    both = draw(0, "AP", [lesion, sign("Lung Opacity", 4, alone=False)])
    np.testing.assert_array_equal(both.pixels, alone.pixels)
    np.testing.assert_array_equal(both.masks["Lung Opacity"], both.masks["Lung Lesion"])
    own = draw(0, "AP", [sign("Lung Opacity", 4)])
    assert own.masks["Lung Opacity"].any()


def test_the_order_of_signs_does_not_matter():
    signs = [sign(f, 6) for f in ("Fracture", "Cardiomegaly", "Pleural Effusion", "Support Devices")]
    np.testing.assert_array_equal(draw(3, "AP", signs).pixels, draw(3, "AP", signs[::-1]).pixels)


def test_packed_masks_have_one_bit_per_finding():
    drawing = draw(1, "AP", [sign("Edema", 1), sign("Support Devices", 1)])
    packed = pack_masks(drawing)
    assert packed.dtype == np.uint16
    for j, finding in enumerate(FINDINGS):
        expected = drawing.masks.get(finding, np.zeros(packed.shape, dtype=bool))
        np.testing.assert_array_equal((packed >> j) & 1, expected)


@pytest.mark.parametrize("size", [64, 101, 320])
@pytest.mark.parametrize("view", ["AP", "PA", "L"])
def test_the_short_side_is_the_size_and_the_grids_fit(size, view):
    drawing = draw(2, view, [sign(f, 2) for f in DRAWN], size)
    h, w = drawing.pixels.shape
    assert min(h, w) == size + size % 2
    assert drawing.heart.shape == (h // 2, w // 2)
    assert 1 <= max(h, w) / min(h, w) < 1.3


@pytest.mark.parametrize("view", ["AP", "PA", "L"])
def test_an_image_has_dark_lungs_and_uses_the_grey_scale(view):
    for number in range(4):
        drawing = draw(number, view, [])
        lungs = full(drawing.lungs & ~drawing.heart)
        pixels = drawing.pixels.astype(float)
        below = pixels[int(0.93 * len(pixels)) :, pixels.shape[1] // 2 - 10 : pixels.shape[1] // 2 + 10].mean()
        assert pixels[lungs].mean() < below - 30
        assert pixels.std() > 35


def test_visibility_reaches_from_barely_visible_to_clear():
    rng = np.random.default_rng(0)
    sure = np.array([draw_visibility(rng, uncertain=False) for _ in range(4000)])
    unsure = np.array([draw_visibility(rng, uncertain=True) for _ in range(4000)])
    assert 0.12 <= sure.min() < 0.15
    assert 0.97 < sure.max() <= 1
    assert np.median(sure) == pytest.approx(0.72, abs=0.02)
    assert 0.08 < (sure < 0.37).mean() < 0.12
    assert np.median(unsure) == pytest.approx(0.6 * np.median(sure), abs=0.02)
