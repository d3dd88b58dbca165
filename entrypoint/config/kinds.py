"""The kinds of values that a configuration is made of.

A kind says how text is read, how a value is shown, what JSON Schema describes it and what the documentation calls
it. `entrypoint.config.fields` composes them into the table of all keys.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from entrypoint.config import units
from entrypoint.linux.signals import NUMBERS, signal, signal_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from entrypoint.config.spec import Share

JSON = dict[str, Any]

# A plain scalar where text is expected may look like a number or a boolean to a JSON Schema validator.
_TEXT: JSON = {"type": ["string", "number", "boolean"]}
_INTERPOLATED: JSON = {"type": "string", "pattern": r"\$\{"}
MAX_WORKERS = 10_000
SIGNAL_NAMES = tuple(sorted(NUMBERS))


def signal_pattern(names: tuple[str, ...]) -> str:
    """A regular expression of how these signals can be written, real-time signals and numbers always among them."""
    upper = rf"(SIG)?({'|'.join(names)}|{units.REAL_TIME})"
    return rf"{upper}|{upper.lower()}|[0-9]{{1,2}}"


SIGNAL = signal_pattern(SIGNAL_NAMES)


class Scalar:
    """A single value read from text: `parse` raises ValueError with a reason that does not repeat the text."""

    __slots__ = ("name", "parse", "per_worker", "schema", "secret", "show")

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any],
        schema: JSON,
        show: Callable[[Any], Any] | None = None,
        *,
        secret: bool = False,
        per_worker: bool = False,
    ) -> None:
        self.name = name
        self.parse = parse
        self.schema = schema
        self.show = show
        self.secret = secret  # never shown: not in errors, not in the resolved configuration
        self.per_worker = per_worker  # text whose $(NAME) each worker resolves; `parse` leaves it as it is


class ListOf:
    """A list of one kind."""

    __slots__ = ("command", "item", "least", "most", "name")

    def __init__(self, item: Kind, name: str, least: int = 0, most: int = 10_000, *, command: bool = False) -> None:
        self.item = item
        self.name = name
        self.least = least
        self.most = most
        self.command = command  # whoever writes it as one text means that as a shell would


class MapOf:
    """A mapping from names that the user chooses to one kind."""

    __slots__ = ("item", "key", "known", "least", "most", "name", "pattern")

    def __init__(
        self,
        item: Kind,
        name: str,
        key: Callable[[str], Any],
        pattern: str,
        *,
        least: int = 0,
        most: int = 1000,
        known: tuple[str, ...] = (),
    ) -> None:
        self.item = item
        self.name = name
        self.key = key
        self.pattern = pattern
        self.least = least
        self.most = most
        self.known = known  # names that a variable of the environment may add


class Section:
    """A mapping with known keys; those in `later` are reserved: refused as not supported yet.

    Keys that begin with `free` (empty: none do) are the user's own, whatever is in them.
    """

    __slots__ = ("fields", "free", "later", "name")

    def __init__(self, name: str, *fields: Field, later: tuple[str, ...] = (), free: str = "") -> None:
        self.name = name
        self.fields = {field.key: field for field in fields}
        self.later = later
        self.free = free


class OneOf:
    """A single value, or a mapping for more detail."""

    __slots__ = ("name", "scalar", "section")

    def __init__(self, scalar: Scalar, section: Section) -> None:
        self.scalar = scalar
        self.section = section
        self.name = f"{scalar.name}, or {section.name}"


Kind = Scalar | ListOf | MapOf | Section | OneOf


Default = str | list[str] | dict[str, str] | None


class Field:
    """A key: what it holds, its default as it would be written (None: absent), and a line of documentation.

    `reload` says what a reload does about a change of it, or of what is below: `live`, it takes effect; `roll`, the
    workers are replaced; `restart`, it is reported, and takes effect with another master.
    """

    __slots__ = ("default", "doc", "instead", "key", "kind", "reload", "required")

    def __init__(
        self,
        key: str,
        kind: Kind,
        default: Default = None,
        doc: str = "",
        *,
        required: bool = False,
        instead: tuple[str, ...] = (),
        reload: str = "live",
    ) -> None:
        self.key = key
        self.kind = kind
        self.default = default
        self.doc = doc
        self.required = required
        self.reload = reload
        self.instead = instead  # keys whose presence makes a required one unnecessary


def _bounded(parse: Callable[[str], Any], least: Any, most: Any, show: Callable[[Any], Any]) -> Callable[[str], Any]:
    def checked(text: str) -> Any:
        value = parse(text)
        if value < least or value > most:
            raise ValueError(f"out of range {show(least)} to {show(most)}")
        return value

    return checked


def integer(least: int, most: int, name: str = "integer") -> Scalar:
    """A whole number within bounds."""
    schema = {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, _INTERPOLATED]}
    return Scalar(f"{name} {least} to {most}", _bounded(units.parse_int, least, most, str), schema, int)


def number(least: float, most: float) -> Scalar:
    """A decimal number within bounds."""
    schema = {"anyOf": [{"type": "number", "minimum": least, "maximum": most}, _INTERPOLATED]}
    return Scalar(
        f"number {least:g} to {most:g}", _bounded(units.parse_number, least, most, "{:g}".format), schema, float
    )


def duration(least: float = 0.0, most: float = units.MAX_DURATION) -> Scalar:
    """Seconds within bounds."""
    text = {"type": "string", "pattern": rf"^(\d+(\.\d+)?|(?=.)({units.DURATION}))$|\$\{{"}
    schema = {"anyOf": [{"type": "number", "minimum": least, "maximum": most}, text]}
    name = "duration" if least == 0 else f"duration, at least {units.format_duration(least)}"
    parse = _bounded(units.parse_duration, least, most, units.format_duration)
    return Scalar(name, parse, schema, units.format_duration)


def size() -> Scalar:
    """Bytes."""
    schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": rf"^({units.SIZE})$|\$\{{"}]}
    return Scalar("size", units.parse_size, schema, units.format_size)


def boolean() -> Scalar:
    """True or false."""
    return Scalar("true or false", units.parse_bool, {"anyOf": [{"type": "boolean"}, _INTERPOLATED]}, bool)


def choice(*values: str) -> Scalar:
    """One of a few words."""

    def parse(text: str) -> str:
        if text in values:
            return text
        raise ValueError(f"not one of {', '.join(values)}")

    return Scalar(" or ".join(values), parse, {"anyOf": [{"enum": list(values)}, _INTERPOLATED]})


def text(
    name: str = "text",
    parse: Callable[[str], str] | None = None,
    *,
    secret: bool = False,
    per_worker: bool = False,
    least: int = 0,
) -> Scalar:
    """A string: the scalar's source text, whatever it looks like; never with a NUL in it."""

    def checked(value: str) -> str:
        if "\0" in value:
            raise ValueError("holds a NUL byte")
        try:
            os.fsencode(value)
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair") from None
        if len(value) < least:
            raise ValueError("must not be empty")
        return parse(value) if parse else value

    schema = _TEXT if not secret else {"type": ["string", "number", "boolean", "null"]}
    schema = {**schema, "minLength": least} if least else schema
    return Scalar(name, checked, schema, secret=secret, per_worker=per_worker)


def name_text(what: str) -> Scalar:
    """The name of a pool, socket or init command."""
    schema = {"type": "string", "pattern": f"^{units.NAME}$|\\$\\{{"}
    return Scalar(what, units.parse_name, schema)


def signal_kind(*, caught: bool = False) -> Scalar:
    """A signal by name or number; `caught`: one that a process can be told about."""

    def parse(text: str) -> int:
        number = units.signal_number(text)
        if caught and number in (signal.SIGKILL, signal.SIGSTOP):
            raise ValueError("a process cannot catch this signal")
        return number

    schema = {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 64},
            {"type": "string", "pattern": rf"^({SIGNAL})$|\$\{{"},
        ]
    }
    return Scalar("signal", parse, schema, signal_name)


def share(most_percent: int = 100) -> Scalar:
    """A part of a pool's workers."""

    def parse(text: str) -> Share:
        value = units.parse_share(text)
        most = most_percent if value.percent else MAX_WORKERS
        if not 0 <= value.value <= most:
            raise ValueError(f"out of range 0 to {most}{'%' if value.percent else ''}")
        return value

    schema = {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": MAX_WORKERS},
            {"type": "string", "pattern": r"^(0|[1-9][0-9]{0,4})%?$|\$\{"},
        ]
    }
    return Scalar("count or percentage", parse, schema, units.format_share)


def octal() -> Scalar:
    """Permission bits."""
    schema = {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 777},
            {"type": "string", "pattern": r"^(0o)?[0-7]{1,4}$|\$\{"},
        ]
    }
    return Scalar("octal mode", units.parse_octal, schema, "{:04o}".format)
