"""mlinfer runs inference: records come from a source, a host runs a model over them, answers go to a destination."""

from typing import TYPE_CHECKING, Any

from mlinfer import _starting, _system  # noqa: F401 - before anything that Windows lacks, or that takes long

# isort: split
from mlinfer._arrays import as_column, as_numpy
from mlinfer._batch import BadRecord, Batch, Position, RecordIds
from mlinfer._casts import is_bytes, is_list, is_text
from mlinfer._checkpoint import Checkpoint
from mlinfer._choosing import chosen_rows
from mlinfer._code import digest_of_code
from mlinfer._conform import conform
from mlinfer._engine import Batching, Budget, Plan, Stop, Workers
from mlinfer._errors import (
    ChangedError,
    ComponentError,
    ConfigError,
    ConfirmationError,
    EndOfInput,
    FencedError,
    GuaranteeError,
    MlinferError,
    PluginNotFound,
    RecordErrors,
    RejectsError,
    SchemaError,
    TransientError,
)
from mlinfer._events import (
    BatchInferred,
    BatchRead,
    BatchWritten,
    ModelChanged,
    ProgressCommitted,
    RecordsRejected,
    RetryScheduled,
    RunEnded,
    RunStarted,
    observer,
)
from mlinfer._failpoints import failpoint
from mlinfer._guarantee import Guarantee, Level
from mlinfer._pipeline import InferencePipeline
from mlinfer._progress import Progress
from mlinfer._protocols import (
    Acknowledges,
    Computes,
    Counts,
    DataDestination,
    DataSource,
    Drains,
    Exemplifies,
    Explains,
    FillsFolder,
    Host,
    InfersArrays,
    Joins,
    Model,
    Prunes,
    Reader,
    ReadsBack,
    ReadsFiles,
    Remembers,
    Renews,
    Resumes,
    Scope,
    SideTables,
    Stateful,
    Writer,
)
from mlinfer._records import batch_from_rows
from mlinfer._rejects import REJECTS, STAGES
from mlinfer._replay import Choice
from mlinfer._report import RunReport
from mlinfer._resolve import located, resolve
from mlinfer._retry import Retry
from mlinfer._signature import Signature, finite, nonfinite, spelled
from mlinfer._tabular import to_arrow
from mlinfer._watching import watched

if TYPE_CHECKING:
    from mlinfer._config import load_pipeline
    from mlinfer._json_text import json_objects, json_texts, quoted_texts
    from mlinfer.hosts import host, save
    from mlinfer.lifecycle import train

__version__ = "0.1.0"

__all__ = [
    "REJECTS",
    "STAGES",
    "Acknowledges",
    "BadRecord",
    "Batch",
    "BatchInferred",
    "BatchRead",
    "BatchWritten",
    "Batching",
    "Budget",
    "ChangedError",
    "Checkpoint",
    "Choice",
    "ComponentError",
    "Computes",
    "ConfigError",
    "ConfirmationError",
    "Counts",
    "DataDestination",
    "DataSource",
    "Drains",
    "EndOfInput",
    "Exemplifies",
    "Explains",
    "FencedError",
    "FillsFolder",
    "Guarantee",
    "GuaranteeError",
    "Host",
    "InferencePipeline",
    "InfersArrays",
    "Joins",
    "Level",
    "MlinferError",
    "Model",
    "ModelChanged",
    "Plan",
    "PluginNotFound",
    "Position",
    "Progress",
    "ProgressCommitted",
    "Prunes",
    "Reader",
    "ReadsBack",
    "ReadsFiles",
    "RecordErrors",
    "RecordIds",
    "RecordsRejected",
    "RejectsError",
    "Remembers",
    "Renews",
    "Resumes",
    "Retry",
    "RetryScheduled",
    "RunEnded",
    "RunReport",
    "RunStarted",
    "SchemaError",
    "Scope",
    "SideTables",
    "Signature",
    "Stateful",
    "Stop",
    "TransientError",
    "Workers",
    "Writer",
    "as_column",
    "as_numpy",
    "batch_from_rows",
    "chosen_rows",
    "conform",
    "digest_of_code",
    "failpoint",
    "finite",
    "host",
    "is_bytes",
    "is_list",
    "is_text",
    "json_objects",
    "json_texts",
    "load_pipeline",
    "located",
    "nonfinite",
    "observer",
    "quoted_texts",
    "resolve",
    "save",
    "spelled",
    "to_arrow",
    "train",
    "watched",
]


def __getattr__(name: str) -> Any:
    """What is imported when it is used: hosts stand above the core, and JSON and TOML texts need slow libraries."""
    if name in {"host", "save"}:
        from mlinfer import hosts

        return getattr(hosts, name)
    if name == "train":
        from mlinfer import lifecycle

        return lifecycle.train
    if name == "load_pipeline":
        from mlinfer import _config

        return _config.load_pipeline
    if name in {"json_objects", "json_texts", "quoted_texts"}:
        from mlinfer import _json_text

        return getattr(_json_text, name)
    msg = f"module 'mlinfer' has no attribute {name!r}"
    raise AttributeError(msg)
