"""`GET /v1/models`: two vendors have it, so one answer serves the clients of both.

Those of OpenAI read `data`, those of Deepgram `stt`; in both is the one model that is loaded, under its real name.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from importlib.metadata import version
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, Field

from mediaserver.errors import CapacityError, ConfigError, VoiceForgeError
from mediaserver.settings import Settings
from signaling.limits import LOADING_RETRY_AFTER_S, ServedEngine
from signaling.model_names import require_served
from signaling.problems import HttpError
from signaling.routes.deepgram.messages import ModelInfo
from signaling.routes.deepgram.refusals import Refusal, refusal_body, refusal_response

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "voiceforge")

PATH = "/v1/models"


class ServedModel(BaseModel):
    """The loaded model, as both vendors describe one."""

    id: str = Field(description="Its name.")
    object: Literal["model"] = "model"
    created: int = Field(description="When this server was started, in seconds since 1970.")
    owned_by: str = "voiceforge"
    name: str
    canonical_name: str
    architecture: str = "whisper"
    languages: list[str] = Field(description="Codes of what it knows.")
    version: str = Field(description="Of this server.")
    uuid: str = Field(description="The same wherever a model of this name is loaded.")
    batch: bool = Field(default=True, description="Recordings are transcribed with it.")
    streaming: bool = Field(default=True, description="So is live speech.")
    formatted_output: bool = Field(default=True, description="It writes punctuation and capitals.")


class ModelList(BaseModel):
    """The models: `data` for clients of OpenAI, `stt` for those of Deepgram."""

    object: Literal["list"] = "list"
    data: list[ServedModel]
    stt: list[ServedModel]
    tts: list[ServedModel] = Field(default_factory=list, description="None: this server does not speak.")


class OpenAIError(BaseModel):
    """A refusal as clients of OpenAI read it."""

    message: str
    type: str = "invalid_request_error"
    param: str | None
    code: str


class ModelRefusal(Refusal):
    """A refusal that clients of both vendors read."""

    error: OpenAIError


def model_uuid(name: str) -> str:
    """The id of a model, the same everywhere."""
    return str(uuid.uuid5(NAMESPACE, name))


def model_info(name: str) -> ModelInfo:
    """A model as results name it."""
    return ModelInfo(name=name, version=version("voiceforge"))


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

    async def list(self, _request: web.Request) -> web.Response:
        """GET all models: the one that is loaded."""
        try:
            served = self._served()
        except VoiceForgeError as exc:
            return _refused(exc, param=None)
        return web.json_response(text=ModelList(data=[served], stt=[served]).model_dump_json())

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
            version=version("voiceforge"),
            uuid=model_uuid(name),
        )


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
