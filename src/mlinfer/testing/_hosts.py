"""The checks for hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from mlinfer import (
    Host,
    InfersArrays,
    Model,
    SideTables,
    Signature,
    Stateful,
    chosen_rows,
    to_arrow,
)
from mlinfer.testing._asking import (
    HostCase,
    answer_or_name,
    arrays,
    check_form,
    check_large,
    compare,
    compare_unordered,
    odd_values,
    plain,
    turned,
    values,
    with_null,
)
from mlinfer.testing._copies import another
from mlinfer.testing._earned import SOURCES, Destination, planned
from mlinfer.testing._kit import Check, Skip, expect, trials
from mlinfer.testing._recipes import check_lets_go, check_passes_errors_on, check_recipe
from mlinfer.testing._sharing import check_shared


def check_host(
    factory: Callable[[], Host], example: Any, *, expected_failures: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Check]]:
    """Checks for a host, as pairs of a name and a check.

    Args:
        factory: makes the host.
        example: at least three records that it can answer, with the columns of its signature: a table, data frame, dict
            of columns or list of dicts; best with answers that differ.
        expected_failures: names of checks that fail, each with the reason; one that passes is an error.

    Raises:
        AssertionError: the example does not serve. ConfigError: `expected_failures` names no check.
    """
    table = to_arrow(example)
    enough = 3
    expect(len(table) >= enough, f"an example of at least {enough} records", len(table), "give a few more")
    yield from trials(_CHECKS, HostCase(factory, table), expected_failures, _sum_up)


def _recipe(case: HostCase, _: Path) -> None:
    host = case.factory()
    expect(
        isinstance(host.shared, bool),
        "shared to be True or False",
        repr(host.shared),
        "say whether threads may share it",
    )
    check_recipe(host)


def _signature(case: HostCase, _: Path) -> None:
    host = case.factory()
    with host.open() as model, another(host).open() as again:
        first, second = model.signature, again.signature
        expect(
            isinstance(first, Signature), "a mlinfer.Signature", type(first).__name__, "make one in open()"
        )
        same = first == second and first.fingerprint() == second.fingerprint()
        expect(
            same,
            f"the same signature each time, {first}",
            second,
            "make the digest from what changes answers",
        )
        case.inputs(first)
        model.infer(case.inputs(first))
        expect(
            model.signature == first,
            "a signature that stays",
            model.signature,
            "do not change it while answering",
        )


def _answers(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        inputs = case.inputs(model.signature)
        answers = model.infer(inputs)
        check_form(answers, model.signature, len(inputs))


def _empty(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        check_form(model.infer(case.inputs(model.signature).slice(0, 0)), model.signature, 0)


def _again(case: HostCase, _: Path) -> None:
    host = case.factory()
    with host.open() as model:
        answers = model.infer(case.inputs(model.signature))
        first = values(answers)
        if not isinstance(model, Stateful):
            second = values(model.infer(case.inputs(model.signature)))
            compare(
                second,
                first,
                "the same answers when it is asked again",
                "keep no count, draw no unseeded numbers",
            )
        model.infer(turned(case.inputs(model.signature)))
        advice = "give each batch memory of its own: a run writes one batch while the model answers the next"
        compare(values(answers), first, "answers that stay as they are when the model is asked again", advice)
    with another(host).open() as model:
        third = values(model.infer(case.inputs(model.signature)))
    compare(
        third,
        first,
        "the same answers when it is opened again",
        "load the same model, seed what draws numbers",
    )


def _split(case: HostCase, _: Path) -> None:
    """Answers do not depend on who else is in the batch; their order is the business of `order`."""
    with case.factory().open() as model:
        inputs = case.inputs(model.signature)
    whole = _asked(case, [len(inputs)])
    count = len(inputs)
    for sizes in ([1] * count, [count - 1, 1], [count // 2, count - count // 2]):
        compare_unordered(_asked(case, sizes), whole, f"the same answers in batches of {sizes}")


def _asked(case: HostCase, sizes: Sequence[int]) -> list[Any]:
    """The answers of a model just opened to the example, cut into batches."""
    found: list[Any] = []
    with case.factory().open() as model:
        inputs, start = case.inputs(model.signature), 0
        for size in sizes:
            found += values(model.infer(inputs.slice(start, size)))
            start += size
    return found


def _order(case: HostCase, _: Path) -> str | None:
    with case.factory().open() as model:
        if isinstance(model, Stateful):
            msg = "the model remembers earlier records, so their order matters to it"
            raise Skip(msg)
        whole = values(model.infer(case.inputs(model.signature)))
        count = len(case.example)
        for order in (list(range(count))[::-1], [*range(1, count), 0]):
            found = values(model.infer(chosen_rows(case.inputs(model.signature), order)))
            if len(found) == len(whole) == count:  # else it is the business of `answers` or `split`
                advice = (
                    "answer row by row; never sort, group or join without bringing the rows back in order"
                )
                compare(found, [whole[n] for n in order], "the answers in the order of the records", advice)
        return check_large(case, model, whole) if len(whole) == count else None


def _read_only(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        inputs, untouched = case.inputs(model.signature), case.inputs(model.signature)
        model.infer(inputs)
        same = repr(values(inputs)) == repr(values(untouched))  # as texts: NaN is not equal to itself
        advice = "work on a copy: the records may be asked for again, and kept columns share their memory"
        expect(same, "records that stay as they were", "that infer() changed them in place", advice)
        if isinstance(model, InfersArrays):
            columns = arrays(inputs)
            for array in columns.values():
                array.flags.writeable = False
            model.infer_arrays(columns)


def _arrays_too(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        if not isinstance(model, InfersArrays) or isinstance(model, Stateful):
            msg = "the model has no infer_arrays(), or it has a memory"
            raise Skip(msg)
        inputs = case.inputs(model.signature)
        found = model.infer_arrays(arrays(inputs))
        names = model.signature.outputs.names
        there = set(names) <= found.keys()
        expect(there, f"arrays for the answers {names}", sorted(found), "name them as the signature does")
        rows = zip(*(list(found[name]) for name in names), strict=True)
        told = [plain(dict(zip(names, row, strict=True))) for row in rows]
        advice = "compute both by one function"
        compare(told, values(model.infer(inputs)), "infer_arrays() to answer like infer()", advice)


def _nulls(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        nullable = [field.name for field in model.signature.inputs if field.nullable]
        if not nullable:
            msg = "every input needs a value"
            raise Skip(msg)
        inputs = case.inputs(model.signature)
        for name in nullable:
            answer_or_name(model, with_null(inputs, name), f"a null in {name!r}, which the signature allows")


def _extremes(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        inputs = case.inputs(model.signature)
        for place, field in enumerate(model.signature.inputs):
            for value in odd_values(field.type):
                column = pa.array([value, *inputs.column(place).to_pylist()[1:]], field.type)
                answer_or_name(
                    model, inputs.set_column(place, field, column), f"the value {value!r} in {field.name!r}"
                )


def _memory(case: HostCase, _: Path) -> None:
    host = case.factory()
    with host.open() as model, another(host).open() as following:
        successor: Any = following  # that it can restore, is what the first one shows
        if not isinstance(model, Stateful):
            msg = "the model has no memory"
            raise Skip(msg)
        half = len(case.example) // 2
        model.infer(case.inputs(model.signature).slice(0, half))
        state = model.snapshot()
        expect(isinstance(state, bytes), "a snapshot of bytes", type(state).__name__, "encode it")
        wanted = _second(case, model, half)
        model.restore(state)
        compare(
            _second(case, model, half),
            wanted,
            "the same answers after restore()",
            "put everything into the snapshot",
        )
        successor.restore(state)
        found = _second(case, successor, half)
        compare(
            found,
            wanted,
            "the same answers from a successor that restores",
            "put everything into the snapshot",
        )


def _second(case: HostCase, model: Model, half: int) -> list[Any]:
    return values(model.infer(case.inputs(model.signature).slice(half)))


def _side_tables(case: HostCase, _: Path) -> None:
    with case.factory().open() as model:
        if not isinstance(model, SideTables):
            msg = "the model reports no tables"
            raise Skip(msg)
        schemas = model.side_schemas()
        model.infer(case.inputs(model.signature))
        for name, table in model.drain().items():
            expect(name in schemas, f"tables among {sorted(schemas)}", name, "name it in side_schemas()")
            expect(
                table.schema.equals(schemas[name]), f"{name!r} as {schemas[name]}", table.schema, "cast it"
            )
        left = {name: len(table) for name, table in model.drain().items() if len(table)}
        expect(not left, "nothing more to drain right after drain()", left, "hand each table over once")


def _closing(case: HostCase, _: Path) -> None:
    host = case.factory()

    def use() -> None:
        with host.open() as model:
            model.infer(case.inputs(model.signature))

    check_lets_go("a session", use)
    check_passes_errors_on(host.open)


_CHECKS = {
    "recipe": _recipe,
    "signature": _signature,
    "answers": _answers,
    "empty": _empty,
    "again": _again,
    "split": _split,
    "order": _order,
    "shared": check_shared,
    "read_only": _read_only,
    "arrays": _arrays_too,
    "nulls": _nulls,
    "extremes": _extremes,
    "memory": _memory,
    "side_tables": _side_tables,
    "closing": _closing,
}


def _sum_up(case: HostCase, failures: Mapping[str, AssertionError]) -> str:
    host = case.factory()
    other = [name for name in failures if name not in {"recipe", "closing"}]
    expect(
        not other,
        f"that {host!r} answers a record the same whenever it is asked, as every guarantee needs it",
        f"that it fails: {', '.join(other)}",
        "mend that",
    )
    found = planned(SOURCES["from a source that can seek"], Destination(transactional=True))
    return f"{host!r} has earned\n  from a source that can seek into a transactional destination: {found}"
