import numpy as np
import pytest
from mark_files import decode_rle_by_hand, encode_rle

from mxa.data.marks.rle import decode_rle
from mxa.errors import DataError


class TestWorkedOutByHand:
    def test_all_zeros(self):
        # One run of 6: code 6, character 48 + 6.
        assert not decode_rle("6", 2, 3).any()
        assert decode_rle("6", 2, 3).shape == (2, 3)

    def test_all_ones(self):
        np.testing.assert_array_equal(decode_rle("06", 2, 3), np.ones((2, 3)))

    def test_columns_come_first(self):
        # Runs 1, 2, 3: rows 1 of column 0 and 0 of column 1.
        np.testing.assert_array_equal(decode_rle("123", 2, 3), [[0, 1, 0], [1, 0, 0]])

    def test_fourth_run_is_a_difference_to_the_second(self):
        # Runs 1, 3, 2, 2, 1: stored 1, 3, 2, 2 - 3 = -1, 1 - 2 = -1; -1 is the 5 bits 11111, character 48 + 31 = "O".
        np.testing.assert_array_equal(decode_rle("132OO", 3, 3), [[0, 1, 1], [1, 0, 1], [1, 0, 0]])

    def test_sixteen_needs_two_characters(self):
        # 16 is 10000; a single character would be negative: 16 + 32 more, then 0, characters 48 + 48 = "`" and "0".
        np.testing.assert_array_equal(decode_rle("`01", 1, 17), [[False] * 16 + [True]])

    def test_two_characters_lowest_first(self):
        # 40 = 8 + 32 * 1: 8 + 32 more = "X", then "1"; 2 = "2".
        np.testing.assert_array_equal(decode_rle("X12", 1, 42)[0], np.arange(42) >= 40)

    def test_negative_in_two_characters(self):
        # Runs 1, 40, 1, 2: the last is stored as -38 = -64 + 26: 26 + 32 more = 48 + 58 = "j", then 30 = "N".
        mask = decode_rle("1X11jN", 4, 11)
        assert mask.T.ravel().tolist() == [False] + [True] * 40 + [False] + [True] * 2

    @pytest.mark.parametrize(
        ("counts", "height", "width"),
        # As CheXlocalize's sample has them: 0 + 6 * 32 + 7 * 32^2 + 8 * 32^3 + 6 * 32^4 = 2320 * 2828,
        # 30 + 21 * 32 + 22 * 32^2 + 28 * 32^3 + 3 * 32^4 = 2022 * 2021.
        [("PVWX6", 2320, 2828), ("nefl3", 2022, 2021)],
    )
    def test_chexlocalize_without_a_mark(self, counts, height, width):
        mask = decode_rle(counts, height, width)
        assert mask.shape == (height, width)
        assert not mask.any()


class TestAgainstLoops:
    @pytest.mark.parametrize("seed", range(20))
    def test_random_masks(self, seed):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(1, 60, 2)
        # Runs from one pixel to several columns, so that numbers of either sign and one to three characters occur.
        flat = np.repeat(np.arange(400) % 2 == seed % 2, rng.choice([1, 3, 17, 40, 700], 400))[: height * width]
        mask = flat.reshape(width, height).T
        counts = encode_rle(mask)
        decoded = decode_rle(counts, height, width)
        assert decoded.dtype == bool
        np.testing.assert_array_equal(decoded, mask)
        np.testing.assert_array_equal(decoded, decode_rle_by_hand(counts, height, width))

    def test_noise(self):
        mask = np.random.default_rng(0).random((37, 53)) < 0.5
        np.testing.assert_array_equal(decode_rle(encode_rle(mask), 37, 53), mask)


class TestDamaged:
    @pytest.mark.parametrize(("counts", "pixels"), [("123", 6), ("124", 7), ("1", 1)])
    @pytest.mark.parametrize("size", [(2, 4), (5, 1)])
    def test_runs_must_fill_the_size(self, counts, pixels, size):
        message = rf"runs have {pixels} pixels, its size {size[0]} x {size[1]} has {size[0] * size[1]}$"
        with pytest.raises(DataError, match=message):
            decode_rle(counts, *size)

    @pytest.mark.parametrize("counts", ["", "12X", "X"])
    def test_breaks_off(self, counts):
        with pytest.raises(DataError, match="empty or breaks off"):
            decode_rle(counts, 2, 3)

    @pytest.mark.parametrize("character", ["/", "p", " ", "\n", "é", "€"])
    def test_foreign_character(self, character):
        with pytest.raises(DataError, match=r"character 1 of the mask, .* is none of COCO's"):
            decode_rle(f"1{character}3", 2, 3)

    def test_negative_run(self):
        # 1, 2, 3, then 2 - 3 = -1 (stored as -3, character 48 + 29); the sum is that of the size.
        with pytest.raises(DataError, match="run 3 of the mask has a negative length"):
            decode_rle("123M4", 2, 6)

    def test_number_too_long(self):
        with pytest.raises(DataError, match="8 characters, which is too long"):
            decode_rle("PPPPPPP1", 2, 3)
