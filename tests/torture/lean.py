"""Hide pandas: pyarrow loads it where it is installed, and a child would take twice as long to start."""

import os
import sys


class Hidden:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pandas":
            raise ImportError(name)


if os.environ.get("TORTURE_CHILD"):  # whoever merely collects tests keeps pandas
    sys.meta_path.insert(0, Hidden)
