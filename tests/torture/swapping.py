"""A model is replaced again and again under a server that is being asked: no request fails, and no reply mixes two versions."""

import json
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from torture.figures import Figures
from torture.oracle import Verdict

CLIENTS = 3
PATIENCE = 30
RECORDS = {"inputs": [{"name": "x", "shape": [3, 1], "datatype": "FP64", "data": [0.0, 1.0, 2.0]}]}


def under_load(seed, swaps):
    """So many new versions, each of which answers its own number to everything: `lost` are failed requests, `wrong` mixed ones."""
    del seed  # there is nothing to draw
    from mlinfer import InferencePipeline
    from mlinfer.destinations import MemoryDestination
    from mlinfer.hosts import SklearnHost
    from mlinfer.sources import MemorySource

    with tempfile.TemporaryDirectory() as folder:
        path, replies, ended = Path(folder) / "m", [], threading.Event()
        numbers = {_publish(path, 1): 1.0}
        host = SklearnHost(path, watch=True)
        pipeline = InferencePipeline(MemorySource({"x": [[0.0]]}), host, MemoryDestination(), name="swapped")
        with pipeline.serving() as server:
            clients = [
                threading.Thread(target=_ask, args=(server.url, replies, ended)) for _ in range(CLIENTS)
            ]
            for client in clients:
                client.start()
            for number in range(2, swaps + 2):
                version = _publish(path, number)
                numbers[version] = float(number)
                _wait_for(version, replies)
            ended.set()
            for client in clients:
                client.join()
    failed = sum(reply is None for reply in replies)
    mixed = sum(reply is not None and not _pure(reply, numbers) for reply in replies)
    seen = {version for version, _ in filter(None, replies)}
    note = f"{len(replies):,} requests of 3 records while {swaps} versions took over: {failed} failed, {mixed} mixed; {len(seen)} versions seen"
    return Figures(len(seen) - 1, Verdict(lost=failed, wrong=mixed), notes=[note])


def _publish(path, number):
    from sklearn.linear_model import LinearRegression

    import mlinfer

    mlinfer.save(LinearRegression().fit([[0.0], [1.0]], [float(number)] * 2), path, replace=True)
    return mlinfer.hosts.manifest(path)["version"]


def _ask(url, replies, ended):
    """A client: the version and the answers of every reply, None for a request that failed."""
    body = json.dumps(RECORDS).encode()
    while not ended.is_set():
        request = urllib.request.Request(
            f"{url}/v2/models/m/infer", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                found = json.load(reply)
            replies.append((found["model_version"], found["outputs"][0]["data"]))
        except OSError:
            replies.append(None)


def _wait_for(version, replies):
    latest = time.monotonic() + PATIENCE
    looked = max(0, len(replies) - CLIENTS)
    while not any(reply is not None and reply[0] == version for reply in replies[looked:]):
        assert time.monotonic() < latest, f"version {version} never answered"
        looked = max(looked, len(replies) - 100)
        time.sleep(0.005)


def _pure(reply, numbers):
    version, answers = reply
    return len(answers) == 3 and all(abs(one - numbers[version]) < 1e-6 for one in answers)
