"""`${NAME}` and `${NAME:-default}`: values of the master's environment, put in at load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(:-([^}]*))?\}|\$\{")


def interpolate(text: str, environ: Mapping[str, str], put_in: Callable[[str], str] = str) -> str:
    """Resolve the references in `text`; a default also replaces an empty value; `$${` is a literal `${`.

    `put_in` makes of a variable's value what is put in; a default is a part of the text, and is put in as it stands.
    Raises ValueError for a name that is not set and has no default, and for a malformed reference.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match[1], match[3]
        if name is None:
            raise ValueError("not a ${NAME} or ${NAME:-default} (a literal ${ is written $${)")
        found = environ.get(name)
        if default is not None:
            return put_in(found) if found else default
        if found is None:
            raise ValueError(f"variable {name} is not set (a default is written ${{{name}:-default}})")
        return put_in(found)

    return _REFERENCE.sub(value, text)
