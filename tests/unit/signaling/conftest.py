"""Fixtures of the front door."""

from front_door import node, start_node

__all__ = ["node", "start_node"]
