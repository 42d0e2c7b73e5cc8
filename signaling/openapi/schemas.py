"""JSON Schemas of many types at once, those that have a name kept in one place and referred to from all others."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import TypeAdapter

JsonSchema = dict[str, Any]
Mode = Literal["validation", "serialization"]

REF = "#/components/schemas/"


class Schemas:
    """Collects types first, then gives each one's schema (JSON Schema 2020-12, the dialect of OpenAPI 3.1).

    What is read (`validation`) and what is written (`serialization`) of one model may differ; then it has two names.
    """

    def __init__(self) -> None:
        self._wanted: list[tuple[Any, Mode]] = []
        self._schemas: dict[tuple[int, Mode], JsonSchema] = {}
        self.components: dict[str, JsonSchema] = {}

    def want(self, annotation: object, mode: Mode) -> None:
        """Make `schema` know a type. A type may be wanted more than once."""
        if not any(known is annotation and its == mode for known, its in self._wanted):
            self._wanted.append((annotation, mode))

    def make(self) -> None:
        """Write the schemas of all that was wanted."""
        adapters: list[tuple[int, Mode, TypeAdapter[Any]]] = [
            (index, mode, TypeAdapter[Any](item)) for index, (item, mode) in enumerate(self._wanted)
        ]
        made, shared = TypeAdapter.json_schemas(adapters, ref_template=REF + "{model}")
        self.components = {name: _tidy(schema) for name, schema in sorted(shared.get("$defs", {}).items())}
        self._schemas = {(index, mode): _tidy(schema) for (index, mode), schema in made.items()}

    def schema(self, annotation: object, mode: Mode) -> JsonSchema:
        """A type's schema, a reference where it has a name."""
        for index, (known, its) in enumerate(self._wanted):
            if known is annotation and its == mode:
                return dict(self._schemas[index, mode])
        raise KeyError(annotation)

    def resolved(self, schema: JsonSchema) -> JsonSchema:
        """What a reference leads to; any other schema as it is."""
        ref = schema.get("$ref")
        return schema if ref is None else self.components[str(ref).removeprefix(REF)]


def without_null(schema: JsonSchema) -> JsonSchema:
    """A schema of what can be written in a URL or a header, where null cannot."""
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if not choices:
        return schema
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    return {**choices[0], **rest} if len(choices) == 1 else {**rest, "anyOf": choices}


def without_keyword(schema: JsonSchema, keyword: str) -> JsonSchema:
    """A schema without a keyword at any depth; properties of that name stay."""
    rest = _without(schema, keyword)
    assert isinstance(rest, dict)
    return rest


def _tidy(schema: JsonSchema) -> JsonSchema:
    """Without the titles that pydantic makes of field names: they repeat the name in other letters."""
    return without_keyword(schema, "title")


def _without(value: object, keyword: str, *, is_names: bool = False) -> object:
    if isinstance(value, list):
        return [_without(item, keyword) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _without(item, keyword, is_names=not is_names and key in ("properties", "$defs"))
        for key, item in value.items()
        if is_names or key != keyword
    }
