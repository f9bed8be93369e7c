"""Clients of gRPC that do not take their answers, which its own libraries never are: spoken here frame by frame."""

import errno
import os
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc as triton

from mlinfer import InferencePipeline
from mlinfer._online import Nowhere
from mlinfer._online._crew import serving
from mlinfer._online._grpc_messages import CLASSES, SERVING
from mlinfer._online._grpc_taking import TURN_SECONDS, Taking
from mlinfer._online._serving import Serving
from mlinfer._online._wire import Patience
from mlinfer.hosts import FunctionHost
from mlinfer.sources import IterableSource
from served import nothing

HERE = {"grpc_bind": "127.0.0.1:0"}
CHECK, INFER = "/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ModelInfer"
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6
MIB = 2**20
WITHIN = 50  # seconds, on a machine that may be busy with many


def letters(records):
    """As many as each record wants."""
    return {"y": ["z" * wanted for wanted in records.column("n").to_pylist()]}


def wordy(function=letters):
    function.__name__ = "letters"
    host = FunctionHost(function, {"n": pa.int64()}, {"y": pa.string()}, version="1")
    return InferencePipeline(IterableSource(nothing), host, Nowhere())


def frame(kind, flags, stream, data=b""):
    return len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data


def heading(path):
    said = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers", "content-type": "application/grpc"}  # fmt: skip
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in said.items()
    )


class Hoarder:
    """A client that has room for no byte of any answer: the window of each of its streams is 0."""

    def __init__(self, address):
        self.socket = socket.create_connection(address.split(":"), timeout=WITHIN)
        window = (4).to_bytes(2) + (0).to_bytes(4)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, window))
        self._stream = 1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, path, message=b""):
        body = b"\0" + len(message).to_bytes(4) + message
        self.socket.sendall(
            frame(HEADERS, 4, self._stream, heading(path)) + frame(DATA, 0, self._stream, body)
        )
        self._stream += 2

    def hears(self, wanted, seconds):
        """How many frames of this kind come, at most so many and for so long; None: the connection ended."""
        found, end = 0, time.monotonic() + seconds
        while found < wanted and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                head = self.socket.recv(9, socket.MSG_WAITALL)
                body = self.socket.recv(int.from_bytes(head[:3]), socket.MSG_WAITALL) if head[:3] else b""
                if len(head) == 9 and head[3] == PING and not head[4]:
                    self.socket.sendall(frame(PING, 1, 0, body))
            except TimeoutError:
                break
            except OSError:
                return None
            if len(head) < 9:
                return None
            found += head[3] == HEADERS
        return found


def wanting(count):
    request = CLASSES["ModelInferRequest"](model_name="letters")
    request.inputs.add(name="n", datatype="INT64", shape=[1]).contents.int64_contents.append(count)
    return request.SerializeToString()


def answered(channel, path, message=b""):
    return channel.unary_unary(path)(message, timeout=WITHIN)


def until(there):
    """Wait for a condition."""
    end = time.monotonic() + WITHIN
    while not there():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_of_answers_over_grpc_that_nobody_takes_so_many_bytes_wait_and_no_more(monkeypatch):
    """Whoever has let his wait longest goes, with his connection, and those who ask now are answered all the same."""
    size, room = 8 * MIB, 20 * MIB
    monkeypatch.setattr("mlinfer._online._listener.MOST_BYTES_AT_ONCE", room)
    monkeypatch.setattr("mlinfer._online._grpc_taking.TURN_SECONDS", 0.05)
    with (
        serving(wordy().job, Serving("127.0.0.1:0", **HERE), Patience(taking=600)) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
        ExitStack() as stack,
    ):
        answered(channel, INFER, wanting(1))
        idle = stack.enter_context(Hoarder(server.grpc_address))
        hoarders, before = [], memory()
        for _ in range(20):
            one = stack.enter_context(Hoarder(server.grpc_address))
            one.ask(INFER, wanting(size))
            assert one.hears(1, WITHIN) == 1  # the head of an answer
            hoarders.append(one)
            answered(channel, INFER, wanting(1))
        assert [one.hears(1, 2) is None for one in hoarders] == [True] * 18 + [False] * 2
        # 20 answers, and what gRPC makes of each, are 40 times the size and more
        until(lambda: memory() - before < 20 * size)
        assert idle.hears(1, 0.1) == 0  # owes nothing, and goes on


def test_an_answer_over_grpc_is_waited_for_so_long(monkeypatch, caplog):
    monkeypatch.setattr("mlinfer._online._grpc_taking.TURN_SECONDS", 0.05)
    with (
        serving(wordy().job, Serving("127.0.0.1:0", **HERE), Patience(taking=1)) as server,
        Hoarder(server.grpc_address) as one,
    ):
        begun = time.monotonic()
        one.ask(INFER, wanting(3))
        assert one.hears(1, WITHIN) == 1
        assert one.hears(1, 20) is None
        assert time.monotonic() - begun >= 1
        until(lambda: not server.listener._untaken)
    assert not caplog.records  # that strangers part is nothing to fill a log with


def test_where_no_file_can_be_opened_for_a_moment_the_next_look_ends_what_waits(monkeypatch):
    monkeypatch.setattr("mlinfer._online._grpc_taking.TURN_SECONDS", 0.05)
    looked, listed = [], Path.iterdir

    def full(path):
        if str(path) == "/dev/fd" and len(looked) < 3:
            looked.append(path)
            raise OSError(errno.EMFILE, "Too many open files")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", full)
    with (
        serving(wordy().job, Serving("127.0.0.1:0", **HERE), Patience(taking=0.5)) as server,
        Hoarder(server.grpc_address) as one,
    ):
        one.ask(INFER, wanting(3))
        assert one.hears(1, WITHIN) == 1
        assert one.hears(1, 20) is None
    assert len(looked) == 3


def test_calls_whose_answers_nobody_takes_leave_room_for_others(monkeypatch):
    """Also of probes, which anybody may ask without a key."""
    monkeypatch.setattr("mlinfer._online._grpc.MOST_CALLS", 32)
    with wordy().serving(**HERE) as server, ExitStack() as stack:
        for _ in range(8):
            one = stack.enter_context(Hoarder(server.grpc_address))
            for _ in range(4):
                one.ask(CHECK)
        with grpc.insecure_channel(server.grpc_address) as channel:

            def serves():
                with suppress(grpc.RpcError):  # for the moment
                    return answered(channel, CHECK) == SERVING

            until(serves)


def test_answers_that_are_taken_count_no_more(monkeypatch):
    size = 16 * MIB
    monkeypatch.setattr("mlinfer._online._listener.MOST_BYTES_AT_ONCE", 20 * MIB)
    with (
        wordy().serving(**HERE) as server,
        triton.InferenceServerClient(server.grpc_address) as client,
    ):
        asked = triton.InferInput("n", [1], "INT64")
        for _ in range(4):
            asked.set_data_from_numpy(np.array([size]))
            assert len(client.infer("letters", [asked]).as_numpy("y")[0]) == size
        until(lambda: not server.listener._untaken)
        assert server.listener._untaken_bytes == 0


def test_a_client_keeps_its_connection_when_the_loop_stands_still_while_it_takes_what_it_asked_for(
    monkeypatch,
):
    """What it has taken meanwhile the loop hears of later than that the time is over in which it was to take it."""
    held, stood, taken = [], [], Taking._taken

    def together(records):
        while not held and server.waiting < 40:  # they are the next batch
            time.sleep(0.01)
        held.append(True)
        return letters(records)

    def standing_still(taking, given):
        taken(taking, given)
        if not stood and len(taking._turns) > 20:
            stood.append(time.sleep(3 * TURN_SECONDS))

    monkeypatch.setattr("mlinfer._online._listener.MOST_BYTES_AT_ONCE", 8 * MIB)
    monkeypatch.setattr(Taking, "_taken", standing_still)
    long = [("grpc.max_receive_message_length", -1)]
    with (
        wordy(together).serving(**HERE) as server,
        grpc.insecure_channel(server.grpc_address, long) as channel,
    ):
        ask = channel.unary_unary(INFER)
        first = ask.future(wanting(1), timeout=WITHIN)
        until(lambda: server.desk.busy and not server.waiting)
        calls = [ask.future(wanting(2 * MIB), timeout=WITHIN) for _ in range(40)]
        assert first.result()
        assert all(len(call.result()) > 2 * MIB for call in calls)
    assert stood


def test_a_client_that_takes_all_it_asked_for_at_once_keeps_its_connection(monkeypatch):
    """A batch has the answers ready together, and no client can have taken the first one by then."""
    monkeypatch.setattr("mlinfer._online._listener.MOST_BYTES_AT_ONCE", 8 * MIB)
    monkeypatch.setattr("mlinfer._online._grpc_taking.TURN_SECONDS", 60.0)  # however slow the client is
    with wordy().serving(**HERE) as server:
        long = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(server.grpc_address, long) as channel:
            ask = channel.unary_unary(INFER)
            calls = [ask.future(wanting(2 * MIB), timeout=WITHIN) for _ in range(40)]
            assert all(len(call.result()) > 2 * MIB for call in calls)
            taking = server.grpc._taking
            with Hoarder(server.grpc_address) as one:
                one.ask(INFER, wanting(7 * MIB))
                assert one.hears(1, WITHIN) == 1
                # who gives up while his answer waits for its turn leaves nothing behind
                calls = [ask.future(wanting(2 * MIB), timeout=WITHIN) for _ in range(10)]
                until(lambda: len(taking._turns) == 10)
                for call in calls:
                    call.cancel()
                until(lambda: not taking._turns)
            until(lambda: (taking._turns, taking._given, server.listener._untaken_bytes) == ({}, {}, 0))
