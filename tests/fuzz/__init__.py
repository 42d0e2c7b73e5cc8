"""Mutated messages against the real application: nothing that a client sends fells it or leaves anything behind."""
