"""What runs a model over records."""

from mlinfer.hosts._function import FunctionHost, host
from mlinfer.hosts._saving import save
from mlinfer.hosts._selected import Selected
from mlinfer.hosts._sklearn import SklearnHost

__all__ = ["FunctionHost", "Selected", "SklearnHost", "host", "save"]
