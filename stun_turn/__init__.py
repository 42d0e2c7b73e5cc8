"""ICE servers that clients are told of, time-limited TURN credentials, and the configuration of a coturn beside us."""
