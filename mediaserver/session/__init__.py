"""One speaker's stream, from samples to events."""

from mediaserver.session.reporter import Sink
from mediaserver.session.session import Session

__all__ = ["Session", "Sink"]
