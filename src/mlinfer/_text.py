"""Values of strangers in our own sentences: short, on one line, without control characters."""

from __future__ import annotations

LONGEST = 200


def shown(value: object, longest: int = LONGEST) -> str:
    """A value as it may stand in a message or a log: escaped and cut."""
    if isinstance(value, str | bytes):
        value = value[: longest + 1]
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def plain(text: str, longest: int = LONGEST) -> str:
    """A foreign text on one line, control characters escaped, cut."""
    if text.isprintable() and len(text) <= longest:
        return text
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[: longest + 1])
    return line if len(line) <= longest else line[: longest - 3] + "..."


def sayable(text: str) -> str:
    """A text that UTF-8 has: of half a character, as a path that is none can hold, the escape is left."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def said(error: BaseException) -> str:
    """What an error says; nothing where it fails to, for a stranger's may."""
    try:
        return sayable(str(error))
    except Exception:  # noqa: BLE001 - it is the first error that counts
        return ""


def in_words(error: BaseException) -> str:
    """An error's class and what it says.

    >>> in_words(ValueError("no threes")), in_words(ValueError())
    ('ValueError: no threes', 'ValueError')
    """
    name, text = type(error).__name__, said(error)
    return f"{name}: {text}" if text else name


def count(number: int, noun: str) -> str:
    """`1 record`, `1,234 records`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
