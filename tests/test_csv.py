"""CSV in and out: bad records alone are bad, empty and missing texts stay apart, positions are exact."""

import csv
import datetime as dt
import gzip
import io
import json
from decimal import Decimal
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import reading
from mlinfer import Batch, ChangedError, ConfigError, InferencePipeline, SchemaError, Scope
from mlinfer.destinations import CsvDestination, JsonLinesDestination, MemoryDestination
from mlinfer.destinations._csv import csv_lines
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, _text_files
from mlinfer.sources import _csv as csv_source
from mlinfer.sources._csv_records import Splitter
from reading import ids

CORPORA = Path(__file__).parents[2] / "shared/corpora"
AB = pa.schema([("a", pa.float64()), ("b", pa.string())])
batches = partial(reading.batches, wanted=AB)
written = partial(reading.written, name="a.csv")


def rows(found):
    return [tuple(row.values()) for batch in found for row in batch.records.to_pylist()]


# --- records -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "kind", "why"),
    [
        (b"x,y", "wrong_type", "column 'a': wanted double, found 'x'"),
        (b'1,"\xff"', "wrong_type", "column 'b': wanted string, found '\\\\xff'"),
        (b"1", "wrong_columns", "wanted 2 columns, found 1"),
        (b"1,2,3", "wrong_columns", "wanted 2 columns, found 3"),
        (b"1,2,\xff", "wrong_columns", "wanted 2 columns, found 3"),
        (b"\xff", "wrong_columns", "wanted 2 columns, found 1"),
        (b'1,"y" z', "undecodable", "found a quote or a carriage return elsewhere"),
        (b'1,"y', "undecodable", "found a quote or a carriage return elsewhere"),
        (b"1,y\r2,z", "undecodable", "found a quote or a carriage return elsewhere"),
    ],
)
def test_a_bad_record_is_named_with_its_line_and_reason_and_costs_nobody_else(record, kind, why, tmp_path):
    source = CsvSource(written(tmp_path, b'a,b\n1,"q\nr"\n' + record + b'\n3,z"z\n"4","w"\n'))
    for size in (1, 2, 100):
        found = list(batches(source, size=size))
        assert rows(found) == [(1, "q\nr"), (3, 'z"z'), (4, "w")]
        assert ids(found) == ["a.csv#2", "a.csv#5", "a.csv#6"]
        (bad,) = [bad for batch in found for bad in batch.bad]
        assert (bad.id, bad.kind, bad.raw) == ("a.csv#4", kind, record)
        assert bad.message.startswith("line 4: ")
        assert why in bad.message


def test_an_empty_cell_is_null_and_a_text_in_quotes_is_not(tmp_path):
    source = CsvSource(written(tmp_path, b'a,b\n,\n"",""\n1,NULL\nnan,"x""y"\n'))
    first, second, third, (fourth, text) = rows(batches(source))
    assert (first, second, third, text) == ((None, None), (None, ""), (1, "NULL"), 'x"y')
    assert fourth != fourth  # noqa: PLR0124 - NaN


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b\n1,x\n2,y\n",
        b"a,b\r\n1,x\r\n2,y\r\n",
        b"a,b\r\n1,x\r\n\r\n2,y",
        b'\n\n"a","b"\n1,x\n\n\n2,y\n\n',
        b'"a",b\n"1","x"\n"2","y"',
    ],
)
def test_marks_line_ends_and_empty_lines_do_not_matter(content, tmp_path):
    for size in (1, 2, 100):
        found = list(batches(CsvSource(written(tmp_path, content)), size=size))
        assert rows(found) == [(1, "x"), (2, "y")]
        assert not any(batch.bad for batch in found)


def test_files_without_records_have_none(tmp_path):
    assert rows(batches(CsvSource(written(tmp_path, b"", name="empty.csv")))) == []
    for content in (b"a,b", b"a,b\n", b"a,b\r\n\r\n"):
        header_only = CsvSource(written(tmp_path, content, name="header.csv"))
        assert rows(batches(header_only)) == []
        assert header_only.schema() == pa.schema([("a", pa.null()), ("b", pa.null())])


def test_an_empty_file_alone_is_named_and_among_others_passed_over(tmp_path):
    source = CsvSource(tmp_path)
    written(tmp_path, b"", name="1.csv")
    with pytest.raises(
        SchemaError, match=r"wanted the names of the columns, found an empty file; .* of \S+/1\.csv"
    ):
        source.schema()
    assert CsvSource(tmp_path, follow=True).schema() is None
    written(tmp_path, b"a,b\n", name="2.csv")
    assert source.schema() == pa.schema([("a", pa.null()), ("b", pa.null())])
    written(tmp_path, b"a,b\n1,x\n", name="3.csv")
    assert source.schema() == pa.schema([("a", pa.int64()), ("b", pa.string())])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a,b,a\n1,2,3\n", "field 'a': wanted one column of that name, found 2; rename columns in"),
        (b"a;b\n1;2\n", "seems to need CsvSource(..., delimiter=';')"),
        (b"a\tb\n1\t2\n", "seems to need CsvSource(..., delimiter='\\t')"),
        (b"\xff,b\n1,2\n", "wanted names of columns in UTF-8"),
        (b",".join(b"c%d" % n for n in range(4097)), "wanted at most 4096 columns, found 4097"),
    ],
)
def test_a_header_that_is_of_no_use_says_what_to_do(content, why, tmp_path):
    source = CsvSource(written(tmp_path, content))
    with pytest.raises(SchemaError) as error:
        source.schema()
    assert why in str(error.value)
    with pytest.raises(SchemaError):
        list(batches(source))


def test_other_delimiters_are_understood_and_impossible_ones_refused(tmp_path):
    assert rows(batches(CsvSource(written(tmp_path, b'a;b\n1;"x;y"\n'), delimiter=";"))) == [(1, "x;y")]
    assert rows(batches(CsvSource(written(tmp_path, b"a\tb\n1\tx\n", name="a.tsv"), delimiter="\t"))) == [
        (1, "x")
    ]
    for delimiter in ("", ",,", '"', "\n", "é", "\0"):
        with pytest.raises(ConfigError, match="delimiter: wanted one ASCII character"):
            CsvSource("a.csv", delimiter=delimiter)


def test_types_are_told_only_where_the_cells_agree(tmp_path):
    content = b"i,f,s,d,e,m\n1,1.5,x,2024-01-01,,1\n2,2,y,2024-01-02,,oops\n3,,12,,,3\n"
    kinds = {field.name: str(field.type) for field in CsvSource(written(tmp_path, content)).schema()}
    assert kinds == {"i": "int64", "f": "double", "s": "string", "d": "date32[day]", "e": "null", "m": "null"}


def test_a_column_to_keep_needs_a_type_where_the_cells_tell_none(tmp_path):
    source = CsvSource(written(tmp_path, b"x,note\n1,\n2,\n"))
    host = FunctionHost(lambda x: x, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
    with pytest.raises(ConfigError, match="do not tell the type of 'note'"):
        InferencePipeline(source, host, MemoryDestination(), name="p", keep=["note"]).explain()
    InferencePipeline(source, host, MemoryDestination(), name="p", keep={"note": pa.string()}).explain()


def test_integers_with_gaps_may_be_spelled_as_floats(tmp_path):
    source = CsvSource(
        written(tmp_path, b"a,b\n1.0,x\n1.5,y\n9223372036854775807,z\n9223372036854775808,w\n")
    )
    found = list(batches(source, wanted=pa.schema([("a", pa.int64())])))
    assert rows(found) == [(1,), (2**63 - 1,)]
    assert [bad.id for bad in found[0].bad] == ["a.csv#3", "a.csv#5"]


def test_ids_come_from_the_named_column_read_or_not(tmp_path):
    source = CsvSource(written(tmp_path, b"a,b\n1,x\n2,\noops,z\n"), id_column="b")
    for wanted in (AB, AB.remove(1)):
        found = list(batches(source, wanted=wanted))
        assert ids(found) == ["x", "a.csv#3"]
        assert found[0].records.schema.names == wanted.names


def test_a_column_that_a_file_lacks_is_named_with_that_file_and_its_columns(tmp_path):
    written(tmp_path, b"a,b\n1,x\n", name="a.csv")
    written(tmp_path, b"a,z\n1,x\n", name="b.csv")
    host = FunctionHost(lambda a: a, {"a": "float64"}, {"y": "float64"}, "numpy")

    def run(**more):
        source = CsvSource(tmp_path, **more)
        InferencePipeline(source, host, MemoryDestination(), name="p", keep=["b"]).run()

    with pytest.raises(SchemaError, match=r"'b': wanted string, found no such column in .*b\.csv; .* a, z$"):
        run()
    with pytest.raises(SchemaError, match=r"'idd': wanted the records' ids, found .*a\.csv; .* a, b$"):
        run(id_column="idd")
    with pytest.raises(SchemaError, match=r"'b': wanted the records' ids, found .*b\.csv; .* a, z$"):
        CsvSource(tmp_path, id_column="b").open("b.csv", None, pa.schema([])).__enter__()


def test_a_file_of_carriage_returns_is_told_what_it_is(tmp_path):
    source = CsvSource(written(tmp_path, b"a,b\r1,x\r2,y\r"))
    with pytest.raises(
        SchemaError, match=r"found lines that end in a carriage return alone; write .*a\.csv with newl"
    ):
        source.schema()


def test_fields_and_records_beyond_the_limits_are_bad_alone(tmp_path, monkeypatch):
    for module in (csv_source, _text_files):
        monkeypatch.setattr(module, "LONGEST_LINE", 2000)
    monkeypatch.setattr(csv_source, "LONGEST_FIELD", 500)
    monkeypatch.setattr(_text_files, "CHUNK_BYTES", 300)
    content = b"a,b\n1,x\n2," + b"y" * 501 + b"\n3," + b"z" * 500 + b"\n4," + b"w" * 5000 + b"\n5,x\n"
    found = list(batches(CsvSource(written(tmp_path, content))))
    assert [a for a, _ in rows(found)] == [1, 3, 5]
    bad = [bad for batch in found for bad in batch.bad]
    assert [(one.id, one.kind) for one in bad] == [("a.csv#3", "undecodable"), ("a.csv#5", "undecodable")]
    assert "at most 500 bytes in a field" in bad[0].message
    assert "at most 2000 bytes in a record" in bad[1].message


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not beside this checkout")
def test_csv_spectrum_is_read_as_expected():
    files = sorted((CORPORA / "csv/csvs").glob("*.csv"))
    assert len(files) == 12
    for file in files:
        expected = json.loads((CORPORA / "csv/json" / f"{file.stem}.json").read_text())
        expected = expected if isinstance(expected, list) else [expected]
        source = CsvSource(file)
        wanted = pa.schema([(name, pa.string()) for name in source.schema().names])
        for size in (1, 100):
            found = [
                row
                for batch in batches(source, wanted=wanted, size=size)
                for row in batch.records.to_pylist()
            ]
            found = [{name: value or "" for name, value in row.items()} for row in found]
            for one in found + expected:
                one.pop("Contact Phone Number", None)  # the collection's file and its answer differ here
            assert found == expected, file.name


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=6)
tables = st.lists(st.tuples(cells, cells), max_size=12)


@given(tables, st.booleans(), st.integers(1, 20))
@example([("", 'a"b'), ("\n", '"'), (",", "\n\n")], True, 1)
def test_what_another_writer_writes_is_read_back_whatever_is_read_at_once(
    tmp_path_factory, table, crlf, size
):
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n" if crlf else "\n")
    writer.writerows([("a", "b"), *table])
    path = written(tmp_path_factory.mktemp("csv"), text.getvalue().encode())
    wanted = pa.schema([("a", pa.string()), ("b", pa.string())])
    found = list(batches(CsvSource(path), wanted=wanted, size=size))
    assert rows(found) == table
    assert not any(batch.bad for batch in found)


@given(
    st.lists(st.tuples(st.floats(allow_nan=False) | st.none(), cells), min_size=1, max_size=15),
    st.sampled_from([b"x,y", b"1", b"1,2,3", b'1,"y" z', b'1,"\xff"', b'"1"x,y']),
    st.data(),
)
def test_one_bad_record_anywhere_is_the_only_bad_one_whatever_is_read_at_once(
    tmp_path_factory, table, bad, data
):
    place = data.draw(st.integers(0, len(table)))
    text = io.StringIO()
    records = []
    for a, b in table:
        text.seek(0)
        text.truncate()
        quoted = '"' + b.replace('"', '""') + '"'
        records.append(f"{'' if a is None else repr(a)},{quoted}".encode())
    records.insert(place, bad)
    path = written(tmp_path_factory.mktemp("csv"), b"a,b\n" + b"\n".join(records) + b"\n")
    found = list(batches(CsvSource(path), size=data.draw(st.integers(1, 20))))
    assert rows(found) == table
    lines = [2 + sum(1 + record.count(b"\n") for record in records[:n]) for n in range(len(records))]
    assert [one.id for batch in found for one in batch.bad] == [f"a.csv#{lines[place]}"]
    assert ids(found) == [f"a.csv#{line}" for n, line in enumerate(lines) if n != place]


@given(st.lists(st.sampled_from(['"', '""', "a", ",", "\n", "\r\n", "\r"]), max_size=12).map("".join))
def test_the_fast_way_to_find_records_agrees_with_the_grammar(text):
    splitter = Splitter(",")
    data = text.encode()
    fast = splitter.ends(data, 0, final=True)
    slow = splitter._one_by_one(data, 0, final=True)
    assert fast.places.tolist() == slow.places.tolist()
    assert fast.good.tolist() == slow.good.tolist()


# --- positions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_reading_goes_on_behind_every_position(ending, tmp_path):
    content = b'\xef\xbb\xbfa,b\n1,"x\n""y"\n\n2,z\noops,w\n3,\n4,v'
    pack = gzip.compress if ending else bytes
    source = CsvSource(written(tmp_path, pack(content), name="a.csv" + ending))
    for size in (1, 2):
        found = list(batches(source, size=size))
        for done, batch in enumerate(found):
            later = list(batches(source, batch.position))
            both = [*found[: done + 1], *later]
            assert rows(both) == [(1, 'x\n"y'), (2, "z"), (3, None), (4, "v")]
            assert ids(both) == [f"a.csv{ending}#{n}" for n in (2, 5, 7, 8)]
            assert [bad.id for one in both for bad in one.bad] == [f"a.csv{ending}#6"]


def test_a_file_that_grew_goes_on_and_one_that_changed_does_not(tmp_path):
    path = written(tmp_path, b"a,b\n1,x\n2,y\n")
    source = CsvSource(path)
    *_, last = batches(source)
    written(tmp_path, b"a,b\n1,x\n2,y\n3,z\n")
    assert rows(batches(source, last.position)) == [(3, "z")]
    written(tmp_path, b"a,c\n1,x\n2,y\n3,z\n")
    with pytest.raises(ChangedError, match="replaced or changed"):
        list(batches(source, last.position))


# --- records out ---------------------------------------------------------------------------------------------------------


def destination_holds(path, records, **options):
    with CsvDestination(path, **options).open(records.schema, Scope("p", run="1")) as writer:
        writer.write(Batch(records, "all", None))
        writer.commit(writer.committed())
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_the_header_comes_once_over_all_runs(tmp_path):
    records = pa.record_batch({"a": [1.5, None], 'the "b"': ["x,y", ""]})
    destination_holds(tmp_path / "a.csv", records)
    found = destination_holds(tmp_path / "a.csv", records)
    assert found == [["a", 'the "b"'], ["1.5", "x,y"], ["", ""], ["1.5", "x,y"], ["", ""]]
    assert (tmp_path / "a.csv").read_bytes().splitlines()[2] == b',""'


def test_texts_that_a_spreadsheet_would_run_are_guarded_on_request(tmp_path):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain", None, "a=b"]
    records = pa.record_batch({"t": texts, "n": [-1.0] * 8})
    guarded = destination_holds(tmp_path / "guarded.csv", records, guard_formulas=True)
    assert [row[0] for row in guarded[1:]] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\tx", "plain", "", "a=b"]
    assert {row[1] for row in guarded[1:]} == {"-1"}
    plain = destination_holds(tmp_path / "plain.csv", records)
    assert [row[0] for row in plain[1:]] == [text or "" for text in texts]


def test_what_others_wrote_is_appended_to_if_its_columns_are_the_same(tmp_path):
    records = pa.record_batch({"a": [1]})
    path = written(tmp_path, b"a\n0")
    with pytest.raises(ConfigError, match="if_exists='append' or 'replace'"):
        destination_holds(path, records)
    assert destination_holds(path, records, if_exists="append") == [["a"], ["0"], ["1"]]
    other = written(tmp_path, b"x,y\n0,0\n", name="other.csv")
    with pytest.raises(ConfigError, match="wanted the columns a to append to, found x, y"):
        destination_holds(other, records, if_exists="append")
    assert other.read_bytes() == b"x,y\n0,0\n"
    assert not (tmp_path / ".other.csv.progress").exists()
    assert destination_holds(other, records, if_exists="replace") == [["a"], ["1"]]


@pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not beside this checkout")
def test_naughty_strings_go_out_and_come_in_unchanged(tmp_path):
    texts = json.loads((CORPORA / "naughty_strings.json").read_text())
    path = tmp_path / "naughty.csv"
    records = pa.record_batch({"n": list(range(len(texts))), "text": texts})
    assert [row[1] for row in destination_holds(path, records)[1:]] == texts
    found = list(batches(CsvSource(path), wanted=pa.schema([("text", pa.string())]), size=100))
    assert [text for (text,) in rows(found)] == texts


@given(st.lists(st.floats() | st.none(), max_size=20))
def test_floats_come_back_exactly(values):
    text = bytes(
        csv_lines(pa.record_batch({"x": pa.array(values, pa.float64()), "n": [0] * len(values)}))
    ).decode()
    found = [float(row[0]) if row[0] else None for row in csv.reader(io.StringIO(text))]
    assert list(map(repr, found)) == list(map(repr, values))


def test_a_pipeline_from_csv_to_csv_keeps_what_it_should(tmp_path):
    source = CsvSource(written(tmp_path, b"id,x\n7,1\n8,no\n9,2.5\n"))
    host = FunctionHost(lambda x: x * 2, {"x": pa.float64()}, {"y": pa.float64()}, "numpy", version="1")
    rejects, out = MemoryDestination(), tmp_path / "answers.csv"
    pipeline = InferencePipeline(source, host, CsvDestination(out), name="csv", keep=["id"], rejects=rejects)
    pipeline.run()
    pipeline.run()
    assert out.read_text().splitlines() == ['"id","y"', "7,2", "9,5"]
    assert rejects.table("rejects").column("record_id").to_pylist() == ["a.csv#3"]


# --- what a number would not give back ------------------------------------------------------------------------------


def test_codes_need_a_type_to_stay_as_they_are_spelled_and_columns_without_a_name_are_passed_over(tmp_path):
    text = "account,zip,big,x,n,,\n007,00501,12345678901234567890123,0.50,10,,\n12,10001,1,1.5,0,,\n"
    (tmp_path / "in.csv").write_text(text)
    source = CsvSource(tmp_path / "in.csv")
    assert dict(zip(source.schema().names, source.schema().types, strict=True)) == {
        "account": pa.null(), "zip": pa.null(), "big": pa.null(), "x": pa.float64(), "n": pa.int64(),
    }  # fmt: skip
    out = CsvDestination(tmp_path / "out.csv")
    doubled = FunctionHost(
        lambda records: {"y": records["x"]}, inputs={"x": "double"}, outputs={"y": "double"}
    )
    with pytest.raises(ConfigError, match=r"'account'.*type"):
        InferencePipeline(source, doubled, out, keep=["account"], name="codes").run()
    kept = {"account": pa.string(), "zip": pa.string(), "big": pa.string(), "n": pa.int64()}
    InferencePipeline(source, doubled, out, keep=kept, name="codes").run()
    with (tmp_path / "out.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"account": "007", "zip": "00501", "big": "12345678901234567890123", "n": "10", "y": "0.5"},
            {"account": "12", "zip": "10001", "big": "1", "n": "0", "y": "1.5"},
        ]


def test_numbers_with_signs_are_numbers(tmp_path):
    """A telephone number has no minus: where one stands beside a plus, both are signs."""
    source = CsvSource(written(tmp_path, b"change,code\n+3,+49\n-2,+33\n+0,\n"))
    assert source.schema() == pa.schema([("change", pa.float64()), ("code", pa.null())])
    found = batches(source, wanted=pa.schema([("change", pa.float64())]))
    assert rows(found) == [(3.0,), (-2.0,), (0.0,)]


@pytest.mark.parametrize("more", [b"", b"\xff\n"], ids=["UTF-8", "another coding"])
@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (pa.decimal128(10, 2), b"524280771"),
        (pa.decimal128(38, 10), b"25000806360837783533740681241586834497"),
    ],
)
def test_a_number_that_a_decimal_has_no_room_for_is_no_other_number(tmp_path, kind, cell, more):
    """Arrow's reader lets digits go that are beyond those of the type, or gives it more than it has."""
    (tmp_path / "in.csv").write_bytes(b"n\n1.5\n 2 \n" + cell + b"\n" + more)
    out = MemoryDestination()
    host = FunctionHost(lambda records: {"y": records.column("n")}, {"n": kind}, {"y": kind}, version="1")
    pipeline = InferencePipeline(
        CsvSource(tmp_path / "in.csv"), host, out, name="p", rejects=MemoryDestination()
    )
    report = pipeline.run()
    assert out.table()["y"].to_pylist() == [Decimal("1.5"), Decimal(2)]
    assert (report.delivered, report.rejected) == (2, 1 + bool(more))


@pytest.mark.parametrize("code", ["0x1F", "0X1F", "+4930123456", " 007", "\t0x1F", "007 "])
def test_what_only_looks_like_a_number_needs_a_type_to_be_kept(tmp_path, code):
    """Arrow reads 0x1F as 31, and makes a float of a telephone number."""
    (tmp_path / "in.csv").write_text(f"n,x\n{code},1\n5,+1.5\n")
    source, out = CsvSource(tmp_path / "in.csv"), MemoryDestination()
    assert source.schema() == pa.schema([("n", pa.null()), ("x", pa.float64())])
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")
    InferencePipeline(source, host, out, keep={"n": pa.string()}, name="codes").run()
    assert out.table().to_pydict() == {"n": [code, "5"], "y": [1.0, 1.5]}


@pytest.mark.parametrize(
    ("kind", "good", "value"),
    [
        (pa.time32("s"), "05:00", dt.time(5)),
        (pa.time64("us"), "05:00:00.5", dt.time(5, 0, 0, 500_000)),
        (pa.decimal256(50, 1), "-1.5", Decimal("-1.5")),
        (pa.decimal32(5, 1), "1.5", Decimal("1.5")),
    ],
)
def test_a_bad_time_or_decimal_costs_its_record_alone(tmp_path, kind, good, value):
    (tmp_path / "in.csv").write_text(f"t,x\n{good},1\nn/a,2\n,3\n")
    out, rejects = MemoryDestination(), MemoryDestination()
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")
    source = CsvSource(tmp_path / "in.csv")
    InferencePipeline(source, host, out, keep={"t": kind}, name="t", rejects=rejects).run()
    assert out.table().to_pydict() == {"t": [value, None], "y": [1.0, 3.0]}
    assert out.table().schema.field("t").type == kind
    assert rejects.table("rejects")["kind"].to_pylist() == ["wrong_type"]


def test_integers_that_no_float_holds_beside_fractions_need_a_type_to_be_kept(tmp_path):
    (tmp_path / "in.csv").write_text("n,x\n1.5,1\n9007199254740993,1\n")
    source, out = CsvSource(tmp_path / "in.csv"), MemoryDestination()
    host = FunctionHost(lambda x: x, {"x": "float64"}, {"y": "float64"}, "numpy", version="1")
    with pytest.raises(ConfigError, match=r"'n' .* has numbers that fit no one type.* pa.decimal128"):
        InferencePipeline(source, host, out, keep=["n"], name="digits").run()
    InferencePipeline(source, host, out, keep={"n": pa.decimal128(38, 9)}, name="digits").run()
    assert list(map(str, out.table()["n"].to_pylist())) == ["1.500000000", "9007199254740993.000000000"]
    (tmp_path / "exact.csv").write_text("n,m\n1.5,9007199254740993\n9007199254740992,1\n")
    assert CsvSource(tmp_path / "exact.csv").schema() == pa.schema([("n", pa.float64()), ("m", pa.int64())])


def test_a_model_gets_numbers_from_cells_that_look_like_codes(tmp_path):
    (tmp_path / "in.csv").write_text("x\n007\n08.5\n")
    host = FunctionHost(lambda records: {"y": records["x"]}, inputs={"x": "double"}, outputs={"y": "double"})
    found = MemoryDestination()
    assert InferencePipeline(CsvSource(tmp_path / "in.csv"), host, found, name="numbers").run().delivered == 2
    assert found.table()["y"].to_pylist() == [7.0, 8.5]


@pytest.mark.parametrize("kind", [CsvDestination, JsonLinesDestination])
@pytest.mark.parametrize("name", ["out.csv.gz", "out.jsonl.ZST"])
def test_a_name_that_promises_compression_is_refused(kind, name):
    with pytest.raises(ConfigError, match="not compressed"):
        kind(name)


def test_a_column_that_looks_like_numbers_can_be_had_as_it_is_spelled(tmp_path):
    (tmp_path / "in.csv").write_text("price,zip,day\n1.10,10001,2024-01-02\n2.00,10002,2024-01-03\n")
    source = CsvSource(tmp_path / "in.csv")
    texts = {"zip": "string", "day": "string"}
    host = FunctionHost(
        lambda records: {"y": [f"{z} {d}" for z, d in zip(records["zip"], records["day"], strict=True)]},
        inputs=texts, outputs={"y": "string"},
    )  # fmt: skip
    found = MemoryDestination()
    pipeline = InferencePipeline(source, host, found, keep={"price": pa.string()}, name="spelled")
    assert pipeline.run().delivered == 2
    assert found.table().to_pylist() == [
        {"price": "1.10", "y": "10001 2024-01-02"}, {"price": "2.00", "y": "10002 2024-01-03"},
    ]  # fmt: skip
