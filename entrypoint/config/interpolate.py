"""`${NAME}` and `${NAME:-default}`: values of the master's environment, put in at load."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def interpolate(text: str, environ: Mapping[str, str], put_in: Callable[[str], str] = str) -> str:
    """Resolve the references in `text`; a default also replaces an empty value; `$${` is a literal `${`.

    `put_in` makes of a variable's value what is put in; a default is a part of the text, and is put in as it stands.
    Raises ValueError for a name that is not set and has no default, and for a malformed reference.
    """
    out: list[str] = []
    at = 0
    while (found := text.find("${", at)) >= 0:
        if found > at and text[found - 1] == "$":
            out += text[at : found - 1], "${"
            at = found + 2
            continue
        end = text.find("}", found)
        name, given, default = text[found + 2 : end].partition(":-")
        if end < 0 or not (name.isascii() and name.isidentifier()):
            raise ValueError("not a ${NAME} or ${NAME:-default} (a literal ${ is written $${)")
        value = environ.get(name)
        if value is None and not given:
            raise ValueError(f"variable {name} is not set (a default is written ${{{name}:-default}})")
        # A default is a part of the text.
        out += text[at:found], default if given and not value else put_in(value or "")
        at = end + 1
    return "".join((*out, text[at:]))
