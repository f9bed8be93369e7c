"""What mlinfer does in C where it is installed: walking trees, and reading numbers."""

from mlinfer_fast._json import lift
from mlinfer_fast._trees import Trees

__all__ = ["Trees", "lift"]
