"""What a client takes, by its Accept and Accept-Encoding headers; see RFC 9110, section 12."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Item(NamedTuple):
    """One of the things that are accepted."""

    name: str
    parameters: dict[str, str]
    weight: float  # 0: not at all


def items(header: str) -> Iterator[Item]:
    """The items of a header, names in lower case; what is malformed is taken for what comes nearest."""
    for text in header.lower().split(","):
        name, *rest = (part.strip() for part in text.split(";"))
        parameters = {key.strip(): value.strip(' "') for key, _, value in (part.partition("=") for part in rest)}
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 0.0
        yield Item(name, parameters, weight)


def takes_gzip(header: str) -> bool:
    """Whether a reply may be compressed."""
    return any(item.name in ("gzip", "x-gzip") and item.weight > 0 for item in items(header))


def takes_openmetrics(header: str) -> bool:
    """Whether a client takes OpenMetrics 1.0, and likes it no less than the older text format."""
    liked = plain = 0.0
    for item in items(header):
        if item.name == "application/openmetrics-text" and item.parameters.get("version", "1.0.0") == "1.0.0":
            liked = max(liked, item.weight)
        elif item.name == "text/plain":
            plain = max(plain, item.weight)
    return liked > 0 and liked >= plain
