"""New versions under way: no commit, no file and no reply mixes two, and one that cannot be taken changes nothing."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from sklearn.linear_model import LinearRegression

import mlinfer
from mlinfer import ChangedError, ConfigError, InferencePipeline, Workers, observer
from mlinfer.destinations import MemoryDestination, ParquetDestination, SqlDestination
from mlinfer.hosts import Chain, Selected, SklearnHost
from mlinfer.sources import IterableSource

ASKED = {"inputs": [{"name": "x", "shape": [3, 1], "datatype": "FP64", "data": [0.0, 1.0, 2.0]}]}


def publish(path: Path, number: int, *, fields: int = 1) -> str:
    """A version that answers its own number to everything."""
    rows = [[float(row)] * fields for row in range(2)]
    mlinfer.save(LinearRegression().fit(rows, [float(number)] * 2), path, replace=True)
    return mlinfer.hosts.manifest(path)["version"]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.01)


def put_in_place(path: Path, text: str) -> None:
    """Write a file in one step: half of it would be one more version that cannot be taken."""
    scratch = path.with_suffix(".new")
    scratch.write_text(text)
    scratch.replace(path)


class Told:
    def __init__(self) -> None:
        self.events: list[mlinfer.ModelChanged] = []
        self.answered = threading.Event()

    def of(self, version: str) -> bool:
        return any((event.now or "").endswith(f"@{version}") for event in self.events)

    @observer
    def model_changed(self, event: mlinfer.ModelChanged) -> None:
        self.events.append(event)

    @observer
    def batch_written(self, event: mlinfer.BatchWritten) -> None:
        self.answered.set()


def feeding(path: Path, told: Told, versions: int) -> Callable[..., Iterator[Any]]:
    """Records without end until the first version has answered and each later one has been published and taken."""

    def records(after: int = 0) -> Iterator[Any]:
        del after
        yield {"x": [[0.5]] * 10}
        assert told.answered.wait(60)
        for number in range(2, versions + 1):
            version = publish(path, number)
            end = time.monotonic() + 60
            while not told.of(version):  # several workers tell of a version, and one of them may be late
                assert time.monotonic() < end
                yield {"x": [[0.5]] * 10}
                time.sleep(0.005)
        yield {"x": [[0.5]] * 10}

    return records


@pytest.mark.parametrize("workers", [1, 2, Workers(1, "process")], ids=str)
def test_parquet_parts_hold_one_version_each_and_name_it_right(tmp_path: Path, workers: Any) -> None:
    path, told = tmp_path / "m", Told()
    publish(path, 1)
    out = tmp_path / "out"
    report = InferencePipeline(
        IterableSource(feeding(path, told, 3)), SklearnHost(path, watch=True), ParquetDestination(out), name="p",
        lineage=["model_version"], workers=workers, observers=[told],
    ).run()  # fmt: skip
    seen: dict[str, set[float]] = {}
    rows = 0
    for part in out.rglob("*.parquet"):
        table = pq.ParquetFile(part).read()
        rows += len(table)
        assert len(set(table["y_pred"].to_pylist())) == 1
        for version, answer in zip(
            table["model_version"].to_pylist(), table["y_pred"].to_pylist(), strict=True
        ):
            seen.setdefault(version, set()).add(round(answer, 6))
    assert rows == report.delivered
    assert sorted(map(sorted, seen.values())) == [[1.0], [2.0], [3.0]]


def test_progress_names_the_version_of_its_last_answers_and_a_watching_host_goes_on(tmp_path: Path) -> None:
    path, told, database = tmp_path / "m", Told(), tmp_path / "t.db"
    publish(path, 1)
    source = IterableSource(feeding(path, told, 2))
    destination = SqlDestination(f"sqlite:///{database}", table="t")
    InferencePipeline(source, SklearnHost(path, watch=True), destination, name="p", observers=[told]).run()
    with sqlite3.connect(database) as connection:
        (stored,) = connection.execute("SELECT DISTINCT fingerprint FROM mlinfer_progress").fetchone()
    assert mlinfer.hosts.manifest(path)["version"] in stored
    publish(path, 3)
    empty = IterableSource(nothing)
    with pytest.raises(ChangedError, match="version was"):
        InferencePipeline(empty, SklearnHost(path), destination, name="p").run()
    assert InferencePipeline(empty, SklearnHost(path, watch=True), destination, name="p").run().delivered == 0


def nothing(after: int = 0) -> Iterator[Any]:
    del after
    yield from ()


def test_a_version_that_cannot_be_taken_is_told_once_and_the_next_one_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "m"
    publish(path, 1)
    with SklearnHost(path, watch=True).open() as model:
        for spoil, words in (
            (lambda: publish(path, 2, fields=2), "inputs"),
            (lambda: put_in_place(path / "manifest.json", "x"), "damaged"),
        ):
            spoil()
            found: list[str] = []

            def refused(found: list[str] = found) -> list[str]:
                try:
                    assert model.newer() is None
                except ConfigError as error:
                    found.append(str(error))
                return found

            until(refused)
            assert words in found[0]
            assert model.newer() is None
            assert model.infer(model.example())["y_pred"][0].as_py() == 1
        (path / "manifest.json").unlink()
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
        publish(path, 3)
        until(model.newer)
        assert model.newer().infer(model.example())["y_pred"][0].as_py() == 3


def test_requests_under_load_all_succeed_and_their_version_is_the_one_that_answered(tmp_path: Path) -> None:
    path = tmp_path / "m"
    answers = {publish(path, 1): 1.0}
    pipeline = InferencePipeline(
        IterableSource(nothing), SklearnHost(path, watch=True), MemoryDestination(), name="p"
    )
    replies: list[tuple[int, Any]] = []
    ended = threading.Event()
    with pipeline.serving() as server:

        def ask() -> None:
            with httpx.Client(base_url=server.url) as client:
                while not ended.is_set():
                    reply = client.post("/v2/models/m/infer", json=ASKED)
                    replies.append((reply.status_code, reply.json()))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(2, 5):
            version = publish(path, number)
            answers[version] = float(number)
            until(
                lambda version=version: any(said.get("model_version") == version for _, said in replies[-8:])
            )
        ended.set()
        for thread in threads:
            thread.join()
        assert httpx.get(f"{server.url}/v2/models/m").json()["versions"] == [version]
        assert f'version="{version}"' in server.exposition().decode()
        assert 'model_changes_total{outcome="taken"} 3' in server.exposition().decode()
    assert {status for status, _ in replies} == {200}
    for _, said in replies:
        assert [round(one, 6) for one in said["outputs"][0]["data"]] == [answers[said["model_version"]]] * 3


def test_a_server_tells_of_the_version_that_answers_by_both_protocols(tmp_path: Path) -> None:
    """Asked by clients that others wrote, before and after a change, and again on a connection that is open."""
    path = tmp_path / "m"
    versions = [publish(path, 1)]
    pipeline = InferencePipeline(
        IterableSource(nothing), SklearnHost(path, watch=True), MemoryDestination(), name="p"
    )
    with pipeline.serving(grpc_bind="127.0.0.1:0") as server:
        rest = triton_http.InferenceServerClient(server.url.removeprefix("http://"))
        by_grpc = triton_grpc.InferenceServerClient(server.grpc_address)
        client = httpx.Client(base_url=server.url)

        def told(version: str) -> list[Any]:
            page = f"/v2/models/m/versions/{version}"
            infer = client.post(f"{page}/infer", json=ASKED)
            return [
                rest.is_model_ready("m", version), by_grpc.is_model_ready("m", version),
                client.get(page).status_code, infer.status_code, infer.json().get("model_version"),
                client.get("/openapi.json").json()["info"]["version"], f"<small>{version}<" in client.get("/docs").text,
            ]  # fmt: skip

        assert told(versions[0]) == [True, True, 200, 200, versions[0], versions[0], True]
        versions.append(publish(path, 2))
        until(lambda: client.post("/v2/models/m/infer", json=ASKED).json()["model_version"] == versions[1])
        assert told(versions[1]) == [True, True, 200, 200, versions[1], versions[1], True]
        assert client.get("/v2/models/m/versions/*").status_code == 404
        assert client.post(f"/v2/models/m/versions/{versions[0]}/infer", json=ASKED).status_code == 404
        assert not rest.is_model_ready("m", versions[0])
        by_grpc.close()
        rest.close()
        client.close()


def test_wrappers_hand_newer_versions_on(tmp_path: Path) -> None:
    path = tmp_path / "m"
    publish(path, 1)

    @mlinfer.host(inputs={"got": "double"}, outputs={"twice": "double"}, takes="numpy", version="1")
    def double(got: Any) -> Any:
        return got * 2

    chain = Chain(Selected(SklearnHost(path, watch=True), {"got": "y_pred"}), double)
    assert chain.watch
    with chain.open() as model:
        publish(path, 4)
        newer: list[Any] = []
        until(lambda: newer.append(model.newer()) or newer[-1])
        assert newer[-1].infer(model.example())["twice"][0].as_py() == 8


def test_only_a_package_can_be_watched_and_replaced(tmp_path: Path) -> None:
    estimator = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    with (
        pytest.raises(ConfigError, match="watch: wanted the path of a package"),
        SklearnHost(estimator, watch=True).open(),
    ):
        pass
    (tmp_path / "precious").mkdir()
    with pytest.raises(ConfigError, match="found something there"):
        mlinfer.save(estimator, tmp_path / "precious", replace=True)


def test_whoever_saves_twice_is_told_of_replace(tmp_path: Path) -> None:
    estimator = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    path = mlinfer.save(estimator, tmp_path / "m.mlinfer")
    with pytest.raises(ConfigError, match=r"found a package there; .* mlinfer.save replace it"):
        mlinfer.save(estimator, path)
    mlinfer.save(estimator, path, replace=True)
