"""Pictures for models: bytes become the numbers that a model was fitted on, and numbers become PNG."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from mlinfer import (
    ConfigError,
    Explains,
    Host,
    Model,
    RecordErrors,
    Signature,
    as_numpy,
    chosen_rows,
    conform,
)
from mlinfer.hosts._pillow import CHANNELS, Unreadable, decoded, encoded, pillow

Mode: TypeAlias = Literal["L", "RGB", "RGBA"]
Layout: TypeAlias = Literal["HWC", "CHW"]
Numbers: TypeAlias = float | tuple[float, ...]
MOST_VALUES = 2**24
"""In one picture."""
MOST_FLOAT_BYTES = 2**26
"""Of float64 at a time: the engine asks for smaller batches when it hears of more."""
TAKEN = pa.field("bytes", pa.binary(), nullable=False)
"""What `FilesSource` calls the content of a file."""


@dataclass(frozen=True)
class _Recipe(Host):
    """How pixels and numbers belong together: `number = (pixel - mean) / scale`, pixels from 0 to 255."""

    size: tuple[int, int]
    mode: Mode = "RGB"
    mean: Numbers = 0.0
    scale: Numbers = 1.0
    layout: Layout = "HWC"
    shared = True

    def __post_init__(self) -> None:
        """Lists, as files have them, become tuples, and whole numbers fractions, so that equal recipes are equal."""
        for name, value in list(vars(self).items()):
            new = tuple(value) if isinstance(value, list) else value
            if name in {"mean", "scale"}:
                new = tuple(map(_fraction, new)) if isinstance(new, tuple) else _fraction(new)
            object.__setattr__(self, name, new)

    @property
    def width(self) -> int:
        """How many numbers one picture is. Raises ConfigError: this is no recipe."""
        kind = type(self).__name__
        if self.mode not in CHANNELS or self.layout not in {"HWC", "CHW"}:
            msg = f"{kind}: wanted mode 'L', 'RGB' or 'RGBA' and layout 'HWC' or 'CHW', found {self.mode!r} and {self.layout!r}"
            raise ConfigError(msg)
        channels = CHANNELS[self.mode]
        if not _whole(self.size, count=2, least=1, most=MOST_VALUES):
            msg = f"{kind}: wanted size=(width, height) in pixels, found {self.size!r}"
            raise ConfigError(msg)
        values = math.prod(self.size) * channels
        if values > MOST_VALUES:
            msg = f"{kind}: wanted at most {MOST_VALUES:,} values in a picture, found size={self.size!r} in {self.mode}"
            raise ConfigError(msg)
        for name, numbers in (("mean", self.mean), ("scale", self.scale)):
            if not _numbers(numbers, channels) or (name == "scale" and not np.all(numbers)):
                zero = ", none of them 0" if name == "scale" else ""
                msg = f"{kind}: wanted {name} as one number, or one for each of {channels} channels ({self.mode}){zero}; found {numbers!r}"
                raise ConfigError(msg)
        return values

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the arguments."""
        return asdict(self)

    def _numbers_field(self) -> pa.Field:
        item = pa.field("item", pa.float64(), nullable=False)
        return pa.field("x", pa.list_(item, self.width), nullable=False)

    def _signature(self, inputs: pa.Field, outputs: pa.Field) -> Signature:
        digest = hashlib.sha256(repr(self).encode()).hexdigest()
        return Signature(
            pa.schema([inputs]), pa.schema([outputs]), type(self).__name__.lower(), digest[:12], digest
        )


@dataclass(frozen=True)
class Pictures(_Recipe):
    """Bytes of pictures become the numbers that a model takes: field `bytes` to field `x`, a list of float64.

    BMP, GIF, JPEG, PNG, PPM and WebP; of several pictures in one file the first. Turned upright as EXIF says, converted to
    `mode`, resized (bilinear), then `(pixel - mean) / scale`. Give it to `mlinfer.save(pictures=)`, or put it in front of
    any other model: `Chain(Pictures((224, 224), layout="CHW"), Selected(...))`. Bytes that are no picture are the reject
    `no_picture`, those of more than 67 million pixels, or 65,536 a side, the reject `too_large`. Needs `pip install 'mlinfer[images]'`.

    Args:
        size: width and height of what the model takes, in pixels.
        mode: `L` (grey), `RGB` or `RGBA`. Pictures in another mode are converted.
        mean: what is subtracted: one number, or one per channel. Pixels are 0 to 255.
        scale: what is divided by then, likewise.
        layout: `HWC`, row by row and the channels of a pixel side by side, or `CHW`, channel by channel.
        background: the colour behind a picture with transparency, `(255, 255, 255)`; by default transparency is dropped.

    >>> recipe = Pictures((2, 1), mode="L", scale=255)
    >>> recipe.matrix([b"P5 2 1 255 " + bytes([0, 255])]).tolist()
    [[0.0, 1.0]]
    """

    background: tuple[int, int, int] | None = None

    def matrix(self, contents: Sequence[bytes]) -> np.ndarray:
        """What a model is fitted on: float64, shape (pictures, numbers of each), prepared as it will be when asked.

        Raises RecordErrors: some are no pictures; ConfigError: Pillow is not installed, or this is no recipe.
        """
        return _Decoder(self).matrix(contents)

    @contextmanager
    def open(self) -> Iterator[PicturesModel]:
        """Ready to decode. Raises ConfigError: Pillow is not installed, or this is no recipe."""
        yield PicturesModel(self)


class _Decoder:
    """Decodes with a recipe that was looked at once."""

    def __init__(self, recipe: Pictures) -> None:
        if recipe.background is not None and not _whole(recipe.background, count=3, least=0, most=255):
            msg = f"Pictures: wanted background=(red, green, blue), each from 0 to 255, found {recipe.background!r}"
            raise ConfigError(msg)
        self._recipe, self.width, self._pillow = recipe, recipe.width, pillow()
        self._mean, self._scale = np.asarray(recipe.mean), np.asarray(recipe.scale)

    def matrix(self, contents: Sequence[bytes]) -> np.ndarray:
        """See `Pictures.matrix`."""
        matrix, bad = self.attempt(contents)
        if bad is not None:
            raise bad
        return matrix

    def attempt(self, contents: Sequence[bytes]) -> tuple[np.ndarray, RecordErrors | None]:
        """The numbers of all that are pictures, and which are not."""
        good, bad = [], []
        for row, content in enumerate(contents):
            try:
                good.append(self._one(content))
            except Unreadable as error:
                bad.append((row, error.kind, str(error)))
        matrix = np.stack(good) if good else np.empty((0, self.width))
        return matrix, RecordErrors(*map(list, zip(*bad, strict=True))) if bad else None

    def _one(self, content: bytes) -> np.ndarray:
        recipe = self._recipe
        pixels = decoded(
            self._pillow, content, size=recipe.size, mode=recipe.mode, background=recipe.background
        )
        numbers: np.ndarray = pixels - self._mean
        numbers /= self._scale
        return np.moveaxis(numbers, 2, 0).ravel() if recipe.layout == "CHW" else numbers.ravel()


class PicturesModel:
    """Decodes batches."""

    def __init__(self, recipe: Pictures) -> None:
        self._decoder = _Decoder(recipe)
        self._field = recipe._numbers_field()  # noqa: SLF001 - the recipe's own session
        self.signature = recipe._signature(TAKEN, self._field)  # noqa: SLF001 - the recipe's own session
        self._said = repr(recipe)
        self._kept: tuple[pa.Array, np.ndarray] | None = None

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """The numbers. Raises RecordErrors: some are no pictures; MemoryError: ask for fewer at a time."""
        contents = records.column(0)
        size = 8 * self._decoder.width * len(contents)
        if size > MOST_FLOAT_BYTES and len(contents) > 1:
            msg = f"{len(contents)} pictures are {size:,} bytes of numbers, wanted at most {MOST_FLOAT_BYTES:,} at a time"
            raise MemoryError(msg)
        kept, self._kept = self._kept, None
        if kept is not None and kept[0].equals(contents):
            return self._batch(kept[1])
        matrix, bad = self._decoder.attempt(contents.to_pylist())
        if bad is not None:  # the others are asked for again at once, and need not be decoded twice
            rest = np.delete(np.arange(len(contents)), list(bad.rows))
            self._kept = (chosen_rows(contents, rest), matrix)
            raise bad
        return self._batch(matrix)

    def explain(self) -> list[str]:
        """How pictures are prepared."""
        return [self._said]

    def _batch(self, matrix: np.ndarray) -> pa.RecordBatch:
        numbers = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), type=self._field.type)
        return pa.RecordBatch.from_arrays([numbers], schema=self.signature.outputs)


class Pictured:
    """A model that takes numbers, behind the preparation that its package declares."""

    def __init__(self, recipe: Pictures, model: Model) -> None:
        self._pictures, self._model = PicturesModel(recipe), model
        self.signature = replace(model.signature, inputs=self._pictures.signature.inputs)

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """Answer a batch of pictures. Raises what `PicturesModel.infer` raises."""
        return self._model.infer(conform(self._pictures.infer(records), self._model.signature.inputs))

    def explain(self) -> list[str]:
        """How pictures are prepared, and what runs."""
        said = self._model.explain() if isinstance(self._model, Explains) else []
        return [*said, *self._pictures.explain()]

    def example(self) -> pa.RecordBatch:
        """Two black pictures of one pixel: the record in the package is numbers."""
        black = encoded(pillow(), np.zeros((1, 1, 1), np.uint8))
        return pa.RecordBatch.from_arrays([pa.array([black, black])], schema=self.signature.inputs)


@dataclass(frozen=True)
class Png(_Recipe):
    r"""Numbers become PNG: field `x`, a list of numbers per record, to field `png`, bytes.

    `pixel = number * scale + mean`, rounded and cut to 0 to 255: what `Pictures` does with the same arguments, backwards.
    For models that answer pictures: `Chain(Pictures(...), Selected(model, {"x": "its answer"}), Png(...))`. Needs
    `pip install 'mlinfer[images]'`.

    Args:
        size: width and height, in pixels.
        mode: `L` (grey), `RGB` or `RGBA`.
        mean: what is added after `scale`: one number, or one per channel.
        scale: what is multiplied by: 255 if the numbers go from 0 to 1.
        layout: as the model answers: `HWC` or `CHW`.

    >>> with Png((2, 1), mode="L", scale=255).open() as model:
    ...     answers = model.infer(pa.record_batch({"x": pa.array([[0.0, 1.0]], pa.list_(pa.float64(), 2))}))
    >>> answers.column("png")[0].as_py()[:4]
    b'\x89PNG'
    """

    @contextmanager
    def open(self) -> Iterator[PngModel]:
        """Ready to encode. Raises ConfigError: Pillow is not installed, or this is no recipe."""
        yield PngModel(self)


class PngModel:
    """Encodes batches."""

    def __init__(self, recipe: Png) -> None:
        self._recipe = recipe
        answered = pa.field("png", pa.binary(), nullable=False)
        self.signature = recipe._signature(recipe._numbers_field(), answered)  # noqa: SLF001 - the recipe's own session
        self._pillow = pillow()

    def infer(self, records: pa.RecordBatch) -> pa.RecordBatch:
        """One PNG per record."""
        numbers = as_numpy(records.column(0))
        answers = pa.array([self._png(row) for row in numbers], pa.binary())
        return pa.RecordBatch.from_arrays([answers], schema=self.signature.outputs)

    def explain(self) -> list[str]:
        """How the picture is made."""
        return [repr(self._recipe)]

    def _png(self, numbers: np.ndarray) -> bytes:
        (width, height), channels = self._recipe.size, CHANNELS[self._recipe.mode]
        if self._recipe.layout == "CHW":
            shaped = np.moveaxis(numbers.reshape(channels, height, width), 0, 2)
        else:
            shaped = numbers.reshape(height, width, channels)
        pixels = np.rint(shaped * np.asarray(self._recipe.scale) + self._recipe.mean).clip(0, 255)
        return encoded(self._pillow, pixels.astype(np.uint8))


def _fraction(number: Any) -> Any:
    return float(number) if type(number) is int else number


def _whole(found: Any, *, count: int, least: int, most: int) -> bool:
    """Whether this is a tuple of so many whole numbers within bounds."""
    return (
        isinstance(found, tuple)
        and len(found) == count
        and all(isinstance(one, int) and least <= one <= most for one in found)
    )


def _numbers(found: Any, channels: int) -> bool:
    """Whether this is a finite number, or one for each channel."""
    try:
        values = np.ravel(np.asarray(found))
    except ValueError:  # numpy's, for lists of several lengths
        return False
    return values.dtype.kind in "iuf" and len(values) in {1, channels} and bool(np.isfinite(values).all())
