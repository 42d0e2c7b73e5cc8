"""What of a session may have a price of its own, and what it costs (sans-IO)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mediaserver.session_config import SessionConfig
from mediaserver.settings import Denoise, Settings, TurnDetection
from mediaserver.storage.usage import RECORDING, STREAMING, TRANSLATION

DENOISE, TURN_DETECTION = "denoise", "turn_detection"
"""What a session may use beside being heard."""

HEARD = (STREAMING, RECORDING, TRANSLATION)

ANY_MODEL = "*"


def live_features(config: SessionConfig, settings: Settings) -> frozenset[str]:
    """What a live session uses beside being heard, by what its client chose and what the node's settings say."""
    used = set()
    if Denoise(config.denoise or settings.denoise) is not Denoise.OFF:
        used.add(DENOISE)
    if TurnDetection(config.turn_detection or settings.turn_detection) is TurnDetection.SEMANTIC:
        used.add(TURN_DETECTION)
    return frozenset(used)


def joined(heard: str, others: Collection[str] = ()) -> str:
    """Features as the database has them: how it was heard, then the others in order."""
    return "+".join((heard, *sorted(others)))


def split(features: str) -> tuple[str, ...]:
    """What `joined` joined."""
    return tuple(features.split("+"))


class Prices:
    """What a minute of audio costs.

    Args:
        table: by `MODEL`, `MODEL/FEATURE`, `*` and `*/FEATURE`; a feature's price counts before a model's.
    """

    def __init__(self, table: Mapping[str, float]) -> None:
        self._table = dict(table)

    def of_feature(self, model: str, feature: str, audio_s: float) -> float | None:
        """What a feature costs; None where audio is heard by a model that has no price."""
        names = [f"{model}/{feature}", f"{ANY_MODEL}/{feature}"]
        if feature in HEARD:
            names += [model, ANY_MODEL]
        for name in names:
            if name in self._table:
                return audio_s / 60 * self._table[name]
        return None if feature in HEARD else 0.0

    def of(self, model: str, features: str, audio_s: float) -> float | None:
        """What all of it costs together; None where nobody knows."""
        costs = [self.of_feature(model, feature, audio_s) for feature in split(features)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None
