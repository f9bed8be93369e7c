"""A pipeline does not read what it writes: its answers would come in again, or its input would be emptied."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlinfer import Checkpoint, ConfigError, DataDestination, InferencePipeline
from mlinfer.destinations import (
    CsvDestination,
    JsonLinesDestination,
    MemoryDestination,
    ParquetDestination,
    Tee,
)
from mlinfer.hosts import FunctionHost
from mlinfer.sources import CsvSource, FilesSource, JsonLinesSource, Mapped, MemorySource, ParquetSource

HOST = FunctionHost(lambda x: x * 2, {"x": "double"}, {"y": "double"}, "numpy", version="1")
LINE = '{"x": 1}\n'


def same(batch):
    return batch


@pytest.fixture(autouse=True)
def inbox(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def pipeline(source, destination, **more):
    return InferencePipeline(source, HOST, destination, name="p", keep=["x"], **more)


def test_a_file_is_not_replaced_by_its_own_answers(inbox):
    (inbox / "a.csv").write_text("x\n1\n")
    for path in ("in/a.csv", "in/../in/a.csv"):
        refused = pipeline(CsvSource("in/a.csv"), CsvDestination(path, if_exists="replace"))
        for ask in (refused.check, refused.run):
            with pytest.raises(
                ConfigError, match=r"destination: wanted a place that the source does not read"
            ):
                ask()
    assert (inbox / "a.csv").read_text() == "x\n1\n"


@pytest.mark.parametrize(
    ("source", "more"),
    [
        (JsonLinesSource("in"), {"destination": JsonLinesDestination("in/out.jsonl")}),
        (JsonLinesSource("*/*.jsonl"), {"destination": JsonLinesDestination("in/out.jsonl")}),
        (
            Mapped(JsonLinesSource("in"), same, reads=["x"]),
            {"destination": JsonLinesDestination("in/out.jsonl")},
        ),
        (
            JsonLinesSource("in"),
            {
                "destination": Tee(MemoryDestination(), JsonLinesDestination("in/out.jsonl")),
                "checkpoint": Checkpoint("p.progress"),
            },
        ),
    ],
)
def test_answers_in_the_folder_that_is_read_are_not_read_in_turn(inbox, source, more):
    (inbox / "a.jsonl").write_text(LINE)
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"destination: wanted .*, found .*out.jsonl, which .* means, to"
        ):
            pipeline(source, **more).run()  # the second one would deliver the answers of the first
    assert (inbox / "out.jsonl").read_text() == ""


def test_a_followed_folder_is_looked_at_each_time(inbox):
    pq.write_table(pa.table({"x": [1.0]}), inbox / "a.parquet")
    with pytest.raises(ConfigError, match=r"found .*part-00000000.parquet, which 'in' means, too"):
        pipeline(ParquetSource("in", follow=True), ParquetDestination("in/out")).run(until="idle")
    assert pq.read_table(inbox / "out").num_rows == 1


def test_parts_in_the_folder_that_is_read_are_not_read_in_turn(inbox):
    pq.write_table(pa.table({"x": [1.0]}), inbox / "a.parquet")
    for place, options in (("in", {"if_exists": "append"}), ("in/out", {})):
        destination = ParquetDestination(place, **options)
        assert pipeline(ParquetSource("in"), destination).run().delivered == 1
        with pytest.raises(ConfigError, match=r"found .*part-00000000.parquet, which 'in' means, too"):
            pipeline(ParquetSource("in"), destination).run()
        for part in inbox.rglob("part-*"):
            part.unlink()


def test_what_is_beside_the_input_is_no_concern(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    pq.write_table(pa.table({"x": [1.0]}), inbox / "a.parquet")
    for source, destination in (
        (JsonLinesSource("in"), CsvDestination("in/out.csv")),
        (JsonLinesSource("in/a.jsonl"), JsonLinesDestination("in/out.jsonl")),
        (ParquetSource("in/a.parquet"), ParquetDestination("in", if_exists="append")),
        (ParquetSource("in/a.parquet"), ParquetDestination(".")),
    ):
        assert pipeline(source, destination).run().delivered == 1
        assert pipeline(source, destination).run().delivered == 0


def test_a_part_of_another_program_is_not_taken_for_one_of_ours(inbox):
    pq.write_table(pa.table({"x": [1.0]}), inbox / "part-0.parquet")  # as pyarrow.dataset calls it
    destination = ParquetDestination("in", if_exists="append")
    assert pipeline(ParquetSource("in/part-0.parquet"), destination).run().delivered == 1
    assert pq.read_table(inbox / "part-00000000.parquet").column("y").to_pylist() == [2.0]


@dataclass(frozen=True)
class Numbered(DataDestination):
    """A stranger's: `answers-N.jsonl` in a folder, one for each run."""

    path: str

    def owns(self, name):
        return name.startswith("answers-")

    @contextmanager
    def open(self, schema, scope):
        place = Path(self.path) / f"answers-{len(list(Path(self.path).glob('answers-*')))}.jsonl"
        with JsonLinesDestination(place).open(schema, scope) as writer:
            yield writer


def test_a_stranger_says_which_files_of_a_folder_are_its_own(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    filled = pipeline(JsonLinesSource("in/[ab]*"), Numbered("in"), checkpoint=Checkpoint("p.progress"))
    with pytest.raises(ConfigError, match=r"destination: wanted .*, found .*answers-0.jsonl, which .* means"):
        filled.run()
    assert (inbox / "answers-0.jsonl").read_text() == ""


@pytest.mark.parametrize("wrapped", [False, True])
def test_answers_among_the_whole_files_that_are_read_are_not_read_in_turn(inbox, wrapped):
    (inbox / "a.jpg").write_bytes(b"picture")
    sizes = FunctionHost(lambda size: size, {"size": "double"}, {"y": "double"}, "numpy", version="1")

    def judge(path, out):
        source = Mapped(FilesSource(path), same, reads=["size"]) if wrapped else FilesSource(path)
        return InferencePipeline(source, sizes, JsonLinesDestination(out), name="p")

    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"destination: wanted .*, found .*out.jsonl, which .* means, too"
        ):
            judge("in", "in/out.jsonl").run()
    assert (inbox / "out.jsonl").read_text() == ""
    assert judge("in/*.jpg", "in/other.jsonl").run().delivered == 1  # nothing of it is read


def test_whole_files_are_not_emptied_by_their_own_answers(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    source, sizes = (
        FilesSource("in"),
        FunctionHost(lambda size: size, {"size": "double"}, {"y": "double"}, "numpy", version="1"),
    )
    refused = InferencePipeline(
        source, sizes, JsonLinesDestination("in/a.jsonl", if_exists="replace"), name="p"
    )
    for ask in (refused.check, refused.run):
        with pytest.raises(
            ConfigError, match=r"destination: wanted .*, found .*a.jsonl, which 'in' means, too"
        ):
            ask()
    assert (inbox / "a.jsonl").read_text() == LINE


@dataclass(frozen=True, slots=True)
class Slotted(FilesSource):
    """Its fields are in slots."""


def test_a_source_whose_path_is_in_a_slot_is_asked_like_any_other(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    sizes = FunctionHost(lambda size: size, {"size": "double"}, {"y": "double"}, "numpy", version="1")
    out = JsonLinesDestination("in/a.jsonl", if_exists="replace")
    with pytest.raises(ConfigError, match=r"destination: wanted .*, found .*a.jsonl, which 'in' means, too"):
        InferencePipeline(Slotted("in"), sizes, out, name="p").run()
    assert (inbox / "a.jsonl").read_text() == LINE


def test_neither_are_rejects_read(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    refused = pipeline(
        JsonLinesSource("in"), MemoryDestination(), rejects=JsonLinesDestination("in/bad.jsonl")
    )
    with pytest.raises(
        ConfigError, match=r"rejects: wanted a place that the source does not read, found .*bad"
    ):
        refused.run()


def test_a_link_to_an_output_is_seen_wherever_the_output_lies(inbox, tmp_path):
    (inbox / "a.jsonl").write_text(LINE)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b.jsonl").write_text(LINE)
    replacing = JsonLinesDestination("out/b.jsonl", if_exists="replace")
    for link, leads, source in (("b.jsonl", "out/b.jsonl", "in"), ("sub", "out", "in/*/*.jsonl")):
        (inbox / link).symlink_to(tmp_path / leads)
        with pytest.raises(ConfigError, match=r"destination: wanted a place .* found .*out/b.jsonl"):
            pipeline(JsonLinesSource(source), replacing).run()
        assert (tmp_path / "out/b.jsonl").read_text() == LINE
        (inbox / link).unlink()


class MadeUp:
    """A source with every attribute that somebody asks for, as proxies and mocks have."""

    bounded, resume = True, "seek"

    def __init__(self, source):
        self._held = source

    def __getattr__(self, name):
        return MadeUp(self._held) if name == "source" else getattr(self._held, name)


class Several(MemoryDestination):
    """A destination that calls something else so, and knows its path only while it is open."""

    destinations = None

    @property
    def path(self):
        raise RuntimeError("not open yet")


def test_a_source_that_has_any_attribute_is_used_as_it_is():
    held = MemorySource(pa.table({"x": [1.0]}))
    assert pipeline(MadeUp(held), MemoryDestination()).run().delivered == 1


def test_a_destination_that_knows_its_path_only_while_it_is_open_may_be_written_to(inbox):
    (inbox / "a.jsonl").write_text(LINE)
    assert pipeline(JsonLinesSource("in"), Several()).run().delivered == 1
