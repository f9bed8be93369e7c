"""A client that asks again at once is answered by a loop that has not gone to sleep; nobody else keeps it awake."""

import asyncio
import selectors
import threading
import time
from contextlib import ExitStack

import httpx
import pyarrow as pa
import pytest

from mlinfer import InferencePipeline
from mlinfer._online import _connection
from mlinfer._online._awake import AT_ONCE, Awake
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

HOST = FunctionHost(lambda x: {"y": 2 * x}, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy")
LONG = 600.0


@pytest.fixture
def stays(monkeypatch):
    """How often the loop was asked to stay awake."""
    found = []
    stay = Awake.stay
    monkeypatch.setattr(Awake, "stay", lambda awake: (found.append(1), stay(awake)))
    return found


def asked(times, others=0):
    """Ask so often beside so many other connections; gives what the next half second costs the processor."""
    pipeline = InferencePipeline(MemorySource({"x": [0.0]}), HOST, MemoryDestination())
    with ExitStack() as stack:
        server = stack.enter_context(pipeline.serving())
        client, *more = [
            stack.enter_context(httpx.Client(base_url=server.url, timeout=30)) for _ in range(1 + others)
        ]
        for one in more:
            assert one.get("/v2/health/live").status_code == 200
        for x in range(times):
            assert client.post("/predict", json={"x": x}).json() == {"y": 2.0 * x}
        for one in threading.enumerate():
            if one.name == "mlinfer-import":  # what a server does once
                one.join()
        begun = time.process_time()
        time.sleep(0.5)
        return time.process_time() - begun


class Spy(selectors.DefaultSelector):
    """Remembers for how long the loop was ready to sleep."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def select(self, timeout=None):
        self.waits.append(timeout)
        return super().select(0)


def test_the_loop_stays_awake_for_a_moment_behind_an_answer_and_no_longer():
    spy, clock = Spy(), [0.0]
    loop = asyncio.SelectorEventLoop(spy)
    awake = Awake(loop, lambda: clock[0])

    awake.stay()
    awake.stay()  # another answer
    for seconds in (0.0, AT_ONCE / 2, 2 * AT_ONCE, 2 * AT_ONCE):
        clock[0] = seconds
        loop._run_once()
    loop.close()
    assert spy.waits == [0, 0, 0, None], "awake, awake, awake, asleep until something comes"


def test_a_client_that_asks_at_once_keeps_the_loop_awake_until_it_stops_asking(monkeypatch, stays):
    monkeypatch.setattr(_connection, "AT_ONCE", LONG)
    assert asked(20) < 0.25, "the loop went on turning behind the last answer"
    assert len(stays) == 20


def test_a_client_that_takes_its_time_lets_the_loop_sleep(monkeypatch, stays):
    monkeypatch.setattr(_connection, "AT_ONCE", 0.0)
    asked(20)
    assert not stays


def test_the_requests_of_several_clients_meet_in_a_batch_while_the_loop_sleeps(monkeypatch, stays):
    monkeypatch.setattr(_connection, "AT_ONCE", LONG)
    asked(20, others=1)
    assert len(stays) == 1, "when the other one asked, it was alone"
