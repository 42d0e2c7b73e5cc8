"""Which version of VoiceForge this is."""

from importlib.metadata import version

VERSION = version("voiceforge")
"""Of the distribution that is installed. It is read from files, so once and not at each request."""
