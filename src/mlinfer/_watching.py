"""Newer versions of a model, found and made ready beside the one at work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from mlinfer._errors import ConfigError
from mlinfer._protocols import Exemplifies, Host, Model

if TYPE_CHECKING:
    from mlinfer._signature import Signature

NEWER_SECONDS = 0.25
"""Between two looks whether there is a newer version."""


def watches(host: Host) -> bool:
    """Whether a host looks for newer versions of its model; one that only matches by structure need not say."""
    return bool(getattr(host, "watch", False))


def same_model(one: Signature, other: Signature) -> bool:
    """Whether two signatures are those of the same version."""
    return (one.version, one.digest) == (other.version, other.digest)


@contextmanager
def watched(load: Callable[[], Model], stamp: Callable[[], object | None]) -> Iterator[Model]:
    """A model that renews itself: what a host's `open` yields when it watches the place that its model comes from.

    Args:
        load: loads what is there now.
        stamp: what changes when another version is put there, such as a file's time and inode; None: there is nothing for
            the moment. It is asked four times a second.

    Another version is loaded, compared and warmed on a thread of its own: it must have the name, the inputs and the outputs
    of the first one, and answer its own example. See `Renews`.
    """
    before = stamp()  # first, so that no version can slip in between
    watch = Watch(load, stamp, before)
    try:
        yield watch.begin()
    finally:
        watch.close()


class Watch:
    """Looks for newer versions until it is closed."""

    def __init__(self, load: Callable[[], Model], stamp: Callable[[], object | None], seen: object) -> None:
        self._load, self._stamp, self._seen = load, stamp, seen
        self._latest: Model
        self._problem: Exception | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlinfer-watch", daemon=True)

    def begin(self) -> Model:
        """The first version. Raises what loading it raises."""
        self._latest = self._renewing(self._load())
        self._thread.start()
        return self._latest

    def close(self) -> None:
        """Look no further."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(NEWER_SECONDS):
            found = self._stamp()
            if found is None or found == self._seen:
                continue
            self._seen = found
            try:
                model = self._ready()
            except Exception as error:  # noqa: BLE001 - told by whoever asks next; the version at work goes on
                with self._lock:
                    self._problem = error
            else:
                with self._lock:
                    self._latest, self._problem = model, None

    def _ready(self) -> Model:
        """What is there now, loaded, compared and warmed; the version at work if it is the same."""
        model, first = self._load(), self._latest.signature
        found = model.signature
        if same_model(found, first):
            return self._latest
        for what, now, was, same in (
            ("name", found.model_id, first.model_id, found.model_id == first.model_id),
            ("inputs", found.inputs, first.inputs, first.inputs.equals(found.inputs, check_metadata=True)),
            (
                "outputs",
                found.outputs,
                first.outputs,
                first.outputs.equals(found.outputs, check_metadata=True),
            ),
        ):
            if not same:
                msg = f"wanted a newer version of model {first.model_id!r} with the {what} {_line(was)}, found {_line(now)}; put a model of another kind at another path, and open that"
                raise ConfigError(msg)
        example = model.example() if isinstance(model, Exemplifies) else None
        if example is not None and (answers := len(model.infer(example))) != len(example):
            msg = f"wanted {len(example)} answers to the example of {first.model_id!r}, found {answers}"
            raise ConfigError(msg)
        return self._renewing(model)

    def _renewing(self, model: Any) -> Model:
        model.newer = partial(self._newer, model)
        return model  # type: ignore[no-any-return]

    def _newer(self, than: Model) -> Model | None:
        with self._lock:
            problem, self._problem = self._problem, None
            latest = self._latest
        if problem is not None:
            msg = f"a newer version could not be taken: {problem}"
            raise ConfigError(msg) from problem
        return None if latest is than else latest


def _line(what: object) -> str:
    return ", ".join(str(what).split("\n"))
