"""Pictures of odd kinds: what their pixels mean is known, or they are rejects."""

import struct
import zlib

import numpy as np
import pytest

from mlinfer import ConfigError, RecordErrors
from mlinfer.hosts import Pictures


def rejected(content, **options):
    with pytest.raises(RecordErrors) as raised:
        Pictures((2, 2), **options).matrix([content])
    return raised.value.kinds[0], raised.value.messages[0]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(width, height):
    """Black, and small in bytes whatever its size."""
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = zlib.compress(bytes(height * (1 + (width + 7) // 8)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("values", [[0, 0.5, 0.75, 1], [0, np.nan, np.inf, 3e5]])
def test_fractions_of_light_are_refused_for_nobody_says_what_is_white(mode, values):
    """Read as whole numbers, a portable float map from 0 to 1 was black all over."""
    content = b"Pf\n2 2\n-1.0\n" + np.array(values, "<f4").tobytes()
    kind, message = rejected(content, mode=mode)
    assert kind == "no_picture"
    assert (
        message
        == "wanted a picture with pixels of whole numbers, found fractions (a portable float map); save it as PNG"
    )


@pytest.mark.parametrize("largest", [255, 1000, 65535])
def test_whole_numbers_are_read_by_the_largest_that_their_header_names(largest):
    values = np.array([0, largest, largest // 2, largest // 4])
    content = b"P5 2 2 %d " % largest + values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    np.testing.assert_allclose(
        Pictures((2, 2), mode="L").matrix([content])[0], values / largest * 255, atol=1
    )


@pytest.mark.parametrize(("width", "height"), [(1, 65_537), (65_537, 1)])
def test_a_side_longer_than_any_camera_has_is_too_large(width, height):
    """Few bytes and few pixels, yet to make such a picture small takes gigabytes."""
    kind, message = rejected(grey_png(width, height))
    assert kind == "too_large"
    assert message == (
        f"wanted a picture of at most 67,108,864 pixels and 65,536 a side, found {width} x {height}; scale it down"
    )
    assert Pictures((1, 1), mode="L").matrix(
        [grey_png(min(width, 65_536), min(height, 65_536))]
    ).tolist() == [[0]]


@pytest.mark.parametrize("name", ["mean", "scale"])
def test_numbers_of_a_ragged_shape_are_no_recipe(name):
    with pytest.raises(ConfigError, match=f"wanted {name} as one number"):
        Pictures((2, 2), **{name: [[1], [2, 3]]}).matrix([])
