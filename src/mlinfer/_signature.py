"""What a model takes and what it answers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._errors import ConfigError

FINITE = b"mlinfer.finite"
NONFINITE = b"mlinfer.nonfinite"
SPELLED = b"mlinfer.spelled"
WIDE = 32
"""Bits of the indices of a dictionary: with fewer, whether a value has room would hang on the other records of its batch."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The contract of a model: the fields it reads and the fields it answers.

    `inputs`: a field that is not nullable needs a value in every record (NaN counts as no value).
    `outputs`: a NaN or an infinity in an answer makes its record a reject unless the field is marked `nonfinite`.
    `digest` (hex) changes whenever the answers could: it decides whether stored progress still belongs to the model.

    >>> inputs = pa.schema([pa.field("age", pa.float64(), nullable=False)])
    >>> outputs = pa.schema([pa.field("risk", pa.float64(), nullable=False)])
    >>> first, second = (Signature(inputs, outputs, "risk", version) for version in ("1", "2"))
    >>> first.fingerprint() == second.fingerprint()
    False
    """

    inputs: pa.Schema
    outputs: pa.Schema
    model_id: str = "model"
    version: str = "0"
    digest: str = ""

    def __post_init__(self) -> None:
        for role, schema in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = schema.names
            if len(set(names)) != len(names):
                twice = sorted({name for name in names if names.count(name) > 1})
                msg = f"signature of {self.model_id!r}: {role} name a field twice: {', '.join(twice)}"
                raise ConfigError(msg)
        for field in self.inputs:
            if (index := _narrow(field.type)) is not None:
                msg = (
                    f"signature of {self.model_id!r}: input {field.name!r}: wanted a dictionary with indices of 32 bits or more, "
                    f"found {index}, which has no room for what a batch may hold; declare it with int32"
                )
                raise ConfigError(msg)
        for field in (*self.inputs, *self.outputs):
            if _has_empty(field.type):
                msg = (
                    f"signature of {self.model_id!r}: field {field.name!r}: wanted lists of a length above 0, found {field.type}; "
                    "declare the length that they have"
                )
                raise ConfigError(msg)
        if not self.outputs.names:
            msg = f"signature of {self.model_id!r}: wanted at least one output field, found none"
            raise ConfigError(msg)

    def fingerprint(self) -> str:
        """A digest of everything that changes answers: the model's bytes, its fields and their meaning."""
        parts = [self.model_id, self.version, self.digest, self.inputs.to_string(), self.outputs.to_string()]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _narrow(kind: pa.DataType) -> pa.DataType | None:
    """The type of indices into a dictionary, if it has room for fewer values than a batch for records."""
    if pt.is_dictionary(kind):
        return kind.index_type if kind.index_type.bit_width < WIDE else None
    inner = (kind.field(number).type for number in range(kind.num_fields))
    return next((found for one in inner if (found := _narrow(one)) is not None), None)


def _has_empty(kind: pa.DataType) -> bool:
    """Whether there are lists of the fixed length 0 in it, over which Arrow ends the process."""
    if pt.is_fixed_size_list(kind) and not kind.list_size:
        return True
    return any(_has_empty(kind.field(number).type) for number in range(kind.num_fields))


def finite(field: pa.Field) -> pa.Field:
    """Mark an input field: infinity is no value either, such a record is rejected."""
    return field.with_metadata({**(field.metadata or {}), FINITE: b"required"})


def nonfinite(field: pa.Field) -> pa.Field:
    """Mark an output field: NaN and infinity are meaningful answers (an interval without a bound)."""
    return field.with_metadata({**(field.metadata or {}), NONFINITE: b"allowed"})


def spelled(field: pa.Field) -> pa.Field:
    """The field, said to be spelled in the source: its type is what the texts there tell, and the texts can be had as well."""
    return field.with_metadata({**(field.metadata or {}), SPELLED: b"as text"})


def is_spelled(field: pa.Field) -> bool:
    """Whether the source can give the texts that it took for values of this type."""
    return SPELLED in (field.metadata or {})


def needs_finite(field: pa.Field) -> bool:
    """Whether an input field refuses infinity."""
    return (field.metadata or {}).get(FINITE) == b"required"


def allows_nonfinite(field: pa.Field) -> bool:
    """Whether an output field may hold NaN and infinity."""
    return (field.metadata or {}).get(NONFINITE) == b"allowed"
