"""The engine in a process of its own (design decision 8): windows go out over a Unix socket, hypotheses come back.

`wire.py` says what is on the socket, `outbox.py` what a media process keeps until it is answered; both are sans-IO.
`server.py` puts an engine on a socket, `client.py` is the engine as a media process sees it, `process.py` starts that
engine and starts it again when it dies.
"""
