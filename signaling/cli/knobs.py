"""Settings as command-line options and as a reference: both made from `Settings`, so neither can differ from it."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
from annotated_types import Ge, Gt, Le, Lt
from platformdirs import user_cache_path, user_data_path
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from mediaserver.settings import SETTINGS_FILE, Group, Settings
from signaling.client_key import VARIABLE

UNITS = {"_ms": "ms", "_s": "s"}
"""The unit that the end of a setting's name stands for."""

METAVARS = {"ms": "MS", "s": "SECONDS"}

PREFIX = "VOICEFORGE_"

OTHER_VARIABLES = frozenset({VARIABLE})
"""Those of the command line that are no settings."""

CLOSE = 0.85
"""How much alike two names are of which one is taken for a slip: a letter or two changed places or left out."""

HEADINGS = {
    Group.SERVER: "Server",
    Group.ACCESS: "Keys and usage",
    Group.CLUSTER: "Several processes",
    Group.SEEING: "Logs, audit and traces",
    Group.WEBRTC: "WebRTC",
    Group.AUDIO: "Audio",
    Group.DECODER: "Decoder",
    Group.SESSION: "Sessions",
    Group.RECORDINGS: "Recordings",
}


class Knob:
    """One setting, as its option and its line in the reference show it."""

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.name = name
        self.field = field
        extra = field.json_schema_extra
        self.group = Group(str(extra["group"])) if isinstance(extra, dict) else Group.SERVER
        self.flag = "--" + name.replace("_", "-")
        self.variable = f"VOICEFORGE_{name.upper()}"
        self.description = field.description or ""
        self.unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it takes, where there is a list of them."""
        for kind in self._kinds():
            if get_origin(kind) is Literal:
                return tuple(str(value) for value in get_args(kind))
            if isinstance(kind, type) and issubclass(kind, Enum):
                return tuple(str(member.value) for member in kind)
        return ()

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off."""
        return self.field.annotation is bool

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return any(get_origin(kind) is list for kind in self._kinds())

    @property
    def is_secret(self) -> bool:
        """Whether its value is shown nowhere. Such a setting has no flag: every user of a machine sees those."""
        return SecretStr in self._kinds()

    @property
    def takes_objects(self) -> bool:
        """Whether it is an object or a list of objects, to be written as JSON."""
        kinds = [*self._kinds(), *(arg for kind in self._kinds() for arg in get_args(kind))]
        return any(get_origin(kind) is dict for kind in kinds)

    @property
    def limits(self) -> str:
        """The range of a number in words; empty where there is none."""
        lows: list[tuple[Any, str]] = []
        highs: list[tuple[Any, str]] = []
        for limit in self.field.metadata:
            match limit:
                case Ge(ge=value):
                    lows.append((value, f"at least {value}"))
                case Gt(gt=value):
                    lows.append((value, f"more than {value}"))
                case Le(le=value):
                    highs.append((value, f"at most {value}"))
                case Lt(lt=value):
                    highs.append((value, f"less than {value}"))
        # A type may bring limits of its own beside the setting's: the narrower one is what holds.
        return ", ".join(text for _, text in ([max(lows)] if lows else []) + ([min(highs)] if highs else []))

    def default_text(self, *, of_any_machine: bool = False) -> str:
        """The default with its unit. `of_any_machine`: as a page says it that is not read on this machine."""
        default = self.field.default
        if default is None:
            return "unset"
        if isinstance(default, bool):
            return "on" if default else "off"
        if isinstance(default, Enum):
            return str(default.value)
        if isinstance(default, list):
            return json.dumps(default) if default else "none"
        if isinstance(default, Path):
            cache = user_cache_path("voiceforge")
            if of_any_machine and default.is_relative_to(cache):
                return f"{default.relative_to(cache)} in the user's cache folder"
            if of_any_machine and default == user_data_path("voiceforge"):
                return "the user's data folder"
            return str(default)
        return f"{default:g} {self.unit}".strip() if isinstance(default, float) else f"{default} {self.unit}".strip()

    def _kinds(self) -> Iterator[Any]:
        """The types that its annotation allows, None left out."""
        annotation: Any = self.field.annotation
        if get_origin(annotation) in (Union, UnionType):
            yield from (kind for kind in get_args(annotation) if kind is not NoneType)
        else:
            yield annotation


def knobs() -> list[Knob]:
    """All settings, in the order of `Settings`."""
    return [Knob(name, field) for name, field in Settings.model_fields.items()]


class KnobOption(click.Option):
    """The option of a setting; click shows the option, `KnobCommand` its heading."""

    def __init__(self, knob: Knob) -> None:
        notes = [note for note in (knob.limits, f"default: {knob.default_text()}") if note]
        text = f"{knob.description}  [{'; '.join(notes)}]"
        if knob.is_switch:
            super().__init__([f"{knob.flag}/--no-{knob.flag[2:]}", knob.name], default=None, help=text)
        else:
            metavar = "|".join(knob.choices) or ("JSON" if knob.takes_objects else METAVARS.get(knob.unit, "VALUE"))
            several = knob.is_list and not knob.takes_objects
            super().__init__([knob.flag, knob.name], default=None, metavar=metavar, multiple=several, help=text)
        self.knob = knob


class KnobCommand(click.Command):
    """A command with an option for every setting, under the headings of their groups."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params = [*self.params, *(KnobOption(knob) for knob in knobs() if not knob.is_secret)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options first, then the settings by group."""
        grouped: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Options", *HEADINGS.values())}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                heading = HEADINGS[param.knob.group] if isinstance(param, KnobOption) else "Options"
                grouped[heading].append(record)
        for heading, records in grouped.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def load_settings(given: Mapping[str, Any]) -> Settings:
    """Flags over environment over `voiceforge.toml` over defaults.

    Args:
        given: what the command line says, by the settings' names; None and () mean not given.

    Raises:
        click.UsageError: a value that cannot be, named with where it comes from; exit status 2.
    """
    flags = {name: value for name, value in given.items() if value is not None and value != ()}
    for knob in knobs():
        if knob.takes_objects and knob.name in flags:
            try:
                flags[knob.name] = json.loads(flags[knob.name])
            except ValueError as exc:
                raise click.UsageError(f"{knob.flag} is not JSON: {exc}.") from exc
    try:
        return Settings(**flags)
    except ValidationError as exc:
        raise click.UsageError(" ".join(_problem(error, flags) for error in exc.errors())) from exc
    except SettingsError as exc:
        raise click.UsageError(_not_json(exc)) from exc
    except tomllib.TOMLDecodeError as exc:
        raise click.UsageError(f"{SETTINGS_FILE} is not TOML: {exc}.") from exc
    except OSError as exc:
        raise click.UsageError(f"{SETTINGS_FILE} cannot be read: {exc.strerror}.") from exc


def unknown_variables() -> list[str]:
    """What to say of each variable of the environment that looks like a setting and is none; most are slips."""
    known = {knob.variable for knob in knobs()}
    said = []
    for name in sorted(os.environ):
        if name.upper() in known or not name.upper().startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=CLOSE)
        if close:  # others are not ours to judge: Kubernetes sets some for each of its services
            said.append(f"{name} is no setting and does nothing. Did you mean {close[0]}?")
    return said


def _not_json(exc: SettingsError) -> str:
    """The variable that does not hold the JSON it should, and where."""
    found = re.search(r'field "(\w+)"', str(exc))
    name = next((knob.variable for knob in knobs() if found and knob.name == found[1]), "A variable")
    why = f": {exc.__cause__}" if isinstance(exc.__cause__, ValueError) else ""
    return f"{name} is not JSON{why}. Lists and objects are written as JSON in the environment."


def _problem(error: Any, flags: Mapping[str, Any]) -> str:
    reason = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:  # settings that contradict each other
        return f"{reason}."
    name = str(error["loc"][0])
    known = {knob.name: knob for knob in knobs()}
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, known, n=1)
        return f"{SETTINGS_FILE} has `{name}`, which is no setting." + (f" Did you mean `{close[0]}`?" if close else "")
    knob = known[name]
    if knob.is_secret and error["type"] == "too_short":  # which speaks of items
        reason = f"at least {error['ctx']['min_length']} letters are wanted"
    if name in flags:
        where = knob.flag
    elif knob.variable in {variable.upper() for variable in os.environ}:
        where = knob.variable
    else:
        where = f"`{name}` in {SETTINGS_FILE}"
    value = "what it is" if knob.is_secret else repr(error["input"])
    return f"{where} cannot be {value}: {reason[0].lower()}{reason[1:]}."


def reference() -> str:
    """`docs/settings.md`: every setting with its flag, variable, default, unit and limits."""
    lines = [
        "# Settings",
        "",
        "<!-- Made from mediaserver/settings/ by `make settings`; `make check` holds it to that. -->",
        "",
        "A flag of `voiceforge serve` wins over an environment variable, that over `voiceforge.toml` in the working",
        "directory, that over the default. In the file the names are those of the first column; lists and objects are",
        "written as TOML there, as JSON in the environment; `unset` in the environment takes back what the file says.",
    ]
    for group in Group:
        lines += ["", f"## {HEADINGS[group]}", "", "| name | flag, variable | default | meaning |", "|---|---|---|---|"]
        lines += [_row(knob) for knob in knobs() if knob.group is group]
    return "\n".join(lines) + "\n"


def _row(knob: Knob) -> str:
    meaning = knob.description
    if knob.choices:
        meaning += f" One of {', '.join(f'`{choice}`' for choice in knob.choices)}."
    if knob.limits:
        meaning += f" {knob.limits[0].upper()}{knob.limits[1:]}."
    flag = f"`{knob.flag}`, `--no-{knob.flag[2:]}` " if knob.is_switch else f"`{knob.flag}` "
    cells = (
        f"`{knob.name}`",
        f"{'' if knob.is_secret else flag}`{knob.variable}`",
        knob.default_text(of_any_machine=True),
        meaning,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
