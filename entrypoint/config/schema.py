"""JSON Schema (draft 2020-12) of the configuration, derived from the table of keys.

It describes the file as written, so a value may hold `${NAME}` where the value itself is checked only at load. What
JSON Schema cannot say (references between keys, users, files) is left to `entrypoint check`.
"""

from __future__ import annotations

from typing import Any

from entrypoint.config.fields import ROOT
from entrypoint.config.kinds import JSON, Field, Kind, ListOf, MapOf, OneOf, Scalar, Section


def json_schema() -> JSON:
    """The schema of a whole configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of entrypoint",
        **_schema(ROOT, optional=False),
    }


def _schema(kind: Kind, *, optional: bool) -> JSON:
    """`optional`: a key with nothing after it (null) is as good as an absent one."""
    if isinstance(kind, Scalar):
        return kind.schema
    if isinstance(kind, OneOf):
        return {"anyOf": [kind.scalar.schema, _schema(kind.section, optional=False)]}
    if isinstance(kind, ListOf):
        # An empty list is caught by `check` too, but an editor should say so at once.
        bounds = {"minItems": kind.least} if kind.least else {}
        return {"type": _or_null("array", optional=optional), "items": _schema(kind.item, optional=False), **bounds}
    if isinstance(kind, MapOf):
        bounds = {"minProperties": kind.least} if kind.least else {}
        names = {"propertyNames": {"pattern": f"^({kind.pattern})$"}}
        item = _schema(kind.item, optional=False)
        return {"type": _or_null("object", optional=optional), "additionalProperties": item, **names, **bounds}
    return _section(kind, optional=optional)


def _section(kind: Section, *, optional: bool) -> JSON:
    schema: JSON = {
        "type": _or_null("object", optional=optional),
        "additionalProperties": False,
        "properties": {key: _property(field) for key, field in kind.fields.items()},
    }
    if kind.free:
        schema["patternProperties"] = {f"^{kind.free}": {}}
    required = [field.key for field in kind.fields.values() if field.required]
    if required:
        schema["required"] = required
    return schema


def _property(field: Field) -> JSON:
    schema = {"description": field.doc, **_schema(field.kind, optional=not field.required)}
    if field.default is not None and not isinstance(field.kind, Section):
        schema["default"] = plain_default(field)
    return schema


def plain_default(field: Field) -> Any:
    """The default as JSON would have it: numbers and booleans as such."""
    scalar = field.kind.scalar if isinstance(field.kind, OneOf) else field.kind
    if isinstance(scalar, Scalar) and isinstance(field.default, str):
        value = scalar.parse(field.default)
        return scalar.show(value) if scalar.show else value
    return field.default


def _or_null(name: str, *, optional: bool) -> str | list[str]:
    return [name, "null"] if optional else name
