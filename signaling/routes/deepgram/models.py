"""`GET /v1/models`: two vendors have it, so one answer serves the clients of both.

Those of OpenAI read `data`, those of Deepgram `stt`; in both is the one model that is loaded, under its real name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from mediaserver.settings import Settings
from mediaserver.version import VERSION
from signaling.limits import LOADING_RETRY_AFTER_S, ServedEngine
from signaling.model_names import require_served
from signaling.openapi.operation import described
from signaling.problems import HttpError
from signaling.routes.deepgram.door_operations import MODEL, MODELS
from signaling.routes.deepgram.refusals import refusal_body, refusal_response
from signaling.routes.deepgram.served import ModelList, ModelRefusal, OpenAIError, ServedModel, model_uuid

PATH = "/v1/models"


class Models:
    """The list of models and each of them.

    Args:
        engine: what is loaded, None until then.
        settings: of the node.
    """

    def __init__(self, *, engine: Callable[[], ServedEngine | None], settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._started_s = int(time.time())

    def routes(self) -> list[web.RouteDef]:
        """What the application adds to its router."""
        return [
            web.get(PATH, self.list, allow_head=False),
            web.get(PATH + "/{model}", self.find, allow_head=False),
        ]

    @described(MODELS)
    async def list(self, _request: web.Request) -> web.Response:
        """GET all models: the one that is loaded."""
        try:
            served = self._served()
        except VoiceForgeError as exc:
            return _refused(exc, param=None)
        return web.json_response(text=ModelList(data=[served], stt=[served]).model_dump_json())

    @described(MODEL)
    async def find(self, request: web.Request) -> web.Response:
        """GET one model by its name, its UUID, or a name that stands for it."""
        name = request.match_info["model"]
        try:
            served = self._served()
            if name != served.uuid:
                require_served(name, loaded=served.name, aliases=self._settings.model_aliases)
        except ConfigError as exc:
            return _refused(HttpError(HTTPStatus.NOT_FOUND, "MODEL_NOT_FOUND", exc.message, exc.hint), param="model")
        except VoiceForgeError as exc:
            return _refused(exc, param=None)
        return web.json_response(text=served.model_dump_json())

    def _served(self) -> ServedModel:
        engine = self._engine()
        if engine is None:
            raise CapacityError(
                "MODEL_LOADING",
                "The speech model is still loading.",
                f"Try again in {LOADING_RETRY_AFTER_S} s.",
                retry_after_s=LOADING_RETRY_AFTER_S,
            )
        name = engine.model_name
        return ServedModel(
            id=name,
            created=self._started_s,
            name=name,
            canonical_name=name,
            languages=list(engine.languages),
            version=VERSION,
            uuid=model_uuid(name),
        )


def write_model_refusal(error: VoiceForgeError) -> web.Response:
    """A refusal of a request that came to no handler, or whose handler failed."""
    return _refused(error, param=None)


def _refused(error: VoiceForgeError, *, param: str | None) -> web.Response:
    """A refusal in the shapes of both vendors."""
    request_id = str(uuid.uuid4())
    response = refusal_response(error, request_id)
    told = refusal_body(error, request_id)
    both = ModelRefusal(
        **told.model_dump(), error=OpenAIError(message=told.err_msg, param=param, code=error.code.lower())
    )
    response.text = both.model_dump_json()
    return response
