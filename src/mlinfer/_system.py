"""Refuses a system that mlinfer cannot run on, before anything else is imported."""

import sys

try:
    import fcntl  # noqa: F401 - the first thing that Windows lacks
except ImportError as error:
    REFUSAL = "mlinfer needs Linux or macOS: it locks and flushes files in ways that Windows lacks; there, run it in WSL"
    _program = sys.argv[0].replace("\\", "/").rpartition("/")[2].removesuffix(".exe")
    if _program == "mlinfer" or (_program == "-m" and "mlinfer" in sys.orig_argv):
        # Whoever types a command wants a line and an exit code, not a traceback.
        print(f"mlinfer: error: {REFUSAL}", file=sys.stderr)  # noqa: T201 - nothing else can be imported to do it
        raise SystemExit(2) from None
    raise ImportError(REFUSAL) from error
