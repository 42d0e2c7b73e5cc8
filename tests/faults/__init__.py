"""Faults that the server survives: what is lost by each, and how long it takes until all is normal (docs/faults.md)."""
