"""Every Prometheus metric, once, with its unit in its name."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

registry = CollectorRegistry(auto_describe=True)


class LoopCounter(Collector):
    """A counter on the way of every download: 0.1 µs, and not the 0.8 of prometheus_client's own with its lock and its
    look-up (measured). Only the event loop's thread may add to it. `known`: what is told from the start, with 0."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], known: Sequence[str] = ()
    ) -> None:
        self._about = name, documentation, labels
        self._counted: defaultdict[tuple[str | int, ...], int] = defaultdict(int)
        self._counted.update({(label,): 0 for label in known})
        registry.register(self)

    def inc(self, *labels: str | int, by: int = 1) -> None:
        self._counted[labels] += by

    def collect(self) -> Iterator[CounterMetricFamily]:
        name, documentation, labels = self._about
        family = CounterMetricFamily(name, documentation, labels=labels)
        for values, count in self._counted.items():
            family.add_metric([str(value) for value in values], count)
        yield family


uploads = Counter(
    "mediasvc_uploads",
    "Uploads by door (put, dropbox, form, tus, draft, direct, companion) and outcome (stored or the error code)",
    ["door", "outcome"],
    registry=registry,
)
upload_bytes = Counter(
    "mediasvc_upload_bytes", "Bytes of stored originals, by door", ["door"], registry=registry
)
upload_seconds = Histogram(
    "mediasvc_upload_seconds",
    "From admission to acknowledgement, by door",
    ["door"],
    registry=registry,
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120, 600, 3600),
)
downloads = LoopCounter(
    "mediasvc_downloads",
    "Downloads by plan (sendfile, stream, nginx, redirect, none) and status",
    ["plan", "status"],
)
download_bytes = LoopCounter(
    "mediasvc_download_bytes",
    "Body bytes handed over, by plan",
    ["plan"],
    known=("sendfile", "stream", "nginx"),
)
downloads_cut = Counter(
    "mediasvc_downloads_cut", "Downloads that ended before their last byte", registry=registry
)
downloads_uncounted = Counter(
    "mediasvc_downloads_uncounted",
    "Counters that were not written down, by reason (deleted, no room, commit failed)",
    ["reason"],
    registry=registry,
)
receipts = Counter(
    "mediasvc_receipts",
    "Lines of nginx's delivery log by outcome (counted, failed, unknown, malformed), or lost on the way",
    ["outcome"],
    registry=registry,
)
blobs_missing = Counter(
    "mediasvc_blobs_missing", "Downloads whose blob was not in the store", registry=registry
)
requests = LoopCounter("mediasvc_requests", "HTTP requests by method and status", ["method", "status"])
request_seconds = Histogram(
    "mediasvc_request_seconds",
    "Time to the last byte of the answer, byte routes apart",
    registry=registry,
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)
tasks = Gauge("mediasvc_tasks", "Tasks by state", ["state"], registry=registry)
task_seconds = Histogram(
    "mediasvc_task_seconds",
    "Duration of a task, by kind and outcome",
    ["kind", "outcome"],
    registry=registry,
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 30, 120),
)
renditions = Counter("mediasvc_renditions", "Renditions made, by preset", ["preset"], registry=registry)
swept = Counter("mediasvc_swept", "What the sweep removed or put right, by kind", ["kind"], registry=registry)
