"""Where the server may listen, and who may ask it."""

import datetime as dt
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import httpx
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import mlinfer
from mlinfer import Batching, ConfigError, InferencePipeline
from mlinfer._cli import main
from mlinfer._online import new_key, serving
from mlinfer._online._keys import Keys
from mlinfer._online._pace import Pace
from mlinfer._online._serving import Serving
from mlinfer._online._wire import MOST_BYTES, MOST_BYTES_AT_ONCE, Patience, Refused
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource
from ports import free_port

PREDICT = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 8\r\n"
)


def made():
    host = FunctionHost(lambda x: x + 1, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    return InferencePipeline(MemorySource({"x": [0.0]}), host, MemoryDestination())


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A certificate for localhost, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1)).add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


@pytest.fixture
def keys(tmp_path):
    """A file with the key of `ann`, and the key."""
    key, line = new_key("ann")
    path = tmp_path / "keys.toml"
    path.write_text(line + "\n")
    return path, key


def shows(key):
    return {"Authorization": f"Bearer {key}"}


# --- keys -----------------------------------------------------------------------------------------------------------


def test_a_key_lets_in_and_nothing_else_does(keys):
    path, key = keys
    with made().serving(keys=path) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", json={"x": 1}, headers=shows(key)).json() == {"y": 2.0}
        for wrong in ({}, shows(key[:-1]), shows(key + "a"), {"Authorization": "Bearer"}, {"Authorization": f"Basic {key}"},
                      {"Authorization": key}, shows(hashlib.sha256(key.encode()).hexdigest())):  # fmt: skip
            found = client.post("/predict", json={"x": 1}, headers=wrong)
            assert found.status_code == 401, wrong
            assert found.headers["WWW-Authenticate"] == "Bearer"
        twice = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer other")]
        assert client.post("/predict", json={"x": 1}, headers=twice).status_code == 401


def test_without_a_key_a_stranger_learns_that_it_lives_and_nothing_more(keys):
    path, key = keys
    with made().serving(keys=path) as server, httpx.Client(base_url=server.url) as client:
        for at in ("/live", "/ready", "/v2/health/live", "/v2/health/ready"):
            assert client.get(at).status_code == 200
        for at in (
            "/v2",
            "/predict",
            "/openapi.json",
            "/docs",
            "/nothing",
            "/metrics",
            "/v2/models/anything",
        ):
            assert client.get(at).status_code == 401, at
        assert client.get("/v2", headers=shows(key)).status_code == 200


def test_a_key_is_valid_until_it_expires_also_for_a_connection_that_is_open(keys):
    path, key = keys
    with made().serving(keys=path) as server:
        address = server.url.removeprefix("http://").split(":")
        with socket.create_connection(address) as connection:
            # the same head each time
            sent = PREDICT + f"Authorization: Bearer {key}\r\n\r\n".encode() + b'{"x": 1}'
            file = connection.makefile("rb")

            def status():
                connection.sendall(sent)
                return _status(file)

            assert [status(), status()] == [200, 200]
            end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1.5)  # longer than the file goes unread
            newer = path.with_name("newer")
            newer.write_text(path.read_text().replace(" }", f", expires = {end.isoformat()} }}"))
            newer.replace(path)
            _until(lambda: status() == 401)
            assert dt.datetime.now(dt.UTC) >= end


def test_a_key_that_was_struck_out_is_refused_also_on_a_connection_that_is_open(keys, caplog):
    path, key = keys
    other, line = new_key("bob")
    with made().serving(keys=path) as server, httpx.Client(base_url=server.url) as client:
        assert client.post("/predict", json={"x": 1}, headers=shows(key)).status_code == 200
        path.write_text("this is no file of keys")
        _until(lambda: "the keys stay as they were" in caplog.text)
        assert client.post("/predict", json={"x": 1}, headers=shows(key)).status_code == 200
        path.write_text(line)
        _until(lambda: client.post("/predict", json={"x": 1}, headers=shows(key)).status_code == 401)
        assert client.post("/predict", json={"x": 1}, headers=shows(other)).status_code == 200


@pytest.mark.parametrize(
    "text",
    ["ann = 7", 'ann = "KEY"', 'ann = { sha256 = "KEY" }', "ann = {}", 'ann = { sha256 = "%s", more = 1 }' % ("0" * 64),
     'ann = { sha256 = "%s", expires = "tomorrow" }' % ("0" * 64), '"a b" = { sha256 = "%s" }' % ("0" * 64), "= 1", None],
)  # fmt: skip
def test_a_file_that_holds_anything_else_is_refused_without_showing_it(tmp_path, text):
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match="keys: wanted") as raised, made().serving(keys=path):
        pass
    assert "KEY" not in str(raised.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_nobody_could_ask_does_not_start(tmp_path, monkeypatch, workers):
    (tmp_path / "keys.toml").write_text("# ann has left\n")
    monkeypatch.setenv("SERVER_KEYS", "")
    for where in (tmp_path / "keys.toml", "${SERVER_KEYS}"):
        with (
            pytest.raises(
                ConfigError, match=r"keys: wanted at least one key .* found none.*mlinfer keys new"
            ),
            made().serving(keys=where, workers=workers),
        ):
            pass


def test_a_server_warns_of_keys_that_have_all_expired_and_of_a_file_that_everybody_may_write(
    tmp_path, caplog
):
    path = tmp_path / "keys.toml"
    for line, mode, told in (
        (new_key("ann")[1], 0o644, []),
        (new_key("ann")[1], 0o646, [f"keys: everybody on this machine may write {path}, and so let himself in: chmod o-w"]),
        (new_key("ann")[1].replace(" }", ", expires = 2020-01-01 }"), 0o600, [f"keys: every key in {path} has expired: nobody may ask"]),
    ):  # fmt: skip
        caplog.clear()
        path.write_text(line)
        path.chmod(mode)
        with made().serving(keys=path):
            assert [record.getMessage() for record in caplog.records if "keys" in record.getMessage()] == told


def test_a_short_key_does_not_get_in_whatever_the_file_says(tmp_path):
    path = tmp_path / "keys.toml"
    for length, status in ((21, 401), (22, 200)):
        key = "k" * length
        path.write_text(f'ann = {{ sha256 = "{hashlib.sha256(key.encode()).hexdigest()}" }}')
        with made().serving(keys=path) as server:
            found = httpx.post(f"{server.url}/predict", json={"x": 1}, headers=shows(key))
        assert found.status_code == status


def test_whatever_is_shown_is_compared_with_every_digest_in_constant_time(two, monkeypatch):
    """How long it takes says neither how much of a key was right, nor whose it was."""
    path, ann, bob = two
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(
        "mlinfer._online._keys.hmac.compare_digest", lambda *both: compared.append(both) or compare(*both)
    )
    keys, lengths = Keys(path), []
    for shown in (ann, bob, "x" * len(ann)):
        with suppress(Refused):
            keys.holder(f"Bearer {shown}")
        lengths.append(len(compared))
    assert lengths == [2, 4, 6]
    assert {len(one) for both in compared for one in both} == {hashlib.sha256().digest_size}


def test_a_date_ends_a_key_with_its_beginning_and_a_time_without_a_zone_is_utc(tmp_path):
    path = tmp_path / "keys.toml"
    lines = [f'{name} = {{ sha256 = "{"0" * 64}", expires = {end} }}' for name, end in
             {"a": "2030-01-02", "b": "2030-01-02T00:00:00", "c": "2030-01-02T01:00:00+01:00"}.items()]  # fmt: skip
    path.write_text("\n".join(lines))
    moment = dt.datetime(2030, 1, 2, tzinfo=dt.UTC).timestamp()
    assert [key.until for key in Keys(path)._keys] == [moment] * 3


@pytest.fixture
def two(tmp_path):
    """A file with the keys of `ann` and `bob`, and both keys."""
    (ann, first), (bob, second) = new_key("ann"), new_key("bob")
    path = tmp_path / "keys.toml"
    path.write_text(f"{first}\n{second}\n")
    return path, ann, bob


def announced(server, key, stack):
    """The first line that comes of a body of 16 MiB that was told of and is not sent yet."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), 60))
    head = PREDICT.replace(b": 8\r\n", b": %d\r\n" % MOST_BYTES) + b"Expect: 100-continue\r\n"
    connection.sendall(head + f"Authorization: Bearer {key}\r\n\r\n".encode())
    return connection.makefile("rb").readline()


def test_one_key_alone_may_have_all_the_room(keys):
    path, ann = keys
    with made().serving(keys=path) as server, ExitStack() as stack:
        for _ in range(MOST_BYTES_AT_ONCE // MOST_BYTES):
            assert b"100" in announced(server, ann, stack)
        assert b"503" in announced(server, ann, stack)


def test_of_several_keys_none_has_the_room_of_the_others(two):
    path, ann, bob = two
    with made().serving(keys=path) as server, ExitStack() as stack:
        got = [announced(server, ann, stack) for _ in range(MOST_BYTES_AT_ONCE // MOST_BYTES)]
        assert [b"100" in one for one in got] == [True] * 5 + [False] * 3  # beyond the half, no more
        assert b"503" in got[-1]
        assert b"100" in announced(server, bob, stack)
        assert b"503" in announced(server, ann, stack)
        assert b"100" in announced(server, bob, stack)


def test_a_key_that_floods_the_server_leaves_time_for_another(two, monkeypatch):
    """The model takes 20 records a second, and nobody waits for more than a second because of others."""
    path, ann, bob = two
    took = Pace.took
    monkeypatch.setattr(Pace, "took", lambda pace, rows, _: took(pace, rows, 0.05))  # on a busy machine, too

    def slow(x):
        time.sleep(0.05)
        return x

    host = FunctionHost(slow, {"x": pa.float64()}, {"y": pa.float64()}, takes="numpy", version="1")
    pipeline = InferencePipeline(
        MemorySource({"x": [0.0]}), host, MemoryDestination(), batching=Batching(max_records=1)
    )
    over = threading.Event()
    with serving(pipeline.job, Serving("127.0.0.1:0", keys=path), Patience(queue=1.0)) as server:

        def flood():
            found = Counter()
            with httpx.Client(base_url=server.url, headers=shows(ann), timeout=60, verify=False) as client:
                while not over.is_set():
                    found[client.post("/predict", json={"x": 1.0}).status_code] += 1
                    over.wait(0.05)  # else the clients have the processor, and not the server
            return found

        with (
            ThreadPoolExecutor(40) as pool,
            httpx.Client(base_url=server.url, headers=shows(bob), timeout=60) as client,
        ):

            def ask():
                return client.post("/predict", json={"x": 1.0}).status_code

            known = ask()  # by which the server knows how long the model takes
            floods = [pool.submit(flood) for _ in range(40)]
            try:
                _until(lambda: server.waiting >= 5)
                got = [ask() for _ in range(8)]
            finally:
                over.set()
            told = sum((one.result() for one in floods), Counter())
    assert [known, *got] == [200] * 9
    assert told[503] > 0, "there was no flood"
    assert told[200] > 0
    assert set(told) == {200, 503}


def test_a_new_key_is_printed_once_and_its_line_lets_it_in(tmp_path, capsys):
    assert main(["keys", "new", "web-shop"]) == 0
    key, line = capsys.readouterr().out.splitlines()
    assert len(key) >= 43, "256 bits in base64"
    assert key not in line
    (tmp_path / "keys.toml").write_text(line)
    with made().serving(keys=tmp_path / "keys.toml") as server:
        assert httpx.get(f"{server.url}/v2", headers=shows(key)).status_code == 200
    assert main(["keys", "new", "web shop"]) == 2


# --- TLS ------------------------------------------------------------------------------------------------------------


def test_over_tls_a_client_that_checks_the_certificate_gets_its_answers(tls):
    trust = ssl.create_default_context(cafile=tls[0])
    with made().serving(tls=tls) as server, httpx.Client(base_url=server.url, verify=trust) as client:
        assert server.url.startswith("https://")
        for n in range(20):
            assert client.post("/predict", json={"x": n}).json() == {"y": n + 1.0}
        large = client.post("/predict", json=[{"x": n} for n in range(20_000)])
        assert [one["y"] for one in large.json()] == [n + 1.0 for n in range(20_000)]
        refused = client.post("/predict", content=b"{}", headers={"Content-Type": "text/plain"})
        assert refused.status_code == 415, "a client that is refused must see why"


def test_a_client_that_hangs_up_over_tls_disturbs_nobody(tls, caplog):
    trust = ssl.create_default_context(cafile=tls[0])
    with made().serving(tls=tls) as server, caplog.at_level(logging.WARNING):
        address = server.url.removeprefix("https://").split(":")
        for sent in (b"", b"POST ", PREDICT + b"\r\n"):
            with trust.wrap_socket(
                socket.create_connection(address), server_hostname="localhost"
            ) as connection:
                connection.sendall(sent)
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")  # without TLS
            assert b"HTTP" not in connection.makefile("rb").read()
        assert httpx.get(f"{server.url}/live", verify=trust).status_code == 200
    assert not caplog.records


def test_tls_before_1_2_is_not_spoken(tls):
    old = ssl.create_default_context(cafile=tls[0])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with made().serving(tls=tls) as server:
        address = server.url.removeprefix("https://").split(":")
        with socket.create_connection(address) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain, server_hostname="localhost")


def test_a_certificate_that_is_none_is_a_mistake_of_the_configuration(tls, tmp_path):
    locked = tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(tls[1].read_bytes(), None)
    password = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password)
    )
    for files in ((tls[0], tls[0]), (tls[0], tmp_path / "none.pem"), (tls[0], locked)):
        with pytest.raises(ConfigError, match="tls: wanted a certificate"), made().serving(tls=files):
            pass


# --- where ----------------------------------------------------------------------------------------------------------


def test_where_others_can_reach_it_a_server_needs_tls_and_keys_and_names(tls, keys, caplog):
    everywhere, path = "0.0.0.0:0", keys[0]
    for lacking in ({}, {"tls": tls}, {"keys": path}):
        with (
            pytest.raises(ConfigError, match="insecure"),
            made().serving(everywhere, names=["a.example"], **lacking),
        ):
            pass
    for more in ({"tls": tls, "keys": path}, {"insecure": True}):
        with pytest.raises(ConfigError, match="names"), made().serving(everywhere, **more):
            pass
    trust = ssl.create_default_context(cafile=tls[0])
    with made().serving(everywhere, tls=tls, keys=path, names=["localhost"]) as server:
        port = server.url.rpartition(":")[2]
        found = httpx.get(f"https://localhost:{port}/v2", verify=trust, headers=shows(keys[1]))
        assert found.status_code == 200
    assert not caplog.records, "nothing to warn of"
    with made().serving(everywhere, names=["a.example"], insecure=True) as server:
        port = server.url.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/v2", headers={"Host": "a.example"}).status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/v2", headers={"Host": "b.example"}).status_code == 400
        assert httpx.get(f"http://127.0.0.1:{port}/v2").status_code == 400, (
            "the address is not among the names"
        )
    assert "without TLS and keys" in caplog.text


def test_a_name_given_is_one_more_by_which_a_loopback_server_may_be_asked():
    with made().serving(names=["Scores.example"]) as server:
        for host, status in {
            "scores.example": 200,
            "SCORES.example:80": 200,
            "localhost": 200,
            "x.example": 400,
        }.items():
            found = httpx.get(f"{server.url}/live", headers={"Host": host})
            assert found.status_code == status
            assert ("--name" in found.text) == (status != 200), "who asks is told what the server lacks"


@pytest.mark.parametrize("names", ["a.example", ["a.example:80"], ["http://a.example"], [""], ["*"]])
def test_what_is_no_host_name_is_refused(names):
    with pytest.raises(ConfigError, match="names: wanted"):
        Serving(names=names)


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("bind", 8080), ("bind", None), ("bind", b"127.0.0.1:0"), ("bind", ("127.0.0.1", 0)), ("grpc_bind", 8081),
        ("workers", "2"), ("workers", 1.5), ("workers", None), ("log_sample", "0.5"), ("log_sample", None),
        ("log", ["behind"]), ("log", None), ("names", None), ("names", [1]), ("names", 7), ("insecure", "no"), ("access_log", 1),
    ],
)  # fmt: skip
def test_an_option_of_another_type_is_told_in_words(option, given):
    with pytest.raises(ConfigError, match=f"{option}: wanted .* found "):
        Serving(**{option: given})


def test_no_answer_lets_a_page_from_elsewhere_read_it():
    with made().serving() as server:
        for found in (
            httpx.get(f"{server.url}/live", headers={"Origin": "https://evil.example"}),
            httpx.request("OPTIONS", f"{server.url}/predict", headers={"Origin": "https://evil.example"}),
        ):
            assert not [name for name in found.headers if name.startswith("access-control")]


# --- the command ----------------------------------------------------------------------------------------------------


def test_a_saved_model_is_served_alone_over_tls_with_keys(tmp_path, tls, keys):
    x, y = load_iris(return_X_y=True)
    mlinfer.save(
        LogisticRegression(max_iter=500).fit(x, y), tmp_path / "iris.mlinfer", example=x, name="iris"
    )
    command = [sys.executable, "-m", "mlinfer", "serve", "iris.mlinfer", "--bind", "127.0.0.1:0",
               "--tls-cert", tls[0], "--tls-key", tls[1], "--keys", keys[0], "--name", "iris.example"]  # fmt: skip
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        url = re.search(r"https://\S+:\d+", server.stderr.readline())[0]
        trust = ssl.create_default_context(cafile=tls[0])
        with httpx.Client(base_url=url, verify=trust, headers=shows(keys[1])) as client:
            assert client.post("/predict", json={"x": list(x[149])}).json() == {"y_pred": 2}
            model = client.get("/v2/models/iris", headers={"Host": "iris.example"}).json()
            assert [one["name"] for one in model["inputs"]] == ["x"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["iris.mlinfer", "keys.toml"], "no log"


def test_half_of_a_certificate_is_a_mistake(tmp_path, capsys):
    (tmp_path / "model.mlinfer").mkdir()
    assert main(["serve", str(tmp_path / "model.mlinfer"), "--tls-cert", "cert.pem"]) == 2
    assert "--tls-key" in capsys.readouterr().err


def _status(file):
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    file.read(length)
    return status


def _until(true):
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def test_paths_of_keys_and_certificates_mean_what_other_paths_mean(tls, keys, monkeypatch):
    path, key = keys
    monkeypatch.setenv("HOME", str(tls[0].parent))
    monkeypatch.setenv("SECRETS", str(path.parent))
    trust = ssl.create_default_context(cafile=tls[0])
    ways = [("~/cert.pem", "${HOME}/key.pem"), (Path("~") / "cert.pem", f"file:{tls[1]}")]
    for files, where in zip(ways, ("${SECRETS}/keys.toml", Path("${SECRETS}") / "keys.toml"), strict=True):
        with made().serving(tls=files, keys=where, grpc_bind="127.0.0.1:0") as server:
            asked = httpx.post(f"{server.url}/predict", headers=shows(key), json={"x": 1.0}, verify=trust)
            assert asked.json() == {"y": 2.0}
            credentials = grpc.ssl_channel_credentials(tls[0].read_bytes())
            with grpc.secure_channel(server.grpc_address, credentials) as channel:
                live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=60)
            assert live == b"\x08\x01"


@pytest.mark.parametrize("given", ["cert.pem", ("cert.pem",), ("cert.pem", b"key.pem"), 7])
def test_what_are_no_two_files_is_told_in_words(given):
    with (
        pytest.raises(ConfigError, match=r"tls: wanted two files|wanted a path as text"),
        made().serving(tls=given),
    ):
        pass


def test_a_key_in_a_variable_that_should_name_its_file_is_not_shown(tls, monkeypatch):
    monkeypatch.setenv("TLS_KEY", tls[1].read_text())
    with (
        pytest.raises(ConfigError, match="tls: wanted a certificate") as raised,
        made().serving(tls=(tls[0], "${TLS_KEY}")),
    ):
        pass
    assert "PRIVATE" not in str(raised.value)


def test_keys_may_come_from_the_environment_or_a_secret_file(keys, monkeypatch):
    path, key = keys
    monkeypatch.setenv("SERVER_KEYS", path.read_text())
    monkeypatch.setenv("SECRETS", str(path.parent))
    for where in ("${SERVER_KEYS}", f"file:{path}", "file:${SECRETS}/keys.toml"):
        with made().serving(keys=where) as server:
            asked = {"json": {"x": 1.0}}
            assert httpx.post(f"{server.url}/predict", **asked).status_code == 401
            shown = {"Authorization": f"Bearer {key}"}
            assert httpx.post(f"{server.url}/predict", headers=shown, **asked).json() == {"y": 2.0}
    monkeypatch.setenv("SERVER_KEYS", "ann = 'secret-itself'")
    with (
        pytest.raises(ConfigError, match="keys: wanted NAME") as raised,
        made().serving(keys="${SERVER_KEYS}"),
    ):
        pass
    assert "secret-itself" not in str(raised.value)
    monkeypatch.delenv("SERVER_KEYS")
    with (
        pytest.raises(ConfigError, match="SERVER_KEYS: wanted a value"),
        made().serving(keys="${SERVER_KEYS}"),
    ):
        pass


def test_the_log_names_every_address_that_others_can_reach(caplog):
    names = {"names": ["scores.example"], "insecure": True}
    with made().serving(grpc_bind="0.0.0.0:0", **names):
        pass
    with made().serving("0.0.0.0:0", grpc_bind="127.0.0.1:0", **names):
        pass
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert warned == 2 * ["serving at 0.0.0.0:0 without TLS and keys: whoever reaches this address may ask"]


CROWDED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from mlinfer._cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


def test_strangers_who_only_connect_leave_room_for_those_who_ask(tls, tmp_path):
    """A process that may open 256 files, 600 sockets that say nothing: TLS is spoken and the admin port answers."""
    model = LogisticRegression(max_iter=500).fit(*load_iris(return_X_y=True))
    mlinfer.save(model, tmp_path / "iris.mlinfer", example=load_iris().data[:2])
    port, beside = free_port(), free_port()
    command = [
        sys.executable, "-c", CROWDED, "iris.mlinfer", "--bind", f"127.0.0.1:{port}", "--admin-bind", f"127.0.0.1:{beside}",
        "--tls-cert", str(tls[0]), "--tls-key", str(tls[1]),
    ]  # fmt: skip
    server = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    silent = []
    try:
        while "serving at" not in (line := server.stderr.readline()):
            assert line, "the server did not start"
        for _ in range(600):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            silent.append(one)
        time.sleep(1)
        trusted = ssl.create_default_context(cafile=str(tls[0]))
        for _ in range(5):
            assert httpx.get(f"https://localhost:{port}/live", verify=trusted, timeout=60).status_code == 200
            assert httpx.get(f"http://127.0.0.1:{beside}/live", timeout=60).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    finally:
        server.kill()
        server.communicate()
        for one in silent:
            one.close()
