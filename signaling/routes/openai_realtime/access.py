"""Who may open a session and with which parameters: the same for both doors."""

from __future__ import annotations

import time

from aiohttp import web

from mediaserver.errors import ConfigError
from mediaserver.settings import Settings
from signaling.limits import Admission
from signaling.routes.openai_realtime.client_secrets import ClientSecrets
from signaling.routes.openai_realtime.errors import named
from signaling.routes.openai_realtime.requests import key_of, read_query
from signaling.routes.openai_realtime.session_state import SessionState, require_model
from signaling.sessions import SessionFactory


class Access:
    """What both doors ask before they open anything.

    Args:
        sessions: what is loaded.
        admission: whether one more may come in.
        client_secrets: what keys stand for.
    """

    def __init__(self, *, sessions: SessionFactory, admission: Admission, client_secrets: ClientSecrets) -> None:
        self._sessions = sessions
        self._admission = admission
        self._secrets = client_secrets

    @property
    def settings(self) -> Settings:
        """Of the node."""
        return self._sessions.settings

    @property
    def loaded_model(self) -> str:
        """The model's name; while it is loading the one that it will be."""
        engine = self._sessions.engine
        return self.settings.model if engine is None else engine.model_name

    def expires_at(self) -> int:
        """When a connection that opens now will be ended, seconds since 1970."""
        return int(time.time() + self.settings.session_max_s)

    async def state_of(self, request: web.Request) -> SessionState:
        """What the key and the query stand for.

        Raises:
            HttpError: INVALID_API_KEY (401).
            RealtimeError: a query that is wrong or names a model that is not there.
        """
        state = await self._secrets.state_of(key_of(request)) or SessionState()
        asked = read_query(request.query)
        self.require_model(asked.model, param="model")
        return state

    def require_model(self, name: str | None, *, param: str) -> None:
        """Refuse a model that is not there.

        Raises:
            RealtimeError: MODEL_NOT_LOADED or DIARIZATION_UNSUPPORTED.
        """
        require_model(name, loaded=self.loaded_model, aliases=self.settings.model_aliases, param=param)

    def check(self, state: SessionState) -> None:
        """Refuse parameters that this node cannot meet; what needs the model is left out while it is loading.

        Raises:
            RealtimeError: names the parameter.
        """
        state.require_model(loaded=self.loaded_model, aliases=self.settings.model_aliases)
        if self._sessions.engine is None or self._sessions.vad is None:
            return
        try:
            self._sessions.check(state.config())
        except ConfigError as error:
            raise named(error) from error

    async def admit(self, state: SessionState) -> None:
        """Let one more in with these parameters; no await may lie between this and its place in the registry.

        Raises:
            CapacityError: MODEL_LOADING, SERVER_FULL …
            RealtimeError: a parameter that this node cannot meet.
            VoiceForgeError: DENOISER_NOT_INSTALLED.
        """
        self._admission.check()
        self.check(state)
        await self._admission.check_once_loaded(state.config())
