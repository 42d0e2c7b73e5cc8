"""The engine: samples in, events out. It knows nothing of HTTP."""
