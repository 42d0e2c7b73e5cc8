"""Deepgram's protocols: `/v1/listen` as WebSocket and REST, `/v1/auth/grant`, and the `/v1/models` of two vendors."""
