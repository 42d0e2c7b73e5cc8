"""Benchmarks: each a command that prints a table, writes JSON and draws a plot."""
