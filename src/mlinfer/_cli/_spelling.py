"""How an option is written at the command line: messages name it as Python does, and here one writes TOML and flags."""

from __future__ import annotations

import re

FLAGS = {"run(from_start=True)": "--from-start", "from_start=True": "--from-start"}
TABLES = {"rejects", "checkpoint"}
KEYS = (
    "accept", "allow_code_format", "background", "calibration", "columns", "compile", "delimiter", "example", "expand", "format",
    "guard_formulas", "if_exists", "insecure", "keep", "key", "keys", "lineage", "name", "names", "on_change", "perfect",
    "ratio", "reads", "require", "sha256", "size", "takes", "test", "timeout", "tls", "trusted", "watch",
)  # fmt: skip
TYPES = {"pa.string()": '"string"', "pa.float64()": '"double"'}
WORDS = {"True": "true", "False": "false"}

VALUE = r"""\([^()]*\)|\{[^{}]*\}|\[[^][]*\]|"[^"]*"|'[^']*'|\w+"""
_CALL = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
OPTION = re.compile(
    "|".join([
        rf" \(in Python: (?:[^()]|{_CALL})*\)",  # what only a program can do
        r"[a-z]+=(?:True)?(?: and [a-z]+=)? \((?P<given>--[^()]*|in a file:[^()]*)\)",  # the message knows it already
        f"(?P<flag>{'|'.join(map(re.escape, FLAGS))})",
        r"Budget\((?P<budget>ratio=[^()]*)\)",
        r"batching=Batching\((?P<batching>\d+)\)",
        r"[A-Z]\w*\(\.\.\., (?P<of_part>[a-z_]+=[^()]*)\)",
        rf"(?P<part>\b[A-Z]\w*{_CALL})",  # how a part shows itself: stays as it is
        rf"(?<![\w.?&/-])(?P<name>{'|'.join([*KEYS, *sorted(TABLES)])})=(?P<value>{VALUE})?",
    ])
)  # fmt: skip
PAIR = re.compile(r"""(?:'([^']*)'|"([^"]*)"):\s([^,{}]+)""")


def spelled(message: str) -> str:
    r"""A message with its options as flags and as TOML.

    >>> spelled("wanted a type for 'id': keep={'id': pa.string()}; start over with from_start=True")
    'wanted a type for \'id\': keep = { id = "string" }; start over with --from-start'
    """
    return OPTION.sub(_spelled, message)


def _spelled(found: re.Match[str]) -> str:
    if found["given"] or found["flag"]:
        return FLAGS[found["flag"]] if found["flag"] else found["given"].removeprefix("in a file: the table ")
    if found["budget"]:
        return f"[budget] {spelled(found['budget'])}"
    if found["batching"]:
        return f"batching = {{ max_records = {found['batching']} }}"
    if found["of_part"]:
        return spelled(found["of_part"])
    if found["part"]:
        return found["part"]
    if found["name"] is None:
        return ""
    name, value = found["name"], found["value"]
    if value is None:
        return f"[{name}]" if name in TABLES else name
    return f"{name} = {_value(value)}"


def _value(text: str) -> str:
    """A value as TOML: texts and lists are written alike."""
    if text.startswith("("):
        return f"[{text[1:-1]}]"
    if text.startswith("{"):
        pairs = [f"{_key(one[1] or one[2])} = {TYPES.get(one[3], one[3])}" for one in PAIR.finditer(text)]
        return f"{{ {', '.join(pairs)} }}"
    return WORDS.get(text, text)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f"'{name}'"
