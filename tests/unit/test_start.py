"""What is imported before the first worker can be started: each of these modules would make it wait."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import entrypoint

PLACES = [str(Path(str(module.__file__)).parent.parent) for module in (entrypoint, yaml)]
SLOW = {
    "typing",
    "re",
    "enum",
    "signal",
    "collections",
    "functools",
    "contextlib",
    "pickle",
    "json",
    "socket",
    "struct",
    "ctypes",
}
BEGIN = f"""
import sys
sys.path += {PLACES!r}
from entrypoint.master import boot
from entrypoint.master.spared import few
spared = few()
"""
LOAD = """
from entrypoint.config.libyaml import import_alone
import_alone()
answer = boot.loader.load(sys.argv[1], (), None, (), streams=True)
assert answer.spec is not None, answer.errors
boot.loader.pack(answer)
"""
CONFIG = """
pools:
  web: {command: [a, "${HOME}"], workers: 2, sockets: [http], stop: {signal: INT, timeout: 1m30s}}
sockets: {http: {bind: ":8000"}}
"""


def imported(code: str, *arguments: str) -> set[str]:
    """What an isolated interpreter, as the master's is, has imported after some code."""
    told = "\nprint(*(name for name, module in sys.modules.items() if module not in spared.stand_ins.values()))"
    command = [sys.executable, "-I", "-S", "-c", BEGIN + code + told, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"HOME": "/"})
    return set(done.stdout.split())


def test_reading_a_configuration_imports_nothing_slow(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG)
    found = imported(LOAD, str(tmp_path / "config.yaml"))
    assert "yaml._yaml" in found
    assert not found & SLOW


@pytest.mark.parametrize(
    "code",
    ["import os; os.getpid = lambda: 1; boot._import_master()", "from entrypoint.config import initmode; import pwd"],
)
def test_the_master_imports_nothing_slow(code: str) -> None:
    found = imported(code)
    assert "entrypoint.master.boot" in found
    assert not {name for name in found if name.partition(".")[0] == "yaml"}
    assert not found & SLOW


def test_what_stands_in_for_a_module_hands_over_to_the_real_one() -> None:
    found = imported("""
from typing import TYPE_CHECKING, Any
assert not TYPE_CHECKING and "typing" in spared.stand_ins
from collections import deque
from collections.abc import Mapping
assert isinstance({}, Mapping) and deque([1])
from collections import OrderedDict
import collections, typing
assert collections.OrderedDict is OrderedDict and collections.deque is deque and collections.abc.Mapping is Mapping
assert typing.cast(int, 1) == 1
""")
    assert {"typing", "collections"} <= found


# What is right, and what libyaml, PyYAML or we refuse, each in its own way.
TEXTS = [
    "pools: {web: {command: [a]}}",
    "pools: {web: {command: [a, &x b, *x]}}\nshutdown: {<<: {grace_period: 5s}}",
    "pools: {web: {command: [a]}",
    "pools: [\n",
    "pools:\n\t- a",
    "a: *b",
    "a: !!python/object:x y",
    "a: %b",
    "a: 'b",
    "- a",
    "a: b: c",
    "a: \x07",
    "--- a\n--- b",
    "&a a: &a b\n? [c]\n: d",
    "a: @b",
    "",
]


def test_the_parser_alone_says_what_it_says_in_company(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    code = f"""
for text in {TEXTS!r}:
    with open(sys.argv[1], "w") as file:
        file.write(text)
    answer = boot.loader.load(sys.argv[1], (), None, (), streams=True)
    print(repr(answer._replace(sha256="")))
    assert "internal error" not in repr(answer)
"""
    alone = "from entrypoint.config.libyaml import import_alone\nimport_alone()\n"
    texts = []
    for before in (alone, "import yaml\n"):
        command = [sys.executable, "-I", "-S", "-c", BEGIN + before + code, str(path)]
        texts.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert ("yaml.scanner" in imported(before)) == (before != alone) or before == alone
    assert texts[0] == texts[1]
    assert texts[0].count("Answer(spec=Spec(") == 2
