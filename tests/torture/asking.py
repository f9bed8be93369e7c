"""A server under load, asked over plain sockets by clients of its own: who gets which answer, how late, and what is lost.

`python -m torture.asking PORT LOG SECONDS WORKERS RECORDS GRPC` is the server: its model takes so many seconds for a batch (of so
many records at most), says back who asked, and how many records it saw together; GRPC is a port for calls, or nothing. With several workers answers are given when they are in the log.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from ports import free_port
from torture import asking_grpc
from torture.figures import Figures
from torture.oracle import Verdict

TESTS = Path(__file__).parents[1]
CLIENTS = 1000
SLOW_SOCKETS = 500
NORMAL_CLIENTS = 16
MEAN_BATCH = 8
KILLS_A_SERVER = 5
HEAD = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
SERVER_PLACES = ("server.parse", "server.enqueue", "server.dequeue", "server.respond")
GONE = (OSError, asyncio.IncompleteReadError)
LISTEN = "0A"
"""A socket's state, as Linux writes it."""


def slowly(who, x):
    """What the server answers."""
    time.sleep(float(os.environ["SECONDS_A_BATCH"]))
    return {"whose": who, "y": 2 * x, "together": [len(x)] * len(x)}


def serve(port, log, seconds, *, workers, records, calls=None):
    """Serve until a signal comes."""
    from mlinfer import Batching, InferencePipeline
    from mlinfer.destinations import JsonLinesDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import MemorySource

    os.environ["SECONDS_A_BATCH"] = seconds
    inputs, outputs = (
        {"who": "string", "x": "double"},
        {"whose": "string", "y": "double", "together": "int64"},
    )
    host = FunctionHost(slowly, inputs, outputs, takes="numpy", version="1")
    source = MemorySource({"who": ["nobody"], "x": [0.0]})
    options = {"workers": workers, "log": "behind" if workers == 1 else "before_reply"}
    options |= {"grpc_bind": f"127.0.0.1:{calls}"} if calls else {}
    batching = Batching() if records is None else Batching(max_records=records)
    InferencePipeline(source, host, JsonLinesDestination(log), name="asked", batching=batching).serve(
        f"127.0.0.1:{port}", **options
    )


@contextmanager
def served(seconds, workers=1, records=None, failpoints="", calls=""):  # noqa: PLR0917 - of the server's own
    """A server in a process of its own: the process, its port and the file of its log; `calls` is a port for gRPC."""
    port = free_port()
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        log, said = Path(folder) / "asked.jsonl", Path(folder) / "said"
        with said.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "torture.asking", str(port), str(log), str(seconds), str(workers), str(records or ""), str(calls)],
                env={**os.environ, "PYTHONPATH": path, "MLINFER_TEST": "1", "MLINFER_FAILPOINTS": failpoints}, stdout=file, stderr=file,
            )  # fmt: skip
        try:
            until = time.monotonic() + 60
            while _listening(port) < workers:
                assert child.poll() is None, said.read_text()
                assert time.monotonic() < until, "the server did not start"
                time.sleep(0.02)
            yield child, port, log
        finally:
            child.kill()
            child.wait()


def _listening(port):
    """How many sockets listen there: every worker has one of its own."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == LISTEN for _, local, _, state, *_ in rows)


async def ask(streams, records):
    """The status and the answers; closes what the server wants closed."""
    reader, writer = streams
    body = json.dumps(records).encode()
    writer.write(HEAD.format(len(body)).encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    size = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    answers = json.loads(await reader.readexactly(size))
    if "connection: close" in head.lower():
        writer.close()
    return int(head.split()[1]), answers


# --- nobody gets a neighbour's answer -----------------------------------------------------------------------------------


def neighbours(seed, requests):
    """So many requests by a thousand clients at once, every record with a name of its own."""
    clients = min(CLIENTS, requests // 4)
    with served(0.005) as (child, port, _):
        found = asyncio.run(_all_ask(port, seed, clients, -(-requests // clients)))
        assert child.poll() is None, "the server ended"
    answers = [one for answered in found for one in answered]
    wrong = sum(whose != who or y != 2 * x for who, x, whose, y, _ in answers)
    mean = len(answers) / sum(1 / together for *_, together in answers)
    assert mean > MEAN_BATCH, f"a batch held {mean:.1f} records on average, wanted more than {MEAN_BATCH}"
    note = f"{clients} clients, {len(answers):,} records, {mean:.0f} in a batch on average"
    return Figures(clients * -(-requests // clients), Verdict(misaligned=wrong), notes=[note])


async def _all_ask(port, seed, clients, each):
    return await asyncio.gather(*(_names_itself(port, f"{seed}-{n}", each) for n in range(clients)))


async def _names_itself(port, name, requests):
    dice, found = random.Random(name), []
    streams = await asyncio.open_connection("127.0.0.1", port)
    for request in range(requests):
        rows = [{"who": f"{name}-{request}-{row}", "x": dice.random()} for row in range(dice.randint(1, 3))]
        status = 503
        while status == 503:  # too much to do: the machine has stood still for seconds
            status, answers = await ask(streams, rows)
        assert status == 200, f"status {status}: {answers}"
        assert len(answers) == len(rows), f"{len(rows)} records, {len(answers)} answers"
        found += [
            (row["who"], row["x"], one["whose"], one["y"], one["together"])
            for row, one in zip(rows, answers, strict=True)
        ]
    streams[1].close()
    return found


# --- SIGTERM loses nothing ----------------------------------------------------------------------------------------------


def stopped(seed, stops):
    """So many servers get SIGTERM under load: what one of them has taken on is answered and in its log, and it ends well."""
    dice, lost, answered, unanswered = random.Random(seed), 0, Counter(), 0
    for _ in range(stops):
        calls = free_port()
        with served(0.002, calls=calls) as (child, port, log):
            told, silent = asyncio.run(_until_it_ends(child, port, calls, 0.1 + dice.random() * 0.4))
            assert child.wait(30) == 0, f"the server ended with {child.returncode}"
            logged = {json.loads(line)["whose"] for line in log.read_text().splitlines()}
        over = _ways(told)
        lost += len(told ^ logged)  # not in the log, or in the log and its client heard nothing
        answered, unanswered = answered + over, unanswered + len(silent)
    note = f"{answered['HTTP']:,} requests and {answered['gRPC']:,} calls answered, {unanswered} that no server had taken on"
    return Figures(stops, Verdict(lost=lost), notes=[note])


async def _until_it_ends(child, port, calls, seconds):
    told, silent = set(), set()
    half = NORMAL_CLIENTS // 2
    clients = [asyncio.create_task(_asks_on(port, n, told, silent)) for n in range(half)]
    clients += [asyncio.create_task(asking_grpc.asks_on(calls, n, told, silent)) for n in range(half)]
    await _there(lambda: len(_ways(told)) == 2)  # a channel takes its time to connect
    await asyncio.sleep(seconds)
    child.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    return told, silent


def _ways(told):
    """How many were answered over each protocol."""
    return Counter("gRPC" if name.startswith("grpc") else "HTTP" for name in told)


async def _there(load):
    """Wait until there is load."""
    until = time.monotonic() + 60
    while not (found := load()):
        assert time.monotonic() < until, "there was no load"
        await asyncio.sleep(0.01)
    return found


async def _asks_on(port, client, told, silent, *, ended=lambda: True):
    """Ask until nobody listens any more; unless the server has ended, somebody will again."""
    number = 0
    while True:
        try:
            streams = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if ended():
                return
            await asyncio.sleep(0.02)
            continue
        while not streams[1].is_closing():
            name, number = f"{client}-{number}" + "." * (number % 5), number + 1  # no head like the last one
            try:
                status, _ = await ask(streams, {"who": name, "x": 1.0})
            except GONE:
                silent.add(name)
                streams[1].close()
                break
            if status == 200:
                told.add(name)


# --- a worker that is killed costs its own connections -------------------------------------------------------------------


def workers_killed(seed, kills):
    """One of two workers gets SIGKILL, again and again: who was answered is in the log, and nobody else but who was cut off."""
    dice, lost, made_up, answered, unanswered = random.Random(seed), 0, 0, 0, 0
    left = kills
    while left > 0:
        some, left = min(left, KILLS_A_SERVER), left - KILLS_A_SERVER
        with served(0.002, workers=2) as (child, port, log):
            told, silent = asyncio.run(_killed_at_times(child, port, dice, some))
            assert child.wait(30) == 0, f"the server ended with {child.returncode}"
            logged = [json.loads(line)["whose"] for line in log.read_text().splitlines()]
        lost += len(told - set(logged))
        made_up += len(set(logged) - told - silent) + len(logged) - len(set(logged))
        answered, unanswered = answered + len(told), unanswered + len(silent)
    note = f"{answered:,} requests answered, {unanswered} cut off with the worker that was killed"
    return Figures(kills, Verdict(lost=lost, duplicated=made_up), notes=[note])


async def _killed_at_times(child, port, dice, kills):
    told, silent = set(), set()
    clients = [
        asyncio.create_task(_asks_on(port, n, told, silent, ended=lambda: child.poll() is not None))
        for n in range(NORMAL_CLIENTS)
    ]
    for _ in range(kills):
        await asyncio.sleep(0.3 + dice.random())
        os.kill(dice.choice(await _there(lambda: _workers(child.pid))), signal.SIGKILL)
    await asyncio.sleep(2)
    await _there(lambda: len(told) > 10 * kills)
    assert child.poll() is None, "the server ended"
    child.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    return told, silent


def workers_killed_at_places(seed, kills):
    """The same, where a worker dies at a named place: both do once, and who comes after them lives on."""
    dice, places, figures = random.Random(seed), Counter(), Figures()
    while places.total() < kills:
        place = SERVER_PLACES[places.total() // 2 % len(SERVER_PLACES)]
        with served(0.002, workers=2, failpoints=f"{place}=kill@{dice.randint(200, 400)}") as (
            child,
            port,
            log,
        ):
            told, silent = asyncio.run(_killed_at_place(child, port))
            assert child.wait(30) == 0, f"the server ended with {child.returncode}"
            logged = [json.loads(line)["whose"] for line in log.read_text().splitlines()]
        places[place] += 2
        made_up = len(set(logged) - told - silent) + len(logged) - len(set(logged))
        verdict = Verdict(rows=len(told), lost=len(told - set(logged)), duplicated=made_up)
        figures += Figures(2, verdict)
    figures.places = places
    return figures


async def _killed_at_place(child, port):
    told, silent = set(), set()
    clients = [
        asyncio.create_task(_asks_on(port, n, told, silent, ended=lambda: child.poll() is not None))
        for n in range(NORMAL_CLIENTS)
    ]
    seen, alive, until = set(), set(), time.monotonic() + 120
    while len(seen - alive) < 2:
        assert time.monotonic() < until, f"{len(seen - alive)} died, of {len(told)} answered"
        alive = set(_workers(child.pid))
        seen |= alive
        await asyncio.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    return told, silent


def _workers(parent):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, above, *_ = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(above) == parent and state != "Z" and "spawn_main" in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


# --- slow sockets cost the others little ---------------------------------------------------------------------------------


def slow_sockets(seed, requests):
    """So many requests beside 500 sockets that send a byte now and then, and as many without them."""
    del seed
    with served(0.001) as (_, port, _):
        asyncio.run(_normal(port, requests // 4, 0))
        alone, beside = [], []
        for _ in range(3):
            alone += asyncio.run(_normal(port, requests // 3, 0))
            beside += asyncio.run(_normal(port, requests // 3, SLOW_SOCKETS))
    before, now = _p99(alone), _p99(beside)
    note = f"p99 {1000 * before:.1f} ms, beside {SLOW_SOCKETS} slow sockets {1000 * now:.1f} ms"
    assert now <= 2 * before, note
    return Figures(len(beside), notes=[note])


def _p99(times):
    return sorted(times)[int(len(times) * 0.99)]


async def _normal(port, requests, slow):
    drips = [asyncio.create_task(_drip(port, n)) for n in range(slow)]
    await asyncio.sleep(0.5)
    each = -(-requests // NORMAL_CLIENTS)
    times = await asyncio.gather(*(_timed(port, each) for _ in range(NORMAL_CLIENTS)))
    ended = [drip for drip in drips if drip.done()]
    assert not ended, f"{len(ended)} slow sockets were cut off early"
    for drip in drips:
        drip.cancel()
    await asyncio.gather(*drips, return_exceptions=True)
    return [one for some in times for one in some]


async def _drip(port, number):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.sleep(number % 50 / 100)
    try:
        for byte in HEAD.encode():
            writer.write(bytes([byte]))
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.5)
                return  # an answer, or the end
    finally:
        writer.close()


async def _timed(port, requests):
    streams, times = await asyncio.open_connection("127.0.0.1", port), []
    for _ in range(requests):
        begun = time.perf_counter()
        status, _ = await ask(streams, {"who": "me", "x": 1.0})
        times.append(time.perf_counter() - begun)
        assert status == 200, f"status {status}"
    streams[1].close()
    return times


if __name__ == "__main__":
    _, place, file, pause, processes, most, beside = sys.argv
    serve(int(place), file, pause, workers=int(processes), records=int(most) if most else None, calls=beside)
