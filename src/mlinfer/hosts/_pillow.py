"""Pictures between bytes and arrays, with Pillow: few formats, bounded before they are decoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np

from mlinfer import ConfigError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "WEBP")
"""What is read. Everything else that Pillow knows is refused: some of it starts programs or fetches files."""

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
MOST_PIXELS = 2**26
"""Of a picture before it is resized: 8,192 x 8,192, looked up in its header."""
LONGEST_SIDE = 2**16
"""Also where the other one is short: to resize such a picture takes as much memory as its side is long."""

ORIENTATION = 0x0112
DEEP = ("I", "I;")
DAMAGE = (OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, EOFError, RuntimeError, struct.error, zlib.error, Warning)  # fmt: skip
"""What Pillow raises at bytes that are no picture, or a damaged one (UnidentifiedImageError is an OSError), or
warns of where warnings are errors."""


class Unreadable(Exception):  # noqa: N818 - the name of what happened
    """Bytes that become no picture, in words of our own; `kind` is that of the reject."""

    kind = "no_picture"


class TooLarge(Unreadable):
    """A picture of too many pixels."""

    kind = "too_large"

    def __init__(self, found: str) -> None:
        most = f"{MOST_PIXELS:,} pixels and {LONGEST_SIDE:,} a side"
        super().__init__(f"wanted a picture of at most {most}, found {found}; scale it down")


def pillow() -> Any:
    """The library, with its readers of FORMATS. Raises ConfigError: it is not installed."""
    try:
        from PIL import Image, WebPImagePlugin  # noqa: F401 - the others are there at once, this one is not
    except ImportError as error:
        msg = "pictures want Pillow, which is not installed: pip install 'mlinfer[images]'"
        raise ConfigError(msg) from error
    Image.preinit()
    return Image


def decoded(
    image: Any,
    content: bytes,
    *,
    size: tuple[int, int],
    mode: str,
    background: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """The first picture in some bytes as uint8 of shape (height, width, channels), `image` being Pillow's module.

    Upright, as its EXIF orientation says, and resized. Raises Unreadable: it is damaged, too large, or of a format that
    is not read.
    """
    try:
        with image.open(io.BytesIO(content), formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS or max(picture.size) > LONGEST_SIDE:
                found = f"{picture.width} x {picture.height}"
                raise TooLarge(found)
            if picture.mode == "F":  # what is white in it is up to whoever made it
                msg = "wanted a picture with pixels of whole numbers, found fractions (a portable float map); save it as PNG"
                raise Unreadable(msg)
            picture.load()
            upright = _upright(image, picture)
            return _pixels(_resized(image, _converted(image, upright, mode, background), size))
    except (image.DecompressionBombError, image.DecompressionBombWarning) as error:
        found = "a larger one"
        raise TooLarge(found) from error
    except DAMAGE as error:  # whose own words may tell of memory or paths
        msg = f"wanted a picture ({', '.join(FORMATS)}), found something damaged or foreign ({type(error).__name__})"
        raise Unreadable(msg) from error


def encoded(image: Any, pixels: np.ndarray) -> bytes:
    """A PNG of uint8, shape (height, width, channels)."""
    file = io.BytesIO()
    image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _upright(image: Any, picture: Any) -> Any:
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
             6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}  # fmt: skip
    turn = turns.get(picture.getexif().get(ORIENTATION))
    return picture if turn is None else picture.transpose(image.Transpose[turn])


def _converted(image: Any, picture: Any, mode: str, background: tuple[int, int, int] | None) -> Any:
    if picture.mode.startswith(DEEP):  # 16 bits of grey: the upper eight count, as Pillow has it for colours
        picture = image.fromarray((np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if background is not None and mode != "RGBA" and picture.has_transparency_data:
        ground = image.new("RGBA", picture.size, (*background, 255))
        picture = image.alpha_composite(ground, picture.convert("RGBA"))
    elif picture.mode == "P":  # else a transparent colour of its palette is warned about
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return picture.convert(mode)


def _resized(image: Any, picture: Any, size: tuple[int, int]) -> Any:
    return picture if picture.size == size else picture.resize(size, image.Resampling.BILINEAR)


def _pixels(picture: Any) -> np.ndarray:
    pixels = np.asarray(picture, np.uint8)
    return pixels.reshape(*pixels.shape[:2], -1)
