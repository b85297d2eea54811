"""Counters for Prometheus. No label holds anything that a client sends."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mxa.serve.gate import Gate
from mxa.version import __version__

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, gate: Gate, model_hash: str, runtime: str) -> None:
        self._registry = own = CollectorRegistry()
        self.requests = Counter("mxa_requests", "Requests that were answered", ["route", "status"], registry=own)
        self.seconds = Histogram(
            "mxa_request_seconds",
            "From a request's head to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=own,
        )
        self.pictures = Counter("mxa_pictures", "Pictures that were scored", ["kind"], registry=own)
        self.decoding = Histogram("mxa_decode_seconds", "Decoding of a picture", buckets=_SECONDS, registry=own)
        self.batch = Histogram("mxa_batch_pictures", "Pictures per call of the network", buckets=_BATCHES, registry=own)
        under_way = Gauge("mxa_predictions_under_way", "Requests for predictions that are not answered", registry=own)
        under_way.set_function(lambda: gate.requests)
        held = Gauge("mxa_upload_bytes", "Bytes of uploads in memory", registry=own)
        held.set_function(lambda: gate.held)
        model = Gauge("mxa_model", "What is served", ["model_hash", "runtime", "version"], registry=own)
        model.labels(model_hash, runtime, __version__).set(1)
        ProcessCollector(registry=own)

    def render(self) -> bytes:
        """All of them, in Prometheus's text format."""
        return generate_latest(self._registry)
