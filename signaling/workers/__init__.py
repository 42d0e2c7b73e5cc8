"""`--workers N`: a process that holds no media runs one decoder and N processes that share the port."""
