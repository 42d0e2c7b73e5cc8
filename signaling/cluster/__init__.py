"""Several processes that serve as one: what they know together, and how a request reaches the one it is for."""
