"""A server that is asked badly, thousands of times: it answers each with a clear refusal, or rightly, and goes on.

`python -m torture.malformed` is the server: it says where it listens, and ends when its standard input does.
"""

import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from torture import collected, damage, judging
from torture.figures import Figures
from torture.oracle import Verdict

TESTS = Path(__file__).parents[1]
PLANNED = {501, 505}
"""A method and a version that nobody has promised."""
MOST_GROWN = 20.0
MOST_AT_ONCE, MOST_SECONDS = 150.0, 1.0
LIVE = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WARM = 1000
"""Requests after which memory has its size; large ones among them."""
SECRETS = re.compile(rb'Traceback|File "|\.py\b|/site-packages|0x[0-9a-f]{8}')
ABORT = struct.pack("ii", 1, 0)


def serve():
    """Serve a model that says back what it saw, until there is no more input."""
    import pyarrow as pa

    from mlinfer import InferencePipeline
    from mlinfer.destinations import StdoutDestination
    from mlinfer.hosts import FunctionHost
    from mlinfer.sources import MemorySource

    def duck(who, x, n, ok, v):  # noqa: PLR0917 - a column each
        return {"whose": who, "y": 2 * x, "same": n, "right": ok, "first": v[:, 0]}

    kinds = {
        "who": pa.string(),
        "x": pa.float64(),
        "n": pa.int64(),
        "ok": pa.bool_(),
        "v": pa.list_(pa.float64(), 3),
    }
    inputs = pa.schema([pa.field(name, kind, nullable=False) for name, kind in kinds.items()])
    outputs = {
        "whose": pa.string(),
        "y": pa.float64(),
        "same": pa.int64(),
        "right": pa.bool_(),
        "first": pa.float64(),
    }
    host = FunctionHost(duck, inputs, pa.schema(list(outputs.items())), takes="numpy", version="1")
    pipeline = InferencePipeline(MemorySource([damage.GOOD]), host, StdoutDestination(), name="malformed")
    with pipeline.serving(grpc_bind="127.0.0.1:0", access_log=True) as server:
        sys.stderr.write(f"{server.url} {server.grpc_address}\n")
        sys.stderr.flush()
        sys.stdin.read()


@contextmanager
def served():
    """A server in a process of its own: the process, its port, its address for gRPC, and the file of what it says."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        with said.open("wb") as file:
            child = subprocess.Popen(
                [sys.executable, "-m", "torture.malformed"], env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip
        try:
            while not said.read_bytes().endswith(b"\n"):
                assert child.poll() is None, "the server did not start"
            url, address = said.read_text().split()[-2:]
            yield child, int(url.rpartition(":")[2]), address, said
            child.stdin.close()
            assert child.wait(30) == 0, f"the server ended with {child.returncode}"
        finally:
            child.kill()
            child.wait()


class Judge:
    """Counts what came, keeps the first of what must not, and looks at the server's memory."""

    def __init__(self, child, seed):
        self.child, self.seed = child, seed
        self.seen, self.wrong, self.silent, self.examples = Counter(), 0, 0, []
        self.before = None

    def blame(self, what, kind, data):
        """Remember what was wrong, and with which bytes."""
        self.wrong += 1
        if len(self.examples) < 8:
            self.examples.append(f"{what}: {kind} {data[:600]!r}")

    def look(self, number):
        """Every now and then: the server lives, and its memory is where it was."""
        assert self.child.poll() is None, f"seed {self.seed}: the server ended at request {number}"
        if number == WARM:
            self.before = _megabytes(self.child)

    def figures(self, done, said):
        """What all of it comes to."""
        grown = 0.0 if self.before is None else _megabytes(self.child) - self.before
        inner = said.read_bytes().count(b"Traceback")
        if inner:
            self.examples.append(said.read_text(errors="replace").rpartition("Traceback")[2][:2000])
        assert grown <= MOST_GROWN, f"seed {self.seed}: memory grew by {grown:.1f} MB"
        statuses = ", ".join(f"{count:,} x {status}" for status, count in sorted(self.seen.items(), key=str))
        notes = [f"{statuses}; {inner} inner failures, memory {grown:+.1f} MB", *self.examples]
        return Figures(done, Verdict(wrong=self.wrong + inner, lost=self.silent), notes=notes)


def _megabytes(child, what="VmRSS:"):
    status = Path(f"/proc/{child.pid}/status").read_text()
    return int(status.partition(what)[2].split()[0]) / 1024


# --- HTTP ---------------------------------------------------------------------------------------------------------------


def over_http(seed, requests):
    """So many requests that are damaged, each on a connection of its own; a good one after every hundred."""
    dice = random.Random(seed)
    texts = collected.over_http(dice)
    with served() as (child, port, _, said):
        judge = Judge(child, seed)
        for number in range(requests):
            text = next(texts) if number % collected.EVERY == 0 else None
            kind, data = text or damage.request(dice)
            if text is None and dice.random() < 0.03:
                _abort(port, data[: dice.randrange(len(data) + 1)])
            else:
                _judge(judge, kind, data, _asked(port, data, dice))
            if number % 100 == 99:
                _good(judge, port, dice)
                judge.look(number + 1)
        figures = judge.figures(requests, said)
        figures.notes += [_much(child, port), collected.note()]
        return figures


def _much(child, port):
    """Bodies that are large once they are read are refused, cost little memory, and hold up nobody else for long."""
    before, slowest = _megabytes(child, "VmHWM:"), 0.0
    with ThreadPoolExecutor(1) as pool:
        for data in damage.much():
            asked = pool.submit(_asked, port, data, random.Random(0))
            while not asked.done():
                begun = _seconds_of_work(child)
                assert _asked(port, LIVE, random.Random(0)).startswith(b"HTTP/1.1 200 ")
                slowest = max(slowest, _seconds_of_work(child) - begun)
            answer = asked.result()
            assert answer.startswith((b"HTTP/1.1 413 ", b"HTTP/1.1 400 ")), (
                f"{data[:200]!r}: {answer[:300]!r}"
            )
    grown = _megabytes(child, "VmHWM:") - before
    assert grown < MOST_AT_ONCE, f"bodies of 15 MiB took {grown:.0f} MB"
    assert slowest < MOST_SECONDS, f"/live waited for {slowest:.1f} s of work on a body of 15 MiB"
    return f"bodies of 15 MiB, of lists of nothing and the like: {grown:.0f} MB at most, /live behind {slowest:.2f} s of work"


def _seconds_of_work(child):
    """What a process has had of the processor: a busy machine makes everybody wait, which is not what is asked here."""
    user, system = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _abort(port, data):
    """Say something and reset the connection: nobody waits for an answer."""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        with suppress(OSError):
            one.sendall(data)


def _asked(port, data, dice):
    """What comes back for bytes, sent in some pieces, whose end is told."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.settimeout(30)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 0, 1, 3])))
        with suppress(ConnectionError):  # refused before all was said
            for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
                one.sendall(data[start:end])
            one.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError, TimeoutError):
            while piece := one.recv(65536):
                answer += piece
    return answer


def _good(judge, port, dice):
    data = damage.good(dice)
    (owed,), answer = judging.owed(data), _asked(port, data, dice)
    found = list(_responses([owed], answer))
    if not (len(found) == 1 and found[0][0] == 200 and _given(*found[0][1:]) == _listed(owed.answers)):
        judge.blame(f"a good request failed with {answer[:300]!r}", "good", data)


def _judge(judge, kind, data, answer):
    owed = judging.owed(data)
    try:
        found = list(_responses(owed, answer))
    except (ValueError, IndexError, KeyError):
        judge.blame(f"no HTTP came: {answer[:300]!r}", kind, data)
        return
    if not found and owed:
        judge.silent += 1
        judge.blame("no answer", kind, data)
    if len(found) > len(owed) or (len(found) < len(owed) and found and found[-1][0] == 200):
        judge.blame(f"{len(found)} answers to {len(owed)} requests", kind, data)
    for (status, headers, body), one in zip(found, owed, strict=False):
        judge.seen[status] += 1
        if why := _wrong(status, headers, body, one):
            judge.blame(f"{why}: {status} {body[:300]!r}", kind, data)


def _wrong(status, headers, body, owed):
    """Why this is not what was owed, or None."""
    if status == 200:
        if owed.answers is None:
            return "answered what must be refused"
        right = owed.answers is ... or _given(headers, body) == _listed(owed.answers)
        return None if right else "answered wrongly"
    if not (400 <= status < 500 or status in PLANNED):
        return "an unplanned status"
    if owed.sure and owed.answers is not None:
        return "refused what is right"
    return None if _clear(body, bodiless="bodiless" in headers) else "refused without a clear word"


def _clear(body, *, bodiless):
    if bodiless:
        return not body
    said = json.loads(body)
    return bool(said["error"]) and not SECRETS.search(body) and len(body) < 20_000


def _responses(owed, answer):
    """The responses in a stream: status, headers and body of each. Raises ValueError: it is none."""
    asked = iter(owed)
    while answer:
        head, end, answer = answer.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9][0-9]) [A-Za-z -]+", line)
        if not end or not found:
            raise ValueError(line)
        if found[1] == "100":
            continue
        headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
        bodiless = getattr(next(asked, None), "bodiless", False)
        size = 0 if bodiless else int(headers["content-length"])
        if len(answer) < size:
            raise ValueError(size)
        yield int(found[1]), {**headers, **({"bodiless": ""} if bodiless else {})}, answer[:size]
        answer = answer[size:]


def _listed(answers):
    return answers if isinstance(answers, list) else [answers]


def _given(headers, body):
    """The answers in a body, of either way to ask."""
    size = int(headers.get("inference-header-content-length", len(body)))
    value, rest = json.loads(body[:size]), body[size:]
    if "outputs" not in value:
        return _listed(value)
    columns = {}
    for one in value["outputs"]:
        elements = judging.count(one["shape"], one["datatype"])
        if "data" in one:
            columns[one["name"]] = one["data"]
        else:
            taken = one["parameters"]["binary_data_size"]
            columns[one["name"]], rest = (
                judging.from_bytes(one["datatype"], rest[:taken], elements),
                rest[taken:],
            )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


if __name__ == "__main__":
    serve()
