"""prometheus_client without its package's start: the text format, and counters of many processes.

Owns: the slim import, the collector over all children's folders, the text form of metrics.
Must not know: which metrics there are.
Invariant: the output is the text format 0.0.4; reading never changes a worker's file.
Source: prometheus.io/docs/instrumenting/exposition_formats; prometheus_client's multiprocess mode.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.samples import Sample

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def slim() -> None:
    """Make prometheus_client's modules importable one by one.

    Its ``__init__`` pulls in http.server, ssl, urllib and wsgiref: 6.7 MB in every process that counts
    something (measured), for an HTTP server that we don't use.
    """
    if "prometheus_client" in sys.modules:
        return
    spec = importlib.util.find_spec("prometheus_client")
    if spec is not None:  # Else the import that follows says what is missing.
        sys.modules["prometheus_client"] = importlib.util.module_from_spec(spec)


def workers_metrics(folder: Path) -> Iterable[Metric]:
    """Give the metrics of all workers, dead incarnations included, summed over processes."""
    slim()
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415 - after slim()

    # One folder a child, its own user's: no worker can write another's counters.
    files = sorted(str(path) for path in folder.glob("*/*.db"))
    metrics: Iterable[Metric] = MultiProcessCollector.merge(files, accumulate=True)  # type: ignore[no-untyped-call]
    return metrics


def text(metrics: Iterable[Metric]) -> str:
    """Write metrics in the text format."""
    return "".join(line for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> Iterator[str]:
    name = metric.name + "_total" if metric.type == "counter" else metric.name
    kind = {"unknown": "untyped"}.get(metric.type, metric.type)
    documentation = metric.documentation.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {documentation}\n# TYPE {name} {kind}\n"
    for sample in metric.samples:
        yield f"{sample.name}{_labels(sample)} {_number(float(sample.value))}\n"


def _labels(sample: Sample) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(sample.labels.items()))
    return "{" + pairs + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    """As Go reads it."""
    if value != value:  # noqa: PLR0124 - NaN alone differs from itself
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
