"""How the processes of one machine talk: sockets that only their user may open, frames, tries to connect."""
