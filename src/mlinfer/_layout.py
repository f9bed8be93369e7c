"""Which columns are read, which the model sees, and what arrives at the destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import pyarrow as pa
import pyarrow.types as pt

from mlinfer._conform import Conform
from mlinfer._errors import ConfigError, SchemaError
from mlinfer._lineage import chosen
from mlinfer._signature import Signature

Keep: TypeAlias = Sequence[str] | Mapping[str, pa.DataType]
"""Source columns that travel to the destination as the source reads them: names, or names with types where the source knows none."""


@dataclass(frozen=True)
class Layout:
    """The columns of one pipeline: `wanted` of the source, `output` to the destination."""

    signature: Signature
    keep: pa.Schema
    columns: Mapping[str, str]
    wanted: pa.Schema
    lineage: pa.Schema = field(default_factory=lambda: pa.schema([]))

    @cached_property
    def inputs(self) -> pa.Schema:
        """The columns that the model's inputs are taken from: fewer than these, where one column is for several."""
        places = dict.fromkeys(self.columns.get(name, name) for name in self.signature.inputs.names)
        return pa.schema([self.wanted.field(number) for number in range(len(places))])

    @cached_property
    def output(self) -> pa.Schema:
        """Kept columns first, then the answers, then where they come from."""
        return pa.schema([*self.keep, *self.signature.outputs, *self.lineage])


def lay_out(
    signature: Signature,
    known: pa.Schema | None,
    keep: Keep = (),
    columns: Mapping[str, str] | None = None,
    *,
    lineage: Sequence[str] = (),
    where: str = "the source",
) -> Layout:
    """Decide on the columns.

    `known` is the schema of the source that `where` names, None if it has none before it is read. Raises SchemaError when a column that is needed is missing or of another type, ConfigError when names clash.
    """
    columns = dict(columns or {})
    unknown = sorted(set(columns) - set(signature.inputs.names))
    if unknown:
        msg = f"columns: wanted names of the model's inputs ({', '.join(signature.inputs.names)}), found {', '.join(unknown)}"
        raise ConfigError(msg)
    kept = _kept(signature, known, keep, where)
    origin = _lineage(lineage, kept, signature)
    if known is not None:
        Conform(signature.inputs, columns).bind(known)
        Conform(kept).bind(known)
    wanted: dict[str, pa.Field] = {}
    for one in signature.inputs:  # of two that one column is for, the stricter
        name = columns.get(one.name, one.name)
        if name not in wanted or not one.nullable:
            wanted[name] = one
    fields = [field.with_name(name) for name, field in wanted.items()]
    more = [field for field in kept if field.name not in wanted]
    return Layout(signature, kept, columns, pa.schema([*fields, *more]), origin)


def _lineage(names: Sequence[str], kept: pa.Schema, signature: Signature) -> pa.Schema:
    found = chosen(names)
    for name in found.names:
        if name in kept.names or name in signature.outputs.names:
            what = "a kept column" if name in kept.names else "an answer of the model"
            msg = (
                f"lineage: {name!r} would bear the name of {what}; "
                f"rename that one (Mapped in front of the source, Selected around the host), or leave {name!r} out"
            )
            raise ConfigError(msg)
    return found


def _kept(signature: Signature, known: pa.Schema | None, keep: Keep, where: str) -> pa.Schema:
    fields = kept_fields(known, keep, where)
    taken = sorted(set(keep) & set(signature.outputs.names))
    if taken:
        msg = (
            f"keep: {', '.join(taken)} would bear the name of an answer of the model; "
            "rename the column in the source (Mapped), or do not keep it"
        )
        raise ConfigError(msg)
    return fields


def kept_fields(known: pa.Schema | None, keep: Keep, where: str) -> pa.Schema:
    """The columns to keep, with their types. Raises ConfigError: one has none; SchemaError: there is no such column."""
    if isinstance(keep, str):
        msg = f"keep: wanted a list of columns, found the text {keep!r}; write keep=[{keep!r}]"
        raise ConfigError(msg)
    return pa.schema([pa.field(name, _kept_type(name, known, keep, where)) for name in dict.fromkeys(keep)])


def _kept_type(name: str, known: pa.Schema | None, keep: Keep, where: str) -> pa.DataType:
    if isinstance(keep, Mapping):
        kind = keep[name]
        try:
            return _plain(pa.field(name, pa.type_for_alias(kind) if isinstance(kind, str) else kind).type)
        except (ValueError, TypeError) as error:
            msg = f"keep: wanted an Arrow type for {name!r}, or the name of one (string, int64, double, ...), found {kind!r}"
            raise ConfigError(msg) from error
    if known is None:
        msg = (
            f"keep: wanted the type of {name!r}, found nothing in {where} that tells it before it is read: it has no schema, "
            "or it is empty, or none of its first lines holds a record (in JSON lines each is one object, not a list or a part "
            f"of one); correct the input, or give the type: keep={{{name!r}: pa.string()}}"
        )
        raise ConfigError(msg)
    if (times := known.names.count(name)) != 1:
        found = f"{times} columns of that name" if times else "no such column"
        raise SchemaError(name, "a column to keep", found, f"columns there are: {', '.join(known.names)}")
    kind = known.field(name).type
    if pt.is_null(kind):
        msg = (
            f"keep: the first records of {where} do not tell the type of {name!r} (there are none, or it is empty in them, of "
            f"several types, or has numbers that fit no one type), so it needs one: keep={{{name!r}: pa.string()}}"
            " (in Python: numbers of JSON keep all their digits as pa.decimal128(38, 9))"
        )
        raise ConfigError(msg)
    return _plain(kind)


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pt.is_dictionary(kind) else kind
