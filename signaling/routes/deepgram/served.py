"""What is said of the loaded model, to clients of either vendor."""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import BaseModel, Field

from mediaserver.version import VERSION
from signaling.routes.deepgram.messages import ModelInfo
from signaling.routes.deepgram.refusals import Refusal

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "voiceforge")


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
    return ModelInfo(name=name, version=VERSION)
