"""OpenAI's Realtime API for transcription: over a WebSocket, over WebRTC, with client secrets, and its legacy shape.

`conversation.py` says in OpenAI's words what happens in a session; it does no I/O and is the same for both doors.
"""

from signaling.routes.openai_realtime.door import PREFIX, OpenAIRealtime

__all__ = ["PREFIX", "OpenAIRealtime"]
