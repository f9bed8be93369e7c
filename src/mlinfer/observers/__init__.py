"""What watches a run: progress bars, logs, metrics."""

from mlinfer.observers._log import LogObserver
from mlinfer.observers._progress_bar import ProgressBar
from mlinfer.observers._prometheus import PrometheusMetrics

__all__ = ["LogObserver", "ProgressBar", "PrometheusMetrics"]
