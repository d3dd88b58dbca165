"""$(NAME) and ${NAME}."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from entrypoint.config.expand import expand
from entrypoint.config.interpolate import interpolate

ENV = {"A": "1", "B": "$(A)", "E": "", "a.b": "dot"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(B)", "$(A)"),  # one pass
        ("$(E)", ""),
        ("$(a.b)", "dot"),
        ("$(MISSING)", "$(MISSING)"),
        ("$(date +%s)", "$(date +%s)"),
        ("$$(A)", "$(A)"),
        ("$$(A)$(A)", "$(A)1"),
        ("$$$(A)", "$$1"),
        ("$$$$(A)", "$$$(A)"),
        ("echo $$", "echo $$"),
        ("$$ $(A)", "$$ 1"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("$(A)$", "1$"),
        ("$A ${A}", "$A ${A}"),
        ("$()", "$()"),
        ("", ""),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, ENV) == expanded


@given(st.text("$()A{ ", max_size=20))
def test_expand_without_names_only_undoes_escapes(text: str) -> None:
    assume("$$$" not in text)  # which of three is the escape is tested above
    assume(not re.search(r"(?<!\$)\$\(", text))  # a reference swallows what is in it
    assert expand(text, {}) == text.replace("$$(", "$(")


@given(st.text(max_size=20).filter(lambda text: "$" not in text), st.text(max_size=10))
def test_expand_keeps_what_surrounds_a_name(around: str, value: str) -> None:
    assert expand(f"{around}$(A){around}", {"A": value}) == f"{around}{value}{around}"


def test_expand_imports_nothing_heavy() -> None:
    code = "import sys; old = set(sys.modules); import entrypoint.config.expand; print(*set(sys.modules) - old)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"re", "yaml", "typing", "enum"} & set(loaded)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("${A}${A}", "11"),
        ("${B}", "$(A)"),
        ("${E}", ""),
        ("${E:-x}", "x"),
        ("${M:-x y}", "x y"),
        ("${M:-}", ""),
        ("$${A}", "${A}"),
        ("$(A)", "$(A)"),
        ("$A", "$A"),
        ("$$", "$$"),
    ],
)
def test_interpolate(text: str, value: str) -> None:
    assert interpolate(text, ENV) == value


@pytest.mark.parametrize("text", ["${M}", "${", "${}", "${1}", "${a.b}", "${A-x}", "${A:?x}", "x${A"])
def test_interpolate_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"not set|not a \$\{NAME\}"):
        interpolate(text, ENV)
