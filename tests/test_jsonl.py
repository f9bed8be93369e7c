"""JSON lines in and out: strict by line, positions that survive growth, the same with and without orjson."""

import gzip
import json
import math
import sys
from decimal import Decimal
from functools import partial
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reading
from mlinfer import (
    Batch,
    ChangedError,
    ComponentError,
    ConfigError,
    InferencePipeline,
    MlinferError,
    SchemaError,
    Scope,
)
from mlinfer._conform import Conform
from mlinfer.destinations import CsvDestination, JsonLinesDestination, MemoryDestination
from mlinfer.destinations._jsonl import json_lines
from mlinfer.hosts import FunctionHost
from mlinfer.sources import JsonLinesSource, _text_files
from mlinfer.sources._json_decode import NotARecord, decode, decode_line, fastest

CORPORA = Path(__file__).parents[2] / "shared/corpora"
X = pa.schema([pa.field("x", pa.float64())])
batches = partial(reading.batches, wanted=X)
written = partial(reading.written, name="a.jsonl")
ORJSON = orjson.loads


def standard_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "orjson", None)
    loads = fastest()
    monkeypatch.undo()
    return loads


def rows(found):
    return [row for batch in found for row in batch.records.to_pylist()]


@pytest.fixture(params=["orjson", "json"])
def library(request, monkeypatch):
    """With and without orjson."""
    if request.param == "json":
        monkeypatch.setitem(sys.modules, "orjson", None)
    return request.param


# --- lines ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{", "not JSON at character 2"),
        (b"[1]", "found a list"),
        (b'"x"', "found a text"),
        (b"17", "found a number"),
        (b"null", "found null"),
        (b"true", "found true or false"),
        (b'{"x": NaN}', "found NaN"),
        (b'{"x": -Infinity}', "found -Infinity"),
        (b'{"x": 1e999}', "too large"),
        (b'{"x": 1, "x": 2}', "found one twice"),
        (b'{"y" :1, "x": {"z" \t: 1, "z": 2}}', "found one twice"),
        (b'{"x" :1, "x": 2}', "found one twice"),
        (b'{"y": "\xff"}', "byte 0xff at byte 8"),
        (b'{"y": "\\ud800"}', "surrogate"),
        (b'{"y": ' + b"[" * 32 + b"]" * 32 + b"}", "levels of nesting"),
        (b'{"y": ' + b"[" * 5000 + b"]" * 5000 + b"}", "levels of nesting"),
        (b'{"x": 1}, {"x": 2}', "not JSON at character 9"),
        (b'{"x": 1} {"x": 2}', "not JSON at character 10"),
        (b"\xef\xbb\xbf{}", "not JSON at character 1"),
    ],
)
def test_a_line_that_is_no_record_is_named_with_its_number_and_reason(line, why, tmp_path, library):
    source = JsonLinesSource(written(tmp_path, b'{"x": 1}\n' + line + b'\n{"x": 3, "y": "a:b"}\n'))
    (batch,) = batches(source)
    assert batch.records.column("x").to_pylist() == [1, 3]
    assert batch.ids.array().to_pylist() == ["a.jsonl#1", "a.jsonl#3"]
    (bad,) = batch.bad
    assert (bad.id, bad.kind, bad.raw) == ("a.jsonl#2", "undecodable", line)
    assert bad.message.startswith("line 2: ")
    assert why in bad.message


def test_a_field_of_the_wrong_type_costs_its_line_alone(tmp_path):
    content = b'{"x": 1}\n{"x": "2"}\n{"x": true}\n{"x": [3]}\n{"x": null}\n{}\n'
    (batch,) = batches(JsonLinesSource(written(tmp_path, content)))
    assert batch.records.column("x").to_pylist() == [1, None, None]
    assert [(bad.id, bad.kind) for bad in batch.bad] == [(f"a.jsonl#{n}", "wrong_type") for n in (2, 3, 4)]
    assert batch.bad[0].message == "line 2: field 'x': wanted double, found '2'"


def test_lines_that_are_no_records_cannot_join_to_look_like_some(tmp_path):
    tricks = [b"{},{}", b'{"x":[{}', b"{}]}", b'{},0,{"a":"x', b'"}', b'{"a":1', b'"b":2}']
    (batch,) = batches(JsonLinesSource(written(tmp_path, b"\n".join(tricks) + b"\n")))
    assert batch.records.num_rows == 0
    assert [bad.raw for bad in batch.bad] == tricks
    for trick in (b'{},7,{"x":2}', b'{}, {}, {"x":3}', b'{"x":[{}\n{}]},7,{}'):
        (batch,) = batches(JsonLinesSource(written(tmp_path, b'{"x":1}\n' + trick + b"\n")))
        assert batch.records.column("x").to_pylist() == [1]
        assert [bad.raw for bad in batch.bad] == trick.split(b"\n")


def test_keys_are_counted_right_whatever_the_texts_hold(tmp_path):
    texts = ["a:b", '":', '{"k":1}', '\\":', "12:00:00", "[[{{", "", ' "a" : "b" ']
    lines = [json.dumps({"x": 1, "text": text, "deep": [{"a": {"b": text}}, []]}).encode() for text in texts]
    source = JsonLinesSource(written(tmp_path, b"\n".join(lines)))
    found = list(batches(source, wanted=pa.schema([("text", pa.string())])))
    assert [row["text"] for row in rows(found)] == texts
    assert not any(batch.bad for batch in found)


@pytest.mark.parametrize(
    "content",
    [
        b'\xef\xbb\xbf{"x": 1}\n{"x": 2}\n',
        b'{"x": 1}\r\n{"x": 2}\r\n',
        b'{"x": 1}\n\n  \r\n{"x": 2}',
        b'\n{"x" : 1}\n{"x"\t:\t2}\n\n',
    ],
)
def test_marks_line_ends_and_empty_lines_do_not_matter(content, tmp_path):
    for size in (1, 2, 1000):
        found = list(batches(JsonLinesSource(written(tmp_path, content)), size=size))
        assert [row["x"] for row in rows(found)] == [1, 2]
        assert not any(batch.bad for batch in found)


def test_an_empty_file_has_no_records_and_no_schema(tmp_path):
    source = JsonLinesSource(written(tmp_path, b""))
    assert source.schema() is None
    assert list(batches(source)) == []


def test_large_integers_are_floats_and_never_other_integers(tmp_path):
    source = JsonLinesSource(written(tmp_path, b'{"x": 18446744073709551616}\n{"x": 9007199254740993}\n'))
    first, second = rows(batches(source, size=1))
    assert first == {"x": 2.0**64}
    assert second == {"x": 9007199254740993}


def test_integers_beyond_64_bits_keep_every_digit_where_a_type_can_hold_them(tmp_path, library):
    numbers = [10**29 + 1, 10**29 + 2, 2**53 + 1, -(10**37), 2**64]
    content = b"".join(b'{"x": %d, "y": 0, "list": [%d]}\n' % (number, number) for number in numbers)
    source = JsonLinesSource(written(tmp_path, content, name="a.jsonl"), id_column="x")
    assert source.schema().field("x").type == pa.null()
    wanted = pa.schema([("x", pa.decimal128(38, 0))])
    found = list(batches(source, wanted=wanted))
    assert [int(row["x"]) for row in rows(found)] == numbers
    assert reading.ids(found) == list(map(str, numbers))
    assert [row["x"] for row in rows(batches(source))] == list(map(float, numbers))
    lists = pa.schema([("list", pa.list_(pa.float64()))])
    assert [row["list"] for row in rows(batches(source, wanted=lists))] == [[float(one)] for one in numbers]
    (batch,) = batches(source, wanted=pa.schema([("x", pa.int64())]))
    assert rows([batch]) == [{"x": 2**53 + 1}]
    assert f"wanted int64, found {10**29 + 1}" in batch.bad[0].message


def test_large_ids_arrive_as_they_were_written_and_need_a_type_for_it(tmp_path):
    numbers = [10**29 + 1, 10**29 + 2, 2**53 + 1]
    content = "".join(f'{{"id": {number}, "x": 1}}\n' for number in numbers).encode()
    source, out = JsonLinesSource(written(tmp_path, content)), tmp_path / "out.csv"
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")

    def run(keep):
        return InferencePipeline(source, host, CsvDestination(out), name="p", keep=keep).run().delivered

    with pytest.raises(MlinferError, match=r"'id'"):
        run(["id"])
    assert run({"id": pa.decimal128(38, 0)}) == 3
    assert [line.split(",")[0].strip('"') for line in out.read_text().splitlines()[1:]] == list(
        map(str, numbers)
    )


def test_integers_that_no_float_holds_beside_fractions_need_a_type_to_be_kept(tmp_path):
    source = JsonLinesSource(written(tmp_path, b'{"n": 1.5, "x": 1}\n{"n": 9007199254740993, "x": 1}\n'))
    out = tmp_path / "out.csv"
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")

    def run(keep):
        return InferencePipeline(source, host, CsvDestination(out), name="p", keep=keep).run().delivered

    with pytest.raises(ConfigError, match=r"'n' .* has numbers that fit no one type.* pa.decimal128"):
        run(["n"])
    assert not out.exists()
    assert run({"n": pa.decimal128(38, 9)}) == 2
    assert [line.split(",")[0].strip('"') for line in out.read_text().splitlines()[1:]] == [
        "1.500000000", "9007199254740993.000000000",
    ]  # fmt: skip
    exact = written(tmp_path, b'{"n": 1.5}\n{"n": 9007199254740992}\n', name="exact.jsonl")
    assert JsonLinesSource(exact).schema() == pa.schema([("n", pa.float64())])


def test_fractions_keep_every_digit_where_a_decimal_is_wanted(tmp_path, library):
    """A float in between made 12345678901.123456955 of the first."""
    spelled = ["12345678901.123456789", "123456789012345678901234567.5", "-0.10", "1.5e-3", "7"]
    content = "".join(f'{{"n": {one}, "x": {one}}}\n' for one in [*spelled, "0.1234567891"])
    source = JsonLinesSource(written(tmp_path, content.encode()))
    wanted = pa.schema([("n", pa.decimal128(38, 9)), ("x", pa.float64())])
    (batch,) = batches(source, wanted=wanted)
    assert [row["n"] for row in rows([batch])] == list(map(Decimal, spelled))
    assert [row["x"] for row in rows([batch])] == list(map(float, spelled))
    assert "line 6: field 'n': wanted decimal128(38, 9), found" in batch.bad[0].message


def test_decimals_in_lists_objects_and_maps_have_every_digit_too(tmp_path, library):
    spelled = ["12345678901.123456789", "-0.10", "123456789012345678901234567", "null"]
    content = "".join(
        f'{{"n": [0.5, {one}], "m": {{"k": {one}}}, "o": {{"a": [{one}], "b": {one}, "c": 1}}}}\n'
        for one in spelled
    )
    source = JsonLinesSource(written(tmp_path, f'{content}{{"n": [0.1234567891]}}\n'.encode()))
    decimals = pa.list_(pa.decimal128(38, 9))
    object_, map_ = (
        pa.struct([("a", decimals), ("b", pa.float64())]),
        pa.map_(pa.string(), decimals.value_type),
    )
    wanted = pa.schema([("n", decimals), ("o", object_), ("m", map_)])
    (batch,) = batches(source, wanted=wanted)
    exact = [None if one == "null" else Decimal(one) for one in spelled]
    assert [row["n"] for row in rows([batch])] == [[Decimal("0.5"), one] for one in exact]
    assert [row["m"] for row in rows([batch])] == [[("k", one)] for one in exact]
    assert [row["o"]["a"] for row in rows([batch])] == [[one] for one in exact]
    assert [row["o"]["b"] for row in rows([batch])] == [None if one is None else float(one) for one in exact]
    assert [bad.place for bad in batch.bad] == [4]


@pytest.mark.parametrize(
    "number", ["1E-99999999999999999999", "0e99999999999999999999", "1e-999999999999999"]
)
def test_a_fraction_beyond_every_exponent_costs_its_own_record_alone(tmp_path, library, number):
    """Python's decimals refuse it, which ended the run; as a float it is 0."""
    content = f'{{"n": 1.5}}\n{{"n": {number}}}\n{{"n": 2.5, "x": {number}}}\n{{"l": [{number}]}}\n'
    decimal = pa.decimal128(38, 9)
    wanted = pa.schema([("n", decimal), ("l", pa.list_(decimal)), ("x", pa.float64())])
    (batch,) = batches(JsonLinesSource(written(tmp_path, content.encode())), wanted=wanted)
    assert [(row["n"], row["x"]) for row in rows([batch])] == [(Decimal("1.5"), None), (Decimal("2.5"), 0)]
    assert [(bad.place, bad.kind) for bad in batch.bad] == [(1, "wrong_type"), (3, "wrong_type")]


def test_a_line_longer_than_memory_allows_is_skipped(tmp_path, monkeypatch):
    for module in (_text_files, sys.modules["mlinfer.sources._jsonl"]):
        monkeypatch.setattr(module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(_text_files, "CHUNK_BYTES", 300)
    long = b'{"x": "' + b"y" * 5000 + b'"}'
    allowed = b'{"x": 2, "y": "' + b"y" * 900 + b'"}'
    content = b'{"x": 1}\n' + long + b"\n" + allowed + b"\n" + long
    found = list(batches(JsonLinesSource(written(tmp_path, content))))
    assert [row["x"] for row in rows(found)] == [1, 2]
    bad = [bad for batch in found for bad in batch.bad]
    assert [one.id for one in bad] == ["a.jsonl#2", "a.jsonl#4"]
    assert bad[0].message == "line 2: wanted at most 1000 bytes, found a longer line"
    assert found[-1].position["offset"] == len(content)


# --- the two libraries ---------------------------------------------------------------------------------------------------


def meaning(line, loads):
    """What a line means with a library: its row, or why it has none."""
    found, _, wrong = decode(line, loads)
    return (found, wrong)


def strict(line):
    try:
        return ([decode_line(line)], []) if line.strip() else ([], [])
    except NotARecord as error:
        return ([], [(0, str(error))])


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not beside this checkout")
@pytest.mark.parametrize("wrapped", [False, True])
def test_json_test_suite_is_judged_right_and_the_same_by_both_libraries(wrapped, monkeypatch):
    standard = standard_library(monkeypatch)
    files = sorted((CORPORA / "json").glob("*.json"))
    assert len(files) > 200
    for file in files:
        content = file.read_bytes().replace(b"\n", b" ")
        line = b'{"value": ' + content + b"}" if wrapped else content
        with_orjson, without = meaning(line, ORJSON), meaning(line, standard)
        assert repr(with_orjson) == repr(without), file.name
        found, wrong = with_orjson
        twice = "duplicated_key" in file.name  # valid by the grammar, refused on purpose
        if file.name.startswith("y_") and wrapped and not twice:
            assert found, (file.name, wrong)
        if (
            file.name.startswith("n_") and content.strip() and b"\n" not in file.read_bytes().strip()
        ) or twice:
            assert not found, file.name


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), json_values, max_size=4), st.booleans(), st.data())
def test_both_libraries_read_the_same_out_of_any_line(value, ascii_only, data):
    line = bytearray(json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace"))
    if data.draw(st.booleans(), label="damaged"):
        place = data.draw(st.integers(0, len(line) - 1))
        line[place : place + 1] = data.draw(
            st.sampled_from([b"", b'"', b",", b"{", b"\\", b"\xff", b"0", b" :"])
        )
    line = bytes(line).replace(b"\n", b" ")
    with pytest.MonkeyPatch.context() as patch:
        standard = standard_library(patch)
    expected = repr(strict(line))
    assert repr(meaning(line, ORJSON)) == expected
    assert repr(meaning(line, standard)) == expected


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["x", "text"]), st.none() | st.integers(0, 9)),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([b"{", b"[]", b'{"x":1,"x":1}', b'{"x":"no"}', b'{"x":NaN}', b"\xff", b'{"x":1}{"x":2}']),
    st.data(),
)
def test_one_bad_line_anywhere_is_the_only_bad_one_whatever_is_read_at_once(
    tmp_path_factory, objects, bad, data
):
    lines = [json.dumps(value).encode() for value in objects]
    place = data.draw(st.integers(0, len(lines)))
    lines.insert(place, bad)
    path = written(tmp_path_factory.mktemp("bad"), b"\n".join(lines) + b"\n")
    found = list(batches(JsonLinesSource(path), size=data.draw(st.integers(1, 40))))
    assert [row["x"] for row in rows(found)] == [value.get("x") for value in objects]
    assert [one.id for batch in found for one in batch.bad] == [f"a.jsonl#{place + 1}"]
    ids = [one for batch in found for one in batch.ids.array().to_pylist()]
    assert ids == [f"a.jsonl#{n + 1}" for n in range(len(lines)) if n != place]


# --- schema and ids ------------------------------------------------------------------------------------------------------


def test_the_schema_is_what_most_values_are(tmp_path):
    lines = [{"i": 1, "f": 1, "s": "a", "b": True, "l": [1.5], "n": None, "big": 2**63}] * 9
    lines += [{"i": "oops", "f": 1.5, "late": "x"}, [], "junk"]
    path = written(tmp_path, "\n".join(map(json.dumps, lines)).encode())
    kinds = {field.name: str(field.type) for field in JsonLinesSource(path).schema()}
    assert kinds == {
        "i": "int64", "f": "double", "s": "string", "b": "bool", "l": "list<item: double>", "n": "null",
        "big": "uint64", "late": "string",
    }  # fmt: skip


def test_ids_come_from_the_named_field(tmp_path):
    path = written(tmp_path, b'{"x": 1, "id": "a"}\n{"x": "bad", "id": "b"}\n{"x": 3}\n{"x": 4, "id": 17}\n')
    for size in (1, 2, 10):
        found = list(batches(JsonLinesSource(path, id_column="id"), size=size))
        assert [one for batch in found for one in batch.ids.array().to_pylist()] == ["a", "a.jsonl#3", "17"]
        assert [bad.id for batch in found for bad in batch.bad] == ["b"]


# --- positions -----------------------------------------------------------------------------------------------------------


def test_a_misspelt_name_of_the_ids_is_told_with_the_fields_there_are(tmp_path):
    source = JsonLinesSource(written(tmp_path, b'{"x": 1, "id": "a"}\n'), id_column="idd")
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy")
    with pytest.raises(SchemaError, match=r"'idd': wanted the records' ids, found .*a\.jsonl; .* x, id$"):
        InferencePipeline(source, host, MemoryDestination(), name="p").run()


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_reading_goes_on_behind_every_position(ending, tmp_path):
    content = b'\xef\xbb\xbf{"x": 0}\r\n\n' + b"".join(b'{"x": %d}\n' % n for n in range(1, 6)) + b'{"x": 6}'
    path = written(tmp_path, packed(content, ending), name="a.jsonl" + ending)
    source = JsonLinesSource(path)
    for size in (1, 3):
        found = list(batches(source, size=size))
        for done, batch in enumerate(found):
            later = list(batches(source, batch.position))
            assert rows(found[: done + 1]) + rows(later) == [{"x": n} for n in range(7)]
            ids = [one for part in [*found[: done + 1], *later] for one in part.ids.array().to_pylist()]
            assert ids == [f"a.jsonl{ending}#{n}" for n in (1, 3, 4, 5, 6, 7, 8)]


def packed(content, ending):
    if ending == ".gz":
        return gzip.compress(content)
    if ending == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as out:
            out.write(content)
        return sink.getvalue().to_pybytes()
    return content


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_file_that_grew_goes_on_and_one_that_changed_does_not(ending, tmp_path):
    content = b"".join(b'{"x": %d}\n' % n for n in range(1000))
    path = written(tmp_path, packed(content, ending), name="a.jsonl" + ending)
    source = JsonLinesSource(path)
    *_, last = batches(source)
    path.write_bytes(packed(content + b'{"x": 1000}\n', ending))
    assert rows(batches(source, last.position)) == [{"x": 1000}]
    for other, what in [
        (content[:-9], "cut to"),
        (content.replace(b'{"x": 3}', b'{"x": 4}'), "replaced or changed"),
        (content.replace(b'{"x": 998}', b'{"x": 999}'), "replaced or changed"),
    ]:
        path.write_bytes(packed(other, ending))
        with pytest.raises(ChangedError, match=what):
            list(batches(source, last.position))


def test_a_last_line_that_grew_after_it_was_counted_is_noticed(tmp_path):
    path = written(tmp_path, b'{"x": 1}\n{"x": 2}')
    source = JsonLinesSource(path)
    *_, last = batches(source)
    for more, expected in [(b"", []), (b"\n", []), (b'\n{"x": 3}\n', [3]), (b'\r\n{"x": 3}\n', [3])]:
        path.write_bytes(b'{"x": 1}\n{"x": 2}' + more)
        found = list(batches(source, last.position))
        assert [row["x"] for row in rows(found)] == expected
        assert [one for batch in found for one in batch.ids.array().to_pylist()] == ["a.jsonl#3"] * len(
            expected
        )
    path.write_bytes(b'{"x": 1}\n{"x": 2}}\n')
    with pytest.raises(ChangedError, match="line 2 had no newline"):
        list(batches(source, last.position))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_file_ends_in_an_error_behind_its_good_lines(damage, tmp_path):
    import random

    dice = random.Random(1)
    lines = [b'{"x": %f}' % dice.random() for _ in range(20_000)]
    whole = bytearray(gzip.compress(b"\n".join(lines)))
    if damage == "cut":
        del whole[len(whole) // 2 :]
    else:
        whole[len(whole) // 2] ^= 255
    source = JsonLinesSource(written(tmp_path, bytes(whole), name="a.jsonl.gz"))
    found = []

    def read_all():
        for batch in batches(source):
            found.extend(row["x"] for row in batch.records.to_pylist())

    with pytest.raises(ComponentError, match=r"a\.jsonl\.gz: wanted to read on at byte \d+"):
        read_all()
    good = [json.loads(line)["x"] for line in lines]
    assert 5000 < len(found) < 15_000
    if damage == "cut":
        assert found == good[: len(found)]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_file_that_expands_beyond_all_bounds_is_refused(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(_text_files, "EXPANSION_FLOOR", 2**20)
    bomb = packed(b'{"x": 1}\n' * 2**19, ending)
    source = JsonLinesSource(written(tmp_path, bomb, name="a.jsonl" + ending))
    with pytest.raises(ComponentError, match="at most 100 bytes of text for each compressed byte"):
        list(batches(source))


def test_a_folder_is_followed_and_its_files_are_partitions(tmp_path):
    written(tmp_path, b'{"x": 1}\n', name="b.ndjson")
    source = JsonLinesSource(tmp_path, follow=True)
    assert not source.bounded
    assert JsonLinesSource(tmp_path).bounded
    assert list(source.partitions()) == ["b.ndjson"]
    written(tmp_path, b'{"x": 1}\n', name="a.jsonl.gz.part")
    written(tmp_path, b'{"x": 1}\n', name="a.json")
    assert list(source.partitions()) == ["a.json", "b.ndjson"]


def test_a_recipe_is_comparable_and_travels():
    import copyreg  # noqa: F401 - what a process pool would use

    from mlinfer.destinations import JsonLinesDestination as Out

    assert JsonLinesSource("a.jsonl") == JsonLinesSource("a.jsonl")
    assert hash(Out("a.jsonl")) == hash(Out("a.jsonl"))


# --- lines out -----------------------------------------------------------------------------------------------------------


def test_no_line_holds_what_json_does_not_know(tmp_path):
    values = [1.0, math.nan, math.inf, -math.inf, None, 1e300, -0.0, 1e10, 123456789012.5]
    batch = pa.record_batch({"x": values, "l": [[value] for value in values]})
    lines = bytes(json_lines(batch)).decode().splitlines()
    found = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    expected = [None if value is None or not math.isfinite(value) else value for value in values]
    assert [row["x"] for row in found] == expected
    assert [row["l"] for row in found] == [[value] for value in expected]
    assert lines[0] == '{"x":1.0,"l":[1.0]}'


@given(
    st.lists(
        st.tuples(st.none() | st.floats(), st.none() | st.floats(width=32), st.none() | st.text()),
        max_size=20,
    )
)
def test_any_numbers_and_texts_come_back_as_they_were(values):
    batch = pa.record_batch(
        {
            "d": pa.array([d for d, _, _ in values], pa.float64()),
            "f": pa.array([f for _, f, _ in values], pa.float32()),
            "t": pa.array([t for _, _, t in values], pa.string()).dictionary_encode(),
        }
    )
    text = bytes(json_lines(batch)).decode()
    found = [json.loads(line) for line in text.split("\n")[:-1]]
    fit = [(None if x is None or not math.isfinite(x) else x) for x, _, _ in values]
    assert [(row["d"], isinstance(row["d"], int)) for row in found] == [(x, False) for x in fit]
    singles = pa.array([row["f"] for row in found], pa.float64()).cast(pa.float32()).to_pylist()
    assert singles == [None if f is None or not math.isfinite(f) else f for _, f, _ in values]
    assert [row["t"] for row in found] == [t for _, _, t in values]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not beside this checkout")
def test_naughty_strings_go_out_and_come_in_unchanged(tmp_path):
    texts = json.loads((CORPORA / "naughty_strings.json").read_text())
    assert len(texts) > 500
    path = tmp_path / "naughty.jsonl"
    destination = JsonLinesDestination(path)
    schema = pa.schema([("text", pa.string())])
    with destination.open(schema, Scope("naughty", run="1")) as writer:
        writer.write(Batch(pa.record_batch({"text": texts}), "all", None))
        writer.commit(writer.committed())
    assert [json.loads(line)["text"] for line in path.read_bytes().split(b"\n")[:-1]] == texts
    found = list(batches(JsonLinesSource(path), wanted=schema))
    assert [row["text"] for row in rows(found)] == texts


@pytest.mark.parametrize("text", ['[{"id": 1, "x": 1.0}]', "[\n 1\n]", '{\n "id": 1\n}', "id,x\n1,2\n", ""])
def test_a_file_of_no_records_says_so_where_the_type_of_a_kept_column_is_asked(tmp_path, text):
    path = tmp_path / "in.json"
    path.write_text(text)
    host = FunctionHost(lambda x: x, {"x": pa.float64()}, {"y": pa.float64()}, "numpy")
    pipeline = InferencePipeline(JsonLinesSource(path), host, MemoryDestination(), name="p", keep=["id"])
    with pytest.raises(ConfigError) as raised:
        pipeline.check()
    assert "wanted the type of 'id', found nothing in JsonLinesSource" in str(raised.value)
    assert "in.json" in str(raised.value)
    assert "in JSON lines each is one object, not a list" in str(raised.value)


def test_a_pipeline_from_lines_to_lines_keeps_what_it_should(tmp_path):
    source = JsonLinesSource(
        written(tmp_path, b'{"id": 7, "x": 1}\n{"id": 8, "x": "no"}\n{"id": 9, "x": 2.5}\n')
    )
    host = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
    rejects = MemoryDestination()
    out = tmp_path / "out" / "answers.jsonl"
    pipeline = InferencePipeline(
        source,
        host,
        JsonLinesDestination(out),
        name="lines",
        keep=["id"],
        rejects=rejects,
        require="at-least-once",
    )
    pipeline.run()
    expected = [{"id": 7, "y": 2.0}, {"id": 9, "y": 5.0}]
    assert [json.loads(line) for line in out.read_text().splitlines()] == expected
    (reject,) = rejects.table("rejects").to_pylist()
    assert (reject["record_id"], reject["stage"], reject["raw"]) == (
        "a.jsonl#2",
        "decode",
        b'{"id": 8, "x": "no"}',
    )
    pipeline.run()
    assert [json.loads(line) for line in out.read_text().splitlines()] == expected


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (pa.float64(), [2**53 + 1, 0.5, 2**63, 2**64], [2.0**53, 0.5, 2.0**63, 2.0**64]),
        (pa.float32(), [2**53 + 1, 0.5, None], [2.0**53, 0.5, None]),
        (pa.int64(), [2**53 + 1, 1.0, 0.5, 2**63, None], [2**53 + 1, 1, "bad", "bad", None]),
        (pa.uint64(), [2**63, 1, -1, 2**64, 0.5], [2**63, 1, "bad", "bad", "bad"]),
    ],
)
def test_numbers_near_the_edge_of_their_type_are_exact_or_bad(kind, values, expected, tmp_path):
    path = written(tmp_path, b"".join(b'{"x": %s}\n' % json.dumps(value).encode() for value in values))
    (batch,) = batches(JsonLinesSource(path), wanted=pa.schema([("x", kind)]))
    fit = Conform(pa.schema([("x", kind)]))(batch.records)
    kept = range(len(batch)) if fit.good is None else fit.good.nonzero()[0].tolist()
    ids = batch.ids.take(kept).array().to_pylist()
    found = dict(zip(ids, fit.records.column("x").to_pylist(), strict=True))
    assert [found.get(f"a.jsonl#{n + 1}", "bad") for n in range(len(values))] == expected


def test_a_number_that_does_not_fit_is_refused_alike_alone_and_in_company(tmp_path):
    lines = [b'{"x": -0.5}\n', b'{"x": 9007199254740993}\n', b'{"x": 1e300}\n', b'{"x": 2.0}\n']
    source = JsonLinesSource(written(tmp_path, b"".join(lines)))
    for size in (1, 2, 4):
        found = list(batches(source, wanted=pa.schema([("x", pa.int64())]), size=size))
        assert [row["x"] for row in rows(found)] == [9007199254740993, 2]
        assert [(bad.id, bad.kind) for batch in found for bad in batch.bad] == [
            ("a.jsonl#1", "wrong_type"), ("a.jsonl#3", "wrong_type"),
        ]  # fmt: skip
