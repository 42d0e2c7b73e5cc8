"""Other servers of this kind, installed by their public packages and driven beside VoiceForge in one run."""
