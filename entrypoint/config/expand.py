"""`$(NAME)`: per-worker expansion, as in a Kubernetes `args`. Used in the forked child: imports nothing."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # already loaded, and `typing` may not be


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace every `$(NAME)` by `env[NAME]`; one pass, values are not expanded again.

    A name that `env` lacks stays as it is written, and so does an unclosed `$(`. `$$(` is a literal `$(`;
    any other `$$` stays.
    """
    if "$(" not in text:
        return text
    out = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            out.append(text[at:])
            return "".join(out)
        out.append(text[at:dollar])
        if text.startswith("$$(", dollar):
            out.append("$(")
            at = dollar + 3
        elif text.startswith("$$", dollar):
            out.append("$$")
            at = dollar + 2
        elif text.startswith("$(", dollar) and (end := text.find(")", dollar)) >= 0:
            reference = text[dollar : end + 1]
            out.append(env.get(reference[2:-1], reference))
            at = end + 1
        else:
            out.append("$")
            at = dollar + 1
