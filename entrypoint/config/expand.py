"""`$(NAME)`: per-worker expansion, as in a Kubernetes `args`. Used in the forked child: imports nothing."""

# What was put in is not searched again. `${NAME}` and `$(NAME)` are resolved one after the other, in one text; what the
# first puts in must not be a reference to the second, since a password may hold `$(`. The second's escapes cannot write
# every text; so each `$` of a value travels to the worker as `DOLLAR`, a NUL, which nothing else can hold.

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  # already loaded, and `typing` may not be

DOLLAR = "\0"  # a `$` that is only that; no argument and no variable can hold a NUL otherwise


def literal(text: str) -> str:
    """The text as `expand` gives it back unchanged."""
    return text.replace("$", DOLLAR)


def needs_expansion(text: str) -> bool:
    """Whether `expand` may make another text of it."""
    return "$" in text or DOLLAR in text


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace every `$(NAME)` by `env[NAME]`; one pass, values are not expanded again.

    A name that `env` lacks stays as it is written, and so does an unclosed `$(`. `$$(` is a literal `$(`;
    any other `$$` stays. What `literal` made of a text is that text.
    """
    if "$(" not in text:
        return text.replace(DOLLAR, "$")
    out = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            out.append(text[at:].replace(DOLLAR, "$"))
            return "".join(out)
        out.append(text[at:dollar].replace(DOLLAR, "$"))
        if text.startswith("$$(", dollar):
            out.append("$(")
            at = dollar + 3
        elif text.startswith("$$", dollar):
            out.append("$$")
            at = dollar + 2
        elif text.startswith("$(", dollar) and (end := text.find(")", dollar)) >= 0:
            reference = text[dollar : end + 1]
            out.append(env.get(reference[2:-1], reference.replace(DOLLAR, "$")))
            at = end + 1
        else:
            out.append("$")
            at = dollar + 1
