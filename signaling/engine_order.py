"""What a media process tells the engine's process that it starts: the same settings, and the model already found."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import SecretStr

from mediaserver.decoder.catalogue import ModelFiles
from mediaserver.decoder.remote.client import RemoteEngine
from mediaserver.decoder.remote.process import EngineProcess
from mediaserver.metrics import Metrics
from mediaserver.settings import Settings
from signaling.scratch import ENGINE, Scratch

NOT_FOR_AN_ENGINE = {
    "turn_urls",
    "ice_servers",
    "node_address",
    *(name for name, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)),
}
"""Settings that are secrets, hold some, or go with some: decoding has no use for them."""


@dataclass(frozen=True, slots=True)
class Order:
    """The first line on a child's standard input."""

    settings: Settings
    model: ModelFiles

    def to_line(self) -> str:
        """One line of JSON, without its end."""
        model = {
            "name": self.model.name,
            "directory": str(self.model.directory),
            "languages": self.model.languages,
            "source": self.model.source,
        }
        return json.dumps(
            {"settings": self.settings.model_dump(mode="json", exclude=NOT_FOR_AN_ENGINE), "model": model}
        )

    @classmethod
    def from_line(cls, line: str) -> Order:
        """What `to_line` wrote.

        Raises:
            ValueError, KeyError, TypeError: it did not.
        """
        said = json.loads(line)
        model = said["model"]
        files = ModelFiles(model["name"], Path(model["directory"]), tuple(model["languages"]), model["source"])
        return cls(Settings(**said["settings"]), files)


class OwnProcess(EngineProcess):
    """A child whose socket lies in a folder of its own, which goes with it."""

    def __init__(self, order: Order, metrics: Metrics) -> None:
        self._scratch = Scratch(ENGINE)
        self.socket = self._scratch.path / "engine"
        command = (sys.executable, "-m", "signaling.cli", "engine", "--supervised", "--socket", str(self.socket))
        super().__init__(command, order=order.to_line(), metrics=metrics)

    async def close(self) -> None:
        """End it, and remove its folder."""
        await super().close()
        self._scratch.remove()


def child_engine(settings: Settings, model: ModelFiles, metrics: Metrics) -> RemoteEngine:
    """An engine in a child process, not started yet."""
    process = OwnProcess(Order(settings, model), metrics)
    return RemoteEngine(
        process.socket, metrics=metrics, interim_period_s=settings.interim_period_ms / 1000, host=process
    )
