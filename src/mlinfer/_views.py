"""Texts and bytes in views, of which Arrow cannot choose some: as plain ones, however deep they lie."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt


def without_views(array: pa.Array) -> pa.Array:
    """The same values in a layout of which Arrow can choose some."""
    kind = array.type
    if not kind.num_fields and pt.is_primitive(kind):
        return array
    plain = without_view(kind)
    return array if plain == kind else array.cast(plain)


def without_view(kind: pa.DataType) -> pa.DataType:
    """The type with plain texts and bytes in the place of views."""
    if pt.is_string_view(kind):
        return pa.large_string()
    if pt.is_binary_view(kind):
        return pa.large_binary()
    if pt.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_view(kind.value_type), kind.ordered)
    if pt.is_struct(kind):
        return pa.struct([_inner(field) for field in kind])
    if pt.is_map(kind):
        return pa.map_(_inner(kind.key_field), _inner(kind.item_field), kind.keys_sorted)
    if pt.is_fixed_size_list(kind):
        return pa.list_(_inner(kind.value_field), kind.list_size)
    if pt.is_large_list(kind):
        return pa.large_list(_inner(kind.value_field))
    return pa.list_(_inner(kind.value_field)) if pt.is_list(kind) else kind


def _inner(field: pa.Field) -> pa.Field:
    return field.with_type(without_view(field.type))
