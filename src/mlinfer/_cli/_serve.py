"""`mlinfer serve`: a pipeline, or a saved model alone, behind HTTP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlinfer._cli._ending import stopping
from mlinfer._cli._loading import pipeline_of, verb
from mlinfer._cli._logging import logging_to_stderr
from mlinfer._errors import ConfigError
from mlinfer._pipeline import InferencePipeline
from mlinfer.hosts import SklearnHost
from mlinfer.sources import IterableSource

if TYPE_CHECKING:
    from mlinfer._online import Crew, Server, ServingOptions


def add(verbs: Any) -> None:
    """Add the verb."""
    parser = verb(verbs, "serve", serve, "answer over HTTP; the destination becomes the log")
    parser.add_argument(
        "file", type=Path, metavar="pipeline.toml|model.mlinfer",
        help="a pipeline in TOML, or a saved model alone, which is served without a log",
    )  # fmt: skip
    parser.add_argument(
        "--bind", default="127.0.0.1:8080", metavar="HOST:PORT", help="where to listen (127.0.0.1:8080)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="let so many processes answer at the address (1)"
    )
    parser.add_argument("--grpc-bind", metavar="HOST:PORT", help="speak gRPC, too, there")
    parser.add_argument("--tls-cert", metavar="FILE", help="speak HTTPS with this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="... and its key (PEM)")
    parser.add_argument(
        "--keys", metavar="FILE", help="answer those who show a key of this file; see `mlinfer keys`"
    )
    parser.add_argument(
        "--name", metavar="HOST", action="append", default=[], help="a host name by which clients ask; may come again"
    )  # fmt: skip
    parser.add_argument(
        "--insecure-bind", action="store_true", help="listen where others can reach it without TLS or keys"
    )
    parser.add_argument(
        "--log", choices=["behind", "before_reply"], default="behind",
        help="before_reply: give an answer when the destination has made it durable",
    )  # fmt: skip
    parser.add_argument(
        "--log-sample", type=float, default=1.0, metavar="SHARE",
        help="log so many of the answers, drawn by chance: 0.01 is one in a hundred",
    )  # fmt: skip
    parser.add_argument(
        "--access-log", action="store_true", help="a line on standard error for every request"
    )
    parser.add_argument(
        "--admin-bind", metavar="HOST:PORT", help="serve a console, /live, /ready and /metrics there"
    )


def serve(asked: argparse.Namespace) -> None:
    """Serve until a signal comes."""
    if asked.file.is_dir():
        _check_alone(asked)
    if not asked.file.exists():
        msg = f"{asked.file}: wanted a pipeline in TOML or a saved model (a folder), found nothing at {asked.file.absolute()}; correct the path"
        raise ConfigError(msg)
    pipeline = _alone(asked.file) if asked.file.is_dir() else pipeline_of(asked, asked.file)
    options = _options(asked)
    online = Online()
    with ExitStack() as stack:
        if asked.access_log:
            stack.enter_context(logging_to_stderr("text", debug=asked.debug))
        console, also = None, ""
        if asked.admin_bind:
            from mlinfer._cli._admin import admin  # a web server of its own, which takes time to import
            from mlinfer._cli._console import Console

            console = Console(pipeline, why_not=_no_trying(asked), log=asked.log)
            url = stack.enter_context(
                admin(asked.admin_bind, online, online, anywhere=asked.insecure_bind, pages=console)
            )
            also = f"; console at {url}"
        stop = stack.enter_context(stopping())
        online.server = stack.enter_context(pipeline.serving(asked.bind, **options))
        if console is not None:
            console.url, console.grpc_address = online.server.url, online.server.grpc_address
        if online.server.grpc_address:
            also = f" and, over gRPC, at {online.server.grpc_address}{also}"
        print(f"serving at {online.server.url}/predict{also}; Ctrl-C ends it", file=sys.stderr)
        while online.server.failure is None and not stop.wait(0.2):
            pass


def _check_alone(asked: argparse.Namespace) -> None:
    """Raises ConfigError: this is the folder of a pipeline, or an option asks for the log that a model alone does not have."""
    pipelines = [] if (asked.file / "manifest.json").exists() else sorted(asked.file.glob("*.toml"))
    if pipelines:
        msg = f"{asked.file}: wanted a pipeline in TOML or a saved model (a folder with manifest.json), found a folder with {pipelines[0].name} in it; name that file"
        raise ConfigError(msg)
    for option, given in (
        ("--log before_reply", asked.log != "behind"),
        ("--log-sample", asked.log_sample != 1),
    ):
        if given:
            msg = f"{option}: wanted a pipeline with a destination, found the model {asked.file} alone, which has no log; describe a pipeline in TOML"
            raise ConfigError(msg)


def _no_trying(asked: argparse.Namespace) -> str | None:
    """Why the console must not hand records to the server; None: it may."""
    if asked.keys or asked.tls_cert:
        return "The server asks for TLS or a key, and the console has neither: ask the server itself."
    if asked.insecure_bind:
        return "Others can reach this console: ask the server itself."
    return None


class Online:
    """The server, once it listens, for those who look after it."""

    server: Server | Crew | None = None

    @property
    def ready(self) -> bool:
        """From the first request that would be answered to the signal that ends it."""
        return self.server is not None and self.server.ready

    def exposition(self) -> bytes:
        """What it has done."""
        return b"" if self.server is None else self.server.exposition()


def _options(asked: argparse.Namespace) -> ServingOptions:
    if (asked.tls_cert is None) != (asked.tls_key is None):
        msg = "--tls-cert, --tls-key: wanted both or none, found one"
        raise ConfigError(msg)
    tls = None if asked.tls_cert is None else (asked.tls_cert, asked.tls_key)
    return {
        "tls": tls, "keys": asked.keys, "names": asked.name, "insecure": asked.insecure_bind,
        "log": asked.log, "log_sample": asked.log_sample, "access_log": asked.access_log, "grpc_bind": asked.grpc_bind,
        "workers": asked.workers,
    }  # fmt: skip


def _alone(package: Path) -> InferencePipeline:
    """A saved model without a pipeline around it: there is no log."""
    from mlinfer._online import Nowhere

    return InferencePipeline(IterableSource(_nothing), SklearnHost(package), Nowhere(), name=package.stem)


def _nothing() -> Iterator[object]:
    yield from ()
