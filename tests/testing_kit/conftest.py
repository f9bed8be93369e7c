"""The children that the kit kills import the parts under test by name, and so do the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
