"""The children import this package by name, and so do the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

collect_ignore = ["command.py"]  # a program: it runs when it is imported
