import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mxa.data.images import read_grey, read_reduced
from mxa.errors import ConfigError, DataError

RAMP = np.arange(16 * 20, dtype=np.uint16).reshape(16, 20)
GREY = (RAMP % 256).astype(np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return path


def solid(mode, colour, size=(20, 16)):
    return Image.new(mode, size, colour)


def png16(path, pixels, channels=1, transparent=None):
    """Write a 16-bit PNG byte by byte: colour type 0 (grey) or 2 (RGB). Pillow cannot write 16-bit colour."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 0 if channels == 1 else 2, 0, 0, 0)
    trns = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    body = chunk(b"IHDR", head) + trns + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def min_is_white(path):
    """Let a TIFF file say that 0 is white, its stored values being what they are."""
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[at : at + 2] = b"\0\0"
    path.write_bytes(data)
    return path


def odd_exif(orientation, tag=0x0122, kind=2):
    """An EXIF block with a tag of another type than it should have, of which Pillow makes an error when writing it."""
    entries = struct.pack("<HHI4s", tag, kind, 4, b"abc\0") + struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)


class TestEightBit:
    def test_grey_png_is_kept_exactly(self, tmp_path):
        got = read_grey(save(tmp_path / "a.png", Image.fromarray(GREY)))
        assert got.dtype == np.uint8
        assert got.shape == (16, 20)
        np.testing.assert_array_equal(got, GREY)
        got[0, 0] = 1  # callers may write into it

    def test_path_may_be_text(self, tmp_path):
        np.testing.assert_array_equal(read_grey(str(save(tmp_path / "a.png", Image.fromarray(GREY)))), GREY)

    def test_grey_in_rgb_is_kept_exactly(self, tmp_path):
        path = save(tmp_path / "a.png", Image.fromarray(np.stack([GREY] * 3, axis=-1)))
        np.testing.assert_array_equal(read_grey(path), GREY)

    @pytest.mark.parametrize(
        ("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((10, 20, 30), 18)]
    )
    def test_colour_becomes_itu_601_luma(self, tmp_path, colour, luma):
        assert np.unique(read_grey(save(tmp_path / "a.png", solid("RGB", colour)))).tolist() == [luma]

    def test_one_bit(self, tmp_path):
        path = save(tmp_path / "a.png", Image.fromarray(GREY > 100))
        np.testing.assert_array_equal(read_grey(path), np.where(GREY > 100, 255, 0))

    def test_palette(self, tmp_path):
        image = Image.fromarray((GREY % 2).astype(np.uint8), mode=None).convert("P")
        image.putpalette([255, 0, 0, 0, 0, 255])
        got = read_grey(save(tmp_path / "a.png", image))
        np.testing.assert_array_equal(got, np.where(GREY % 2, 29, 76))

    def test_grey_jpeg_is_what_pillow_decodes(self, tmp_path):
        path = save(tmp_path / "a.jpg", Image.fromarray(GREY), quality=95)
        np.testing.assert_array_equal(read_grey(path), np.asarray(Image.open(path)))

    @pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
    def test_exif_orientation_is_applied(self, tmp_path, orientation, turns):
        stored = np.zeros((16, 24), dtype=np.uint8)
        stored[:8, :8] = 200  # an 8 x 8 block, which JPEG keeps exactly
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = save(tmp_path / "a.jpg", Image.fromarray(stored), quality=100, exif=exif)
        got = read_grey(path)
        np.testing.assert_array_equal(got, np.rot90(stored, turns))

    @pytest.mark.parametrize("tag", [0x0122, 0x011E])  # of a whole number and of a fraction
    def test_another_odd_exif_tag_does_not_matter(self, tmp_path, tag):
        stored = np.zeros((16, 24), dtype=np.uint8)
        stored[:8, :8] = 200
        path = save(tmp_path / "a.jpg", Image.fromarray(stored), quality=100, exif=odd_exif(6, tag))
        np.testing.assert_array_equal(read_grey(path), np.rot90(stored, 3))

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
    def test_tiff_where_0_is_white(self, tmp_path, compression):
        path = min_is_white(save(tmp_path / "a.tif", Image.fromarray(GREY), compression=compression))
        np.testing.assert_array_equal(read_grey(path), 255 - GREY)

    def test_cmyk_jpeg_is_stored_inverted(self, tmp_path):
        path = save(tmp_path / "a.jpg", solid("CMYK", (0, 0, 0, 55)), quality=100)
        assert np.unique(read_grey(path)).tolist() == [200]

    def test_cmyk_tiff_is_stored_as_it_is(self, tmp_path):
        path = save(tmp_path / "a.tif", solid("CMYK", (0, 0, 0, 55)))
        assert np.unique(read_grey(path)).tolist() == [200]


class TestAlpha:
    @pytest.mark.parametrize(("mode", "colour", "grey"), [("LA", (7, 255), 7), ("RGBA", (255, 0, 0, 255), 76)])
    def test_opaque_is_dropped(self, tmp_path, mode, colour, grey):
        assert np.unique(read_grey(save(tmp_path / "a.png", solid(mode, colour)))).tolist() == [grey]

    @pytest.mark.parametrize(("mode", "colour"), [("LA", (7, 255)), ("RGBA", (9, 9, 9, 255))])
    def test_one_transparent_pixel_is_refused(self, tmp_path, mode, colour):
        image = solid(mode, colour)
        image.putpixel((3, 5), (*colour[:-1], 254))
        with pytest.raises(DataError, match=r"b\.png: has transparent pixels \(alpha down to 254\).*flatten"):
            read_grey(save(tmp_path / "b.png", image))

    @pytest.mark.parametrize(("used", "refused"), [(0, True), (1, False)])
    def test_transparent_palette_entry_matters_only_where_used(self, tmp_path, used, refused):
        image = solid("P", used)
        image.putpalette([10, 10, 10, 50, 50, 50])
        path = save(tmp_path / "a.png", image, transparency=0)
        if refused:
            with pytest.raises(DataError, match="transparent"):
                read_grey(path)
        else:
            assert np.unique(read_grey(path)).tolist() == [50]

    def test_transparent_grey_value(self, tmp_path):
        path = save(tmp_path / "a.png", Image.fromarray(GREY), transparency=17)
        with pytest.raises(DataError, match="transparent"):
            read_grey(path)


class TestSixteenBit:
    def test_full_range_is_divided_by_257_and_rounded(self, tmp_path):
        pixels = RAMP * 205  # up to 65395
        got = read_grey(png16(tmp_path / "a.png", pixels))
        np.testing.assert_array_equal(got, np.rint(pixels / 257))

    def test_every_value(self, tmp_path):
        pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        np.testing.assert_array_equal(read_grey(png16(tmp_path / "a.png", pixels)), np.rint(pixels / 257))

    def test_twelve_bit_data_are_refused_with_the_remedy(self, tmp_path):
        with pytest.raises(DataError, match=r"b\.png: .*highest value is 4095.*nearly black.*wide_range=\"minmax\""):
            read_grey(png16(tmp_path / "b.png", np.minimum(RAMP * 13, 4095)))

    @pytest.mark.parametrize(("high", "accepted"), [(2**15 - 1, False), (2**15, True)])
    def test_the_border_is_half_of_the_range(self, tmp_path, high, accepted):
        pixels = np.zeros((16, 16), dtype=np.uint16)
        pixels[0, 0] = high
        path = png16(tmp_path / "a.png", pixels)
        if accepted:
            assert read_grey(path)[0, 0] == 128
        else:
            with pytest.raises(DataError, match="minmax"):
                read_grey(path)

    def test_minmax_stretches(self, tmp_path):
        pixels = RAMP * 10 + 1000
        got = read_grey(png16(tmp_path / "a.png", pixels), wide_range="minmax")
        np.testing.assert_array_equal(got, np.rint(RAMP / RAMP.max() * 255))
        assert (got.min(), got.max()) == (0, 255)

    def test_minmax_of_a_constant_image(self, tmp_path):
        with pytest.raises(DataError, match="all pixels are 700"):
            read_grey(png16(tmp_path / "a.png", np.full((16, 16), 700, np.uint16)), wide_range="minmax")

    def test_minmax_leaves_eight_bit_images_alone(self, tmp_path):
        dim = (GREY // 4).astype(np.uint8)
        path = save(tmp_path / "a.png", Image.fromarray(dim))
        np.testing.assert_array_equal(read_grey(path, wide_range="minmax"), dim)

    @pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
    @pytest.mark.parametrize("wide_range", ["full", "minmax"])
    def test_tiff_where_0_is_white(self, tmp_path, wide_range, compression):
        pixels = RAMP * 205
        inverted = save(tmp_path / "a.tif", Image.fromarray(65535 - pixels), compression=compression)
        plain = save(tmp_path / "b.tif", Image.fromarray(pixels), compression=compression)
        got = read_grey(min_is_white(inverted), wide_range=wide_range)
        np.testing.assert_array_equal(got, read_grey(plain, wide_range=wide_range))

    def test_twelve_bit_data_where_0_is_white(self, tmp_path):
        path = min_is_white(save(tmp_path / "a.tif", Image.fromarray(np.minimum(RAMP * 13, 4095))))
        with pytest.raises(DataError, match=r"highest value is 4095.*nearly white.*wide_range=\"minmax\""):
            read_grey(path)
        got = read_grey(path, wide_range="minmax")
        assert (got[0, 0], got[-1, -1]) == (255, 0)

    def test_unknown_range(self, tmp_path):
        with pytest.raises(ConfigError, match="wide_range is 'auto'; choose from full, minmax"):
            read_grey(save(tmp_path / "a.png", Image.fromarray(GREY)), wide_range="auto")

    @pytest.mark.parametrize(("value", "accepted"), [(65535, True), (65536, False), (-1, False)])
    def test_32_bit_integers_must_be_16_bit_data(self, tmp_path, value, accepted):
        pixels = np.full((16, 16), 40000, dtype=np.int32)
        pixels[2, 2] = value
        path = save(tmp_path / "a.tif", Image.fromarray(pixels))
        if accepted:
            assert read_grey(path)[2, 2] == 255
        else:
            with pytest.raises(DataError, match="no 16-bit grey"):
                read_grey(path)

    def test_16_bit_colour_is_refused(self, tmp_path):
        path = png16(tmp_path / "a.png", np.stack([RAMP * 10] * 3, axis=-1), channels=3)
        with pytest.raises(DataError, match="16-bit colour"):
            read_grey(path)

    def test_16_bit_grey_with_a_transparent_value_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="16-bit colour or alpha"):
            read_grey(png16(tmp_path / "a.png", RAMP * 205, transparent=410))

    def test_floating_point_is_refused(self, tmp_path):
        path = save(tmp_path / "a.tif", Image.fromarray(RAMP.astype(np.float32)))
        with pytest.raises(DataError, match="floating-point"):
            read_grey(path)


class TestUnreadable:
    def test_missing(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.png: no such file; check the root"):
            read_grey(tmp_path / "none.png")

    def test_folder(self, tmp_path):
        with pytest.raises(DataError, match="cannot be decoded"):
            read_grey(tmp_path)

    def test_empty(self, tmp_path):
        (tmp_path / "a.png").touch()
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(the file is empty\)"):
            read_grey(tmp_path / "a.png")

    def test_text(self, tmp_path):
        (tmp_path / "a.png").write_text("<html>please log in</html>")
        with pytest.raises(DataError, match=r"a\.png: cannot be decoded \(not an image\)"):
            read_grey(tmp_path / "a.png")

    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
    def test_truncated(self, tmp_path, name):
        noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        path = save(tmp_path / name, Image.fromarray(noise))
        data = path.read_bytes()
        for part in (0.3, 0.6, 0.95):
            path.write_bytes(data[: int(len(data) * part)])
            with pytest.raises(DataError, match=r"a\.\w+: cannot be decoded .*again"):
                read_grey(path)

    def test_damaged_png(self, tmp_path):
        path = save(tmp_path / "a.png", Image.fromarray(GREY))
        data = bytearray(path.read_bytes())
        at = data.index(b"IDAT") + 6
        data[at : at + 8] = b"\xff" * 8
        path.write_bytes(bytes(data))
        with pytest.raises(DataError, match="cannot be decoded"):
            read_grey(path)

    @pytest.mark.parametrize(("size", "accepted"), [((1, 1), False), ((15, 200), False), ((16, 16), True)])
    def test_too_small(self, tmp_path, size, accepted):
        path = save(tmp_path / "a.png", solid("L", 9, size))
        if accepted:
            assert read_grey(path).shape == (16, 16)
        else:
            with pytest.raises(DataError, match=f"only {size[0]} x {size[1]} pixels"):
                read_grey(path)

    @pytest.mark.parametrize("limit", [100, 200])
    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_too_large(self, tmp_path, monkeypatch, limit):
        path = save(tmp_path / "a.png", Image.fromarray(GREY))  # 320 pixels: over 2 x 100, and between 200 and 2 x 200
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=f"more than {limit} pixels"):
            read_grey(path)

    @pytest.mark.filterwarnings("error")
    def test_too_large_where_warnings_are_errors(self, tmp_path, monkeypatch):
        path = save(tmp_path / "a.png", Image.fromarray(GREY))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
        with pytest.raises(DataError, match="more than 200 pixels"):
            read_grey(path)

    @pytest.mark.parametrize("name", ["a.gif", "a.tif"])
    def test_more_than_one_frame(self, tmp_path, name):
        frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="more than one frame"):
            read_grey(tmp_path / name)

    def test_tiff_whose_next_frame_is_damaged(self, tmp_path):
        path = save(tmp_path / "a.tif", Image.fromarray(GREY))
        data = bytearray(path.read_bytes())
        (first,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, first)
        struct.pack_into("<I", data, first + 2 + 12 * entries, len(data))
        path.write_bytes(data + bytes(6))  # a frame that says nothing of itself
        with pytest.raises(DataError, match=r"a\.tif: cannot be decoded"):
            read_grey(path)

    @pytest.mark.parametrize("error", [struct.error("odd"), TypeError("odd")])
    def test_what_else_pillow_makes_of_damaged_exif(self, tmp_path, monkeypatch, error):
        def fail(image):
            raise error

        path = save(tmp_path / "a.jpg", Image.fromarray(GREY))
        monkeypatch.setattr(Image.Image, "getexif", fail)
        with pytest.raises(DataError, match=r"a\.jpg: cannot be decoded \(odd\)"):
            read_grey(path)

    def test_other_pixel_type(self, tmp_path):
        path = save(tmp_path / "a.tif", solid("LAB", (50, 0, 0)))
        with pytest.raises(DataError, match="pixel type 'LAB'"):
            read_grey(path)


class TestReduced:
    @pytest.mark.parametrize(
        ("at_least", "shape", "extent"),
        [
            (49, (51, 63), (62.625, 50.125)),
            (51, (101, 126), (125.25, 100.25)),
            (101, (201, 251), (250.5, 200.5)),
            (201, (401, 501), None),
        ],
    )
    def test_the_extent_is_in_pixels_of_what_was_decoded(self, tmp_path, at_least, shape, extent):
        path = save(tmp_path / "a.jpg", solid("L", 100, (501, 401)))
        grey, found = read_reduced(path, at_least=at_least)
        assert (grey.shape, found) == (shape, extent)

    def test_only_upright_jpegs_are_reduced(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 3
        turned = save(tmp_path / "a.jpg", solid("L", 100, (501, 401)), exif=exif)
        for path in (turned, save(tmp_path / "a.png", solid("L", 100, (501, 401)))):
            grey, extent = read_reduced(path, at_least=50)
            assert (grey.shape, extent) == ((401, 501), None)
