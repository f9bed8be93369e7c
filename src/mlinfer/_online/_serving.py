"""Where a server listens, and whom it answers."""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Literal, TypedDict

from mlinfer._engine import MOST_WORKERS
from mlinfer._errors import ConfigError
from mlinfer._online._keys import Keys
from mlinfer._resolve import located, resolve
from mlinfer._text import shown

HIGHEST_PORT = 65_535
_HOST_NAME = re.compile("[A-Za-z0-9._-]{1,253}")
_VARIABLE = re.compile(r"\$\{[^}]*\}")
_PEM = ("cert.pem", "key.pem")
_logger = logging.getLogger("mlinfer")
File = str | os.PathLike[str]


class ServingOptions(TypedDict, total=False):
    """What `serve` and `serving` take beside the address; see `Serving`."""

    tls: tuple[File, File] | None
    keys: File | None
    names: Sequence[str]
    insecure: bool
    log: Literal["behind", "before_reply"]
    log_sample: float
    access_log: bool
    grpc_bind: str | None
    workers: int


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve.

    Args:
        bind: HOST:PORT, the host as a numeric IPv4 address or `localhost`; port 0 takes a free one.
        tls: the files of a certificate (its chain in it) and of its key, both PEM.
        keys: a file of keys, see `mlinfer keys new`: every request but `live` and `ready` must show one. `${NAME}`: an
            environment variable that holds what would be in the file.
        names: host names by which clients ask. The address itself and, on this machine, `localhost` are always among them.
        insecure: listen where others can reach it, without TLS or without keys.
        log: when an answer is given: `before_reply`, once the destination has made it durable; `behind`, at once.
        log_sample: which share of the answers is logged, drawn by chance record by record; above 0, at most 1.
        access_log: tell the logger `mlinfer.access` about every request: never what a record holds.
        grpc_bind: HOST:PORT for the Open Inference Protocol over gRPC, with the same certificate and keys; None: not spoken.
        workers: how many processes answer at the address, each with a model of its own.

    Raises:
        ConfigError: the options contradict each other.
    """

    bind: str = "127.0.0.1:8080"
    tls: tuple[File, File] | None = None
    keys: File | None = None
    names: Sequence[str] = ()
    insecure: bool = False
    log: Literal["behind", "before_reply"] = "behind"
    log_sample: float = 1.0
    access_log: bool = False
    grpc_bind: str | None = None
    workers: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for what cannot work, or should not."""
        addresses = {"bind": self._address()[0]}
        if self.grpc_bind is not None:
            addresses["grpc_bind"] = _address_of(self.grpc_bind, "grpc_bind")[0]
        if not _are_names(self.names):
            msg = f"names: wanted a list of host names without ports, such as ['scores.example'], found {shown(self.names)}"
            raise ConfigError(msg)
        if self.log not in ("behind", "before_reply"):
            msg = f"log: wanted 'behind' or 'before_reply', found {shown(self.log)}"
            raise ConfigError(msg)
        if not (_is(self.log_sample, int, float) and 0 < self.log_sample <= 1):
            msg = f"log_sample: wanted a share above 0 and at most 1, such as 0.01, found {shown(self.log_sample)}"
            raise ConfigError(msg)
        if not (_is(self.workers, int) and 1 <= self.workers <= MOST_WORKERS):
            msg = f"workers: wanted a number of processes from 1 to {MOST_WORKERS:,}, found {shown(self.workers)}"
            raise ConfigError(msg)
        for option in ("insecure", "access_log"):
            if not _is(found := getattr(self, option), bool):  # "no" would mean yes
                msg = f"{option}: wanted True or False, found {shown(found)}"
                raise ConfigError(msg)
        for option, address in addresses.items():
            if not address.is_loopback:
                self._check_reachable(option, getattr(self, option))

    def _check_reachable(self, option: str, bind: str) -> None:
        lacking = self._lacking()
        if lacking and not self.insecure:
            msg = (
                f"{option}: wanted a loopback address, such as 127.0.0.1:8080, or TLS and keys, found {bind!r} without "
                f"{' and '.join(lacking)}; give tls= and keys= (--tls-cert, --tls-key, --keys), or put a proxy that has "
                "them in front and allow it by insecure=True (--insecure-bind)"
            )
            raise ConfigError(msg)
        if not self.names:
            msg = (
                f"names: wanted the host names by which clients ask {bind}, found none; give names= (--name)"
            )
            raise ConfigError(msg)

    def warn(self) -> None:
        """Say in the log what others can reach without TLS or keys."""
        lacking = self._lacking()
        for bind, option in ((self.bind, "bind"), (self.grpc_bind, "grpc_bind")):
            if lacking and bind is not None and not _address_of(bind, option)[0].is_loopback:
                _logger.warning(
                    "serving at %s without %s: whoever reaches this address may ask",
                    bind,
                    " and ".join(lacking),
                )

    @property
    def allowed_names(self) -> set[str]:
        """What a Host header may say, in lower case."""
        address, _ = self._address()
        here = {"localhost", "127.0.0.1"} if address.is_loopback else set()
        return {*here, str(address), *(name.lower() for name in self.names)}

    def check(self) -> tuple[Keys | None, ssl.SSLContext | None]:
        """What a server needs from files. Raises ConfigError: it is not what it should be, or an extra is not installed."""
        needed = {"serving": (["httptools", "msgspec"], "serve")}
        if self.grpc_bind is not None:
            needed["grpc_bind"] = (["grpc"], "serve,grpc")
        for what, (modules, extras) in needed.items():
            missing = [name for name in modules if find_spec(name) is None]
            if missing:
                msg = f"{what}: wanted {' and '.join(missing)}, found not installed; pip install 'mlinfer[{extras}]'"
                raise ConfigError(msg)
        return self.open_keys(), self.open_tls()

    def open_keys(self) -> Keys | None:
        """The keys. Raises ConfigError."""
        if self.keys is None:
            return None
        if isinstance(self.keys, str) and _VARIABLE.fullmatch(self.keys):
            return Keys(None, resolve(self.keys))
        return Keys(_file(self.keys))

    def open_tls(self) -> ssl.SSLContext | None:
        """TLS 1.2 or newer with this certificate. Raises ConfigError: the files are not what they should be."""
        if (files := self.tls_files()) is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*files, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            found = getattr(error, "strerror", None) or error
            # as they were written: a variable may hold the key itself
            written = " and ".join(str(file) for file in self.tls or ())
            msg = f"tls: wanted a certificate and its key (PEM, without a password), found {written}: {found}"
            raise ConfigError(msg) from error
        return context

    def tls_files(self) -> tuple[Path, Path] | None:
        """Where the certificate and its key are. Raises ConfigError: these are not two paths."""
        given: object = self.tls
        if given is None:
            return None
        if not isinstance(given, tuple | list) or len(given) != len(_PEM):
            msg = f"tls: wanted two files, {_PEM}, found {shown(given)}"
            raise ConfigError(msg)
        certificate, key = given
        return _file(certificate), _file(key)

    def grpc_address(self) -> str | None:
        """HOST:PORT as gRPC takes it; None: it is not spoken."""
        if self.grpc_bind is None:
            return None
        address, port = _address_of(self.grpc_bind, "grpc_bind")
        return f"{address}:{port}"

    def listening(self, option: Literal["bind", "grpc_bind"] = "bind") -> socket.socket:
        """A socket at the address. Raises ConfigError: it is taken, or there is none such."""
        bind = getattr(self, option)
        # asyncio sets TCP_NODELAY for TCP only
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address, port = _address_of(bind, option)
        try:
            listening.bind((str(address), port))
        except OSError as error:
            listening.close()
            raise ConfigError(_not_possible(option, bind, error)) from error
        return listening

    def listen(self, listening: socket.socket, backlog: int) -> None:
        """Let a socket of ours listen. Raises ConfigError: at its address somebody else does.

        Until one listens, several may be bound to one address, and an event loop would not tell that it was not the first.
        """
        try:
            listening.listen(backlog)
        except OSError as error:
            raise ConfigError(_not_possible("bind", self.bind, error)) from error

    def _lacking(self) -> list[str]:
        return [what for what, there in (("TLS", self.tls), ("keys", self.keys)) if there is None]

    def _address(self) -> tuple[IPv4Address, int]:
        return _address_of(self.bind, "bind")


def _is(given: object, *kinds: type) -> bool:
    """Whether it is of one of these types, which the annotation promises and the caller may not have read."""
    return isinstance(given, kinds)


def _are_names(given: object) -> bool:
    return (
        isinstance(given, Collection)
        and not isinstance(given, str)
        and all(isinstance(name, str) and _HOST_NAME.fullmatch(name) for name in given)
    )


def _file(written: File) -> Path:
    """Where a file is; `file:/path`, which elsewhere stands for what the file holds, is the file."""
    return located(written.removeprefix("file:") if isinstance(written, str) else written)


def _not_possible(option: str, bind: str, error: OSError) -> str:
    return f"{option}: wanted to listen at {bind}, found that this is not possible: {error.strerror}; take another one"


def _address_of(bind: str, option: str) -> tuple[IPv4Address, int]:
    """The parts of HOST:PORT. Raises ConfigError: it is none."""
    host, _, port = bind.rpartition(":") if _is(bind, str) else ("", "", "")
    msg = (
        f"{option}: wanted HOST:PORT with a numeric IPv4 address, such as 127.0.0.1:8080, found {shown(bind)}"
    )
    try:
        address = ip_address({"localhost": "127.0.0.1"}.get(host, host))
    except ValueError as error:
        raise ConfigError(msg) from error
    if not (port.isascii() and port.isdigit()) or int(port[:6]) > HIGHEST_PORT or address.version == 6:  # noqa: PLR2004
        raise ConfigError(msg)
    return address, int(port)


def _no_password() -> str:
    """Instead of asking the terminal, which would wait for ever."""
    msg = "the key has a password"
    raise ValueError(msg)
