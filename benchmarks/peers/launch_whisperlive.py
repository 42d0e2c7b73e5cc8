"""Starts WhisperLive inside its own environment, for its wheel brings no launcher. Arguments: port, options as JSON."""

import json
import sys

from whisper_live.server import TranscriptionServer  # type: ignore[import-not-found]

if __name__ == "__main__":
    TranscriptionServer().run("127.0.0.1", port=int(sys.argv[1]), **json.loads(sys.argv[2]))
