"""Compare mlinfer's server with its peers: one process on one core, wrk on another, the servers in turns.

    python benchmarks/online.py [--runs 3] [--seconds 5] [--only mlinfer,fastapi] [--environments FOLDER]

Needs Linux with two cores and wrk (the Debian package of that name). Every server is asked 100 known records first, and
must give the labels that scikit-learn gives in its own environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from environment import HERE, machine, revision

SERVERS = HERE / "servers"
SHARED = "scikit-learn>=1.6"
HOME = HERE.parent
OIP = "/v2/models/{name}/infer"
LOADS = {  # by model: the records in a request and the connections
    "logistic": ((1, 1), (1, 64), (100, 16)),
    "forest": ((1, 1), (1, 64), (100, 16)),
}
COLUMNS = [(model, *load) for model, loads in LOADS.items() for load in loads]
PATIENCE = 120
SETTINGS = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLSERVER_MODEL_PARALLEL_WORKERS": "0",
    "PYTHONDONTWRITEBYTECODE": "",  # see measure.py
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Contender:
    """A server: how it is started and asked. What stands in braces is filled in; `form` is how it wants records."""

    name: str
    command: str
    environment: str = "mlinfer"
    path: str = OIP
    form: str = "oip"
    needs: tuple[str, ...] = ()
    suffix: str = "joblib"
    pinned: bool = True
    learned: bool = True
    """Whether it has a model: what it answers is checked, and 100 records take longer than one."""


OURS = ("--editable", f"{HOME}[serve]", f"{HOME / 'packages' / 'mlinfer-fast'}", SHARED)
CONTENDERS = (
    Contender("mlinfer", "{bin}/mlinfer serve {model} --bind 127.0.0.1:{port}", suffix="mlinfer", needs=OURS),
    Contender(
        "mlinfer, POST /predict", "{bin}/mlinfer serve {model} --bind 127.0.0.1:{port}",
        path="/predict", form="records", suffix="mlinfer", needs=OURS,
    ),
    Contender("mlinfer, uncompiled", "{python} {servers}/mlinfer_app.py {model} {port}", suffix="mlinfer", needs=OURS),
    Contender(
        "mlinfer with a log", "{python} {servers}/mlinfer_logged.py {model} {port}",
        suffix="mlinfer", needs=OURS,
    ),
    *(
        Contender(f"constant answers, {name}", command, "constant", needs=(SHARED, "uvicorn[standard]", "granian"), learned=False)
        for name, command in (
            ("protocol class", "{python} {servers}/constant.py {port}"),
            ("uvicorn", "{bin}/uvicorn --app-dir {servers} constant:asgi --port {port} --no-access-log --log-level warning"),
            ("granian", "{bin}/granian --interface rsgi --working-dir {servers} --port {port} constant:rsgi"),
        )
    ),
    Contender(
        "FastAPI, uvicorn",
        "{bin}/uvicorn --app-dir {servers} fastapi_app:app --port {port} --no-access-log",
        "fastapi", "/predict", "matrix", (SHARED, "fastapi", "uvicorn[standard]"),
    ),
    Contender("MLServer", "{bin}/mlserver start {folder}", "mlserver", needs=("mlserver", "mlserver-sklearn")),
    Contender("MLServer, batching", "{bin}/mlserver start {folder}", "mlserver", needs=("mlserver", "mlserver-sklearn")),
    Contender("LitServe", "{python} {servers}/litserve_app.py {port}", "litserve", "/predict", "matrix", (SHARED, "litserve")),
    Contender(
        "BentoML", "{bin}/bentoml serve bentoml_app:Classifier --working-dir {servers} --host 127.0.0.1 --port {port}",
        "bentoml", "/predict", "matrix", (SHARED, "bentoml"),
    ),
    Contender("Ray Serve", "{python} {servers}/ray_app.py {port}", "ray", "/predict", "matrix", (SHARED, "ray[serve]")),
    Contender("Ray Serve, batching", "{python} {servers}/ray_app.py {port} batching", "ray", "/predict", "matrix", (SHARED, "ray[serve]")),
    Contender("Triton, PyTriton", "{python} {servers}/pytriton_app.py {port} {more_ports}", "pytriton", needs=(SHARED, "nvidia-pytriton")),
)  # fmt: skip


def python_of(contender: Contender, environments: Path) -> Path:
    """The interpreter of a server; each has an environment of its own."""
    python = environments / contender.environment / "bin" / "python"
    if not python.exists():
        print(f"Setting up {contender.environment} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *contender.needs], check=True)
    return python


def body(contender: Contender, records: list[list[float]]) -> bytes:
    """Records as a server wants them."""
    if contender.form == "records":
        rows = [{"x": record} for record in records]
        return json.dumps(rows[0] if len(rows) == 1 else rows).encode()
    if contender.form == "oip":
        shape = [len(records), len(records[0])]
        flat = [value for record in records for value in record]
        return json.dumps(
            {"inputs": [{"name": "x", "shape": shape, "datatype": "FP64", "data": flat}]}
        ).encode()
    return json.dumps({"x": records}).encode()


def labels(contender: Contender, answer: Any) -> list[int]:
    """The labels in an answer."""
    if contender.form == "records":
        return [row["y_pred"] for row in (answer if isinstance(answer, list) else [answer])]
    return answer["outputs"][0]["data"] if contender.form == "oip" else answer


def path_of(contender: Contender, model: str) -> str:
    """Where it is asked."""
    return contender.path.format(name=model if contender.environment == "mlinfer" else "model")


def ask(port: int, path: str, data: bytes) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - a server it started
        return json.load(response)


@contextmanager
def running(contender: Contender, model: str, folder: Path, python: Path) -> Iterator[tuple[int, float, int]]:
    """A server on the first core: its port, the seconds until its first answer, and its process id."""
    (port,) = free_ports(1)
    file = folder / f"{model}.{contender.suffix}"
    if contender.environment == "mlserver":
        _settings(folder, file, port, batching="batching" in contender.name)
    log = folder / "log"
    shutil.rmtree(log, ignore_errors=True)
    parts = {
        "python": python,
        "bin": python.parent,
        "model": file,
        "port": port,
        "folder": folder,
        "servers": SERVERS,
        "more_ports": " ".join(map(str, free_ports(2))),
    }
    pinned = ["taskset", "-c", "0"] if contender.pinned else []
    command = [*pinned, *contender.command.format(**parts).split()]
    first = body(contender, [json.loads((folder / "asked.json").read_text())["records"][0]])
    begun = time.perf_counter()
    with (folder / "server.log").open("wb") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env={**os.environ, **SETTINGS, "MODEL": str(file), "LOG": str(log)}, start_new_session=True
        )  # fmt: skip
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - begun > PATIENCE:
                msg = f"{contender.name} does not answer: {(folder / 'server.log').read_text()[-500:]}"
                raise RuntimeError(msg)
            try:
                ask(port, path_of(contender, model), first)
                break
            except OSError:
                time.sleep(0.01)
        yield port, time.perf_counter() - begun, process.pid
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _settings(folder: Path, file: Path, port: int, *, batching: bool) -> None:
    others = dict(zip(("grpc_port", "metrics_port"), free_ports(2), strict=True))
    common = {"host": "127.0.0.1", "http_port": port, "parallel_workers": 0, "debug": False}
    (folder / "settings.json").write_text(json.dumps({**common, **others}))
    model = {
        "name": "model",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(file)},
        **({"max_batch_size": 256, "max_batch_time": 0.002} if batching else {}),
    }
    (folder / "model-settings.json").write_text(json.dumps(model))


def check(contender: Contender, model: str, folder: Path, port: int) -> None:
    """Raise if a server gives other labels than scikit-learn."""
    known = json.loads((folder / "asked.json").read_text())
    found = labels(contender, ask(port, path_of(contender, model), body(contender, known["records"])))
    if found != known["expected"][model]:
        msg = f"{contender.name}: wrong labels for {model}"
        raise RuntimeError(msg)


def load(url: str, asked: Path, *, connections: int, seconds: float) -> dict[str, float]:
    """What wrk counts from the second core; half a second of warming up before it."""
    for duration in (0.5, seconds):
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(duration))}s", "-s", SERVERS / "load.lua", url]  # fmt: skip
        said = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "BODY": str(asked)}
        ).stdout
    result = re.search("^RESULT (.*)$", said, re.MULTILINE)
    if result is None:
        msg = f"wrk printed no result: {said}"
        raise RuntimeError(msg)
    return json.loads(result[1])


def memory(process: int) -> float:
    """Megabytes of a process and all below it, shared pages divided among those that share them."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        below.setdefault(parent, []).append(int(stat.parent.name))
    total, left = 0, [process]
    while left:
        one = left.pop()
        left += below.get(one, [])
        rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        total += int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def turn(contender: Contender, python: Path, folder: Path, seconds: float) -> dict[Any, dict[str, float]]:
    """Both models once, under every load."""
    found: dict[Any, dict[str, float]] = {}
    records = json.loads((folder / "asked.json").read_text())["records"]
    for model, loads in LOADS.items():
        with running(contender, model, folder, python) as (port, cold, process):
            if contender.learned:
                check(contender, model, folder, port)
            for rows, connections in loads:
                if rows > 1 and not contender.learned:
                    continue  # its answer is not theirs
                (folder / "body.json").write_bytes(body(contender, records[:rows]))
                url = f"http://127.0.0.1:{port}{path_of(contender, model)}"
                one = load(url, folder / "body.json", connections=connections, seconds=seconds)
                found[model, rows, connections] = one
                print(f"{contender.name:20} {model:9} {rows:3} x {connections:2}  {one['requests'] / one['seconds']:9,.0f}/s  p99 {one['p99']:.2f} ms  errors {one['errors']:.0f}", file=sys.stderr, flush=True)  # fmt: skip
            found[model] = {"cold": cold, "memory": memory(process)}
    return found


def table(runs: dict[str, list[dict[Any, dict[str, float]]]]) -> str:
    """Medians as Markdown: requests per second and, behind them, the 99th percentile in milliseconds."""
    heads = [f"{model}, {rows} x {connections}" for model, rows, connections in COLUMNS]
    lines = [
        "| | " + " | ".join(heads) + " | cold start s | memory MB |",
        "|---" + "|---:" * (len(heads) + 2) + "|",
    ]
    for name, turns in runs.items():
        cells = []
        for column in COLUMNS:
            if column not in turns[0]:
                cells.append("")
                continue
            rate = median(one[column]["requests"] / one[column]["seconds"] for one in turns)
            errors = sum(one[column]["errors"] for one in turns)
            told = f", {errors:.0f} errors" if errors else ""
            cells.append(f"{rate:,.0f} ({median(one[column]['p99'] for one in turns):.3g} ms{told})")
        cells.append(f"{median(one['logistic']['cold'] for one in turns):.2f}")
        cells.append(f"{median(one['logistic']['memory'] for one in turns):.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def versions(pythons: dict[str, Path]) -> str:
    """What is installed, server by server."""
    told = []
    for name, python in pythons.items():
        listed = subprocess.run(
            [python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True
        )
        wanted = {"numpy", "scikit-learn", "uvloop", "uvicorn", "fastapi", "mlserver", "litserve", "bentoml", "ray", "nvidia-pytriton", "mlinfer-fast", "granian"}  # fmt: skip
        have = [
            f"{one['name']} {one['version']}" for one in json.loads(listed.stdout) if one["name"] in wanted
        ]
        told.append(f"{name}: {', '.join(have)}")
    return "; ".join(told)


def main() -> int:
    """Measure, and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=3, help="turns of each server")
    parser.add_argument("--seconds", type=float, default=5, help="for each load")
    parser.add_argument("--only", help="environments (mlinfer, fastapi, ...), with commas between them")
    parser.add_argument(
        "--environments", type=Path, default=HERE / ".venv-online", help="where the peers are installed"
    )
    parser.add_argument(
        "--cache", type=Path, default=HERE / ".cache" / "online", help="where models are kept"
    )
    asked = parser.parse_args()
    if missing := [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]:
        print(
            f"wanted wrk and taskset, found no {' and no '.join(missing)}; apt-get install wrk",
            file=sys.stderr,
        )
        return 2
    before = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    names = asked.only.split(",") if asked.only else [one.environment for one in CONTENDERS]
    contenders = [one for one in CONTENDERS if one.environment in names or one.name in names]
    pythons = {one.environment: python_of(one, asked.environments.absolute()) for one in contenders}
    for name, python in pythons.items():
        subprocess.run([python, SERVERS / "fit.py", asked.cache.absolute() / name], check=True)
    runs: dict[str, list[Any]] = {one.name: [] for one in contenders}
    for _ in range(asked.runs):
        for one in [one for one in contenders if one.name in runs]:
            folder = asked.cache.absolute() / one.environment
            try:
                runs[one.name].append(turn(one, pythons[one.environment], folder, asked.seconds))
            except RuntimeError as error:
                print(f"{one.name} left out: {error}", file=sys.stderr)
                del runs[one.name]
    print(f"- Machine: {machine()}; load before the start: {before}")
    print(f"- Versions: Python {sys.version.split()[0]}; {versions(pythons)}; mlinfer at commit {revision()}")
    print(f"- Command: `python {' '.join(sys.argv)}`\n")
    print(table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
