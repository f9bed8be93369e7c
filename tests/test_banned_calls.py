"""Nothing in mlinfer turns data into code or writes a file, except in the one module that is there for it.

Each rule is checked by reading the source, and each is shown to catch a planted example.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src/mlinfer"

CODE_FORMATS = "hosts/_code_formats.py"
KIT = "testing/_copies.py"
CLOCK = "_clock.py"
PROCESSES = "_engine/_processes.py"
DURABLE = "durable.py"
TESTING = "testing/"  # makes files for parts to read, and no durable ones

# What may not be imported, called or handed on, and the one file that may.
# A module stands for everything inside it; a name without a module is a built-in.
BANNED = {
    "pickle": CODE_FORMATS,
    "_pickle": CODE_FORMATS,
    "cloudpickle": CODE_FORMATS,
    "dill": CODE_FORMATS,
    "joblib": CODE_FORMATS,
    "marshal": CODE_FORMATS,
    "shelve": CODE_FORMATS,
    "eval": CODE_FORMATS,
    "exec": CODE_FORMATS,
    "torch.load": CODE_FORMATS,
    "yaml.load": CODE_FORMATS,
    "yaml.load_all": CODE_FORMATS,
    "yaml.full_load": CODE_FORMATS,
    "yaml.unsafe_load": CODE_FORMATS,
    "os.system": CODE_FORMATS,
    "pandas.read_pickle": CODE_FORMATS,
    "time.time": CLOCK,
    "time.time_ns": CLOCK,
    "datetime.datetime.now": CLOCK,
    "datetime.datetime.utcnow": CLOCK,
    "datetime.datetime.today": CLOCK,
    "datetime.date.today": CLOCK,
    "multiprocessing": PROCESSES,
    "concurrent.futures.ProcessPoolExecutor": PROCESSES,
    "os.fsync": DURABLE,
    "os.fdatasync": DURABLE,
    "os.link": DURABLE,
    "os.symlink": DURABLE,
    "os.rename": DURABLE,
    "os.renames": DURABLE,
    "os.replace": DURABLE,
    "os.remove": DURABLE,
    "os.unlink": DURABLE,
    "os.mkdir": DURABLE,
    "os.makedirs": DURABLE,
    "os.truncate": DURABLE,
    "os.ftruncate": DURABLE,
    "os.pwrite": DURABLE,
    "os.writev": DURABLE,
    "shutil.copy": DURABLE,
    "shutil.copyfile": DURABLE,
    "shutil.move": DURABLE,
    "pyarrow.parquet.write_table": DURABLE,
}
ALSO = {("pickle", KIT)}
"""The kit for parts pickles the recipes that it was given, and reads back what it pickled itself."""
# Methods of pathlib.Path that write, and with how many arguments: other classes have methods of these names, too.
WRITING_METHODS = {
    "write_text": None,
    "write_bytes": None,
    "unlink": None,
    "mkdir": None,
    "touch": None,
    "rename": 1,
    "replace": 1,
    "symlink_to": None,
    "hardlink_to": None,
}
WRITING_FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC", "O_TMPFILE"}
MODE = re.compile(r"[rwaxbt+]{1,4}")
OPENING = {"open", "io.open", "gzip.open", "codecs.open"}


def test_the_source_keeps_the_rules():
    files = {path.relative_to(ROOT).as_posix(): path for path in ROOT.rglob("*.py")}
    assert "_errors.py" in files, f"nothing was read below {ROOT}"
    complaints = [text for file, path in files.items() for text in offences(path.read_text("utf-8"), file)]
    assert not complaints, "\n" + "\n".join(complaints)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import loads",
        "def f():\n    import pickle",
        "import _pickle",
        "import cloudpickle",
        "import dill",
        "import joblib",
        "from joblib import load",
        "import joblib.numpy_pickle",
        "import marshal",
        "import shelve",
        "import importlib\nimportlib.import_module('pickle')",
        "__import__('pickle')",
        "eval('1')",
        "exec('x = 1')",
        "run = exec",
        "import builtins\nbuiltins.eval('1')",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "from yaml import load",
        "import yaml\nyaml.unsafe_load(text)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch as t\nt.load(path)",
        "import pandas as pd\npd.read_pickle(path)",
        "import os\nos.system('ls')",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from subprocess import Popen\nPopen('ls', shell=True)",
        "import subprocess\nsubprocess.run('ls', shell=wanted)",
        "import subprocess\nsubprocess.getoutput('ls')",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, allow_pickle=wanted)",
        "from numpy import load\nload(path)",
        "import numpy as np\nread = np.load",
        "import time\ntime.time()",
        "from time import time",
        "import time\nclock = time.time",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now(UTC)",
        "from datetime import datetime as dt\ndt.utcnow()",
        "from datetime import date\ndate.today()",
        "import multiprocessing",
        "from multiprocessing import Process",
        "import multiprocessing.shared_memory",
        "from concurrent.futures import ProcessPoolExecutor",
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open(path, mode)",
        "import io\nio.open(path, 'x')",
        "import gzip\ngzip.open(path, 'wb')",
        "path.open('r+b')",
        "path.open(mode='w', encoding='utf-8')",
        "path.write_text('x')",
        "folder.joinpath('f').write_bytes(b'')",
        "path.replace(target)",
        "path.rename(target)",
        "path.unlink(missing_ok=True)",
        "path.mkdir()",
        "import os\nos.open(path, os.O_RDWR | os.O_CREAT)",
        "import os\nos.fsync(descriptor)",
        "import os\nflush = os.fsync",
        "from os import rename",
        "import pyarrow.parquet as pq\npq.write_table(table, path)",
    ],
)
def test_a_planted_offence_is_caught(source):
    assert offences(source, "planted.py"), source


@pytest.mark.parametrize("banned", BANNED)
def test_every_rule_catches_its_own_name(banned):
    assert offences(f"import {banned.partition('.')[0]}\n{banned}()", "planted.py")


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("import numpy as np\nnp.load(path, allow_pickle=False)", "hosts/_numpy.py"),
        ("import subprocess\nsubprocess.run(['ls'])", "_cli.py"),
        ("import subprocess\nsubprocess.run(['ls'], shell=False)", "_cli.py"),
        ("import yaml\nyaml.safe_load(text)", "_config.py"),
        ("import re\nre.compile('x')", "_text.py"),
        ("import time\ntime.monotonic()", "_engine/_loop.py"),
        ("from datetime import datetime\ndatetime.fromisoformat(text)", "sources/_csv.py"),
        ("model.eval()", "hosts/_torch.py"),
        ("connection.exec(statement)", "sources/_sql.py"),
        ("self.time.time", "_report.py"),
        ("import skops.io\nskops.io.load(path)", "hosts/_sklearn.py"),
        ("from mlinfer.hosts import pickle_free", "hosts/_sklearn.py"),
        ("path.open()", "sources/_csv.py"),
        ("path.open('rb')", "sources/_csv.py"),
        ("open(path, encoding='utf-8')", "_config.py"),
        ("source.open(partition, after, wanted)", "_engine/_lane.py"),
        ("destination.open(schema, scope)", "_engine/_outputs.py"),
        ("text.replace('a', 'b')", "_text.py"),
        ("moment.replace(tzinfo=zone)", "_text.py"),
        ("from dataclasses import replace\nreplace(batch, ids=ids)", "_engine/_step.py"),
        ("from mlinfer import durable\ndurable.replace(path, content)", "destinations/_appended.py"),
        ("from mlinfer import durable\ndurable.rename(path)", "destinations/_appended.py"),
        ("import os\nos.open(path, os.O_RDONLY)", "hosts/_model_files.py"),
        ("import os\nos.open(os.devnull, os.O_WRONLY)", "_cli/_ending.py"),
        ("import os\nopen(os.devnull, 'w')", "_cli/__init__.py"),
        ("import os\nos.write(2, b'text')", "_cli/_ending.py"),
        ("import os\nos.fsync(descriptor)", DURABLE),
        ("path.unlink()", DURABLE),
        ("import pickle", CODE_FORMATS),
        ("import joblib", CODE_FORMATS),
        ("import time\ntime.time()", CLOCK),
        ("from datetime import datetime\ndatetime.now(UTC)", CLOCK),
        ("import multiprocessing", PROCESSES),
    ],
)
def test_lawful_code_is_left_alone(source, file):
    assert offences(source, file) == []


@pytest.mark.parametrize(
    ("source", "file"),
    [("import pickle", CLOCK), ("import pickle", PROCESSES), ("import multiprocessing", CODE_FORMATS)],
)
def test_an_exception_covers_its_own_rule_only(source, file):
    assert offences(source, file)


def offences(source, file):
    tree = ast.parse(source)
    names = bindings(tree)
    lines = [(node.lineno, text) for node in ast.walk(tree) for text in judged(node, names, file)]
    return [f"{file}:{line}: {text}" for line, text in sorted(set(lines))]


def judged(node, names, file):
    """Yield what is wrong with this one node."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from (banned for name in imports(node) if (banned := rule(name, file)))
    if isinstance(node, ast.Name | ast.Attribute):
        name = dotted(node, names)
        if banned := rule(name, file):
            yield banned
        if name in {"subprocess.getoutput", "subprocess.getstatusoutput"}:
            yield f"{name} starts a shell"
    if isinstance(node, ast.Call):
        yield from judged_call(node, names, file)
    yield from (
        "numpy.load without allow_pickle=False"
        for child in ast.iter_child_nodes(node)
        if dotted(child, names) == "numpy.load"
        and not (isinstance(node, ast.Call) and safe_load(node, child))
    )


def judged_call(node, names, file):
    called = dotted(node.func, names)
    if file != DURABLE and not file.startswith(TESTING) and writes(node, called):
        yield f"files are written in {DURABLE} alone"
    if called.startswith("subprocess.") and not all(
        is_false(keyword.value) for keyword in node.keywords if keyword.arg == "shell"
    ):
        yield "subprocess with shell="
    if called in {"__import__", "importlib.import_module"} and node.args:
        name = node.args[0].value if isinstance(node.args[0], ast.Constant) else ""
        if banned := rule(str(name), file):
            yield banned


def writes(call, called):
    """Whether this call opens a file for writing, or is a method of a path that writes."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if isinstance(call.func, ast.Attribute) and not called.startswith("mlinfer."):
        method, count = call.func.attr, len(call.args) if not call.keywords else 0
        if method in WRITING_METHODS and WRITING_METHODS[method] in {None, count}:
            return True
    if called == "os.open":
        flags = {part.attr for part in ast.walk(call) if isinstance(part, ast.Attribute)}
        return bool(flags & WRITING_FLAGS) and "devnull" not in flags
    if called in OPENING or (isinstance(call.func, ast.Name) and call.func.id == "open"):
        mode = keywords.get("mode") or (call.args[1] if len(call.args) > 1 else None)
    elif isinstance(call.func, ast.Attribute) and call.func.attr == "open":
        mode = keywords.get("mode") or (call.args[0] if call.args else None)
        mode = mode if isinstance(mode, ast.Constant) and MODE.fullmatch(str(mode.value)) else None
    else:
        return False
    if any(getattr(argument, "attr", "") == "devnull" for argument in call.args):
        return False
    return mode is not None and not (isinstance(mode, ast.Constant) and set(str(mode.value)) <= set("rbt"))


def safe_load(call, function):
    allowed = [keyword.value for keyword in call.keywords if keyword.arg == "allow_pickle"]
    return call.func is function and len(allowed) == 1 and is_false(allowed[0])


def is_false(node):
    return isinstance(node, ast.Constant) and node.value is False


def rule(name, file):
    """Return the banned name that this name is, or is inside of, unless this file may use it."""
    name = name.removeprefix("builtins.")
    steps = name.split(".")
    for banned in (".".join(steps[:length]) for length in range(1, len(steps) + 1)):
        if banned in BANNED and BANNED[banned] != file and (banned, file) not in ALSO:
            return f"{banned} belongs in {BANNED[banned]} alone"
    return None


def bindings(tree):
    """Map the names that imports bind anywhere in the file to what they mean."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(node):
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [] if node.level else [f"{node.module}.{alias.name}" for alias in node.names]


def dotted(node, names):
    """Return what a name or attribute means, as a dotted name; "" for anything else."""
    if isinstance(node, ast.Attribute):
        value = dotted(node.value, names)
        return f"{value}.{node.attr}" if value else ""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id if node.id in {"eval", "exec", "__import__"} else "")
    return ""
