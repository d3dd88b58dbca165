"""What the documents say is so: links, commands, configurations, events, programs, generated pages."""

from __future__ import annotations

import json
import os
import re
import runpy
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from entrypoint import __version__
from entrypoint.cli.arguments import parser
from entrypoint.cli.run import parse
from entrypoint.commands import COMMANDS
from entrypoint.config.load import Request, load
from entrypoint.core.counters import FAULTS, WISHES
from entrypoint.observer.metrics import Metrics
from entrypoint.observer.proc import Usage
from tests.observer.harness import pool, snapshot, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
HIDDEN = {".venv", "dist", "node_modules"}


def documents() -> list[Path]:
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if not n.startswith(".") and n not in HIDDEN]
        found += [Path(folder, f) for f in files if f.endswith(".md")]
    return sorted(found)


DOCUMENTS = documents()
EACH_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=[str(p.relative_to(ROOT)) for p in DOCUMENTS])


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Without fenced blocks and quoted code."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text: str) -> set[str]:
    """The names that headings can be linked by."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def commands(text: str) -> Iterator[list[str]]:
    """Every command line in indented or fenced blocks, comments and prompts taken off.

    In a block with prompts the other lines are output.
    """
    indented = re.findall(r"^(?: {4}|\t)(.+)$", text, re.MULTILINE)
    sessions = [block.splitlines() for block in blocks(text, "")]
    fenced = [
        line for lines in sessions for line in lines if line.startswith("$ ") or not any(x[:2] == "$ " for x in lines)
    ]
    for line in indented + fenced:
        for part in line.removeprefix("$ ").split("&&"):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:  # a picture
                continue
            if words:
                yield words


def test_the_documents_are_all_found() -> None:
    names = {str(p.relative_to(ROOT)) for p in DOCUMENTS}
    wanted = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", "docs/SIGNALS.md"}
    assert wanted | {"docs/CONFIG.md", "docs/MIGRATING.md", "docs/STATES.md", "examples/README.md"} <= names


def test_the_readme_leads_to_every_document() -> None:
    text = (ROOT / "README.md").read_text()
    for path in DOCUMENTS:
        name = str(path.relative_to(ROOT))
        assert name == "README.md" or f"]({name}" in text, f"README.md does not lead to {name}"


@EACH_DOCUMENT
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text()))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), f"{link} leads nowhere"
        assert target.resolve().is_relative_to(ROOT.resolve()), f"{link} leaves the project"
        if anchor:
            assert anchor in anchors(target.read_text()), f"{link} names no heading"


@EACH_DOCUMENT
def test_every_target_of_make_exists(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"`make ([a-z][\w-]*)", text)) | {w[1] for w in commands(text) if w[0] == "make" and w[1:]}
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets, f"the Makefile lacks {named - targets}"


def test_the_readme_has_the_two_commands() -> None:
    assert {("make", "run"), ("make", "test")} <= {tuple(words) for words in commands((ROOT / "README.md").read_text())}


@EACH_DOCUMENT
def test_every_command_line_of_entrypoint_is_understood(path: Path) -> None:
    text = path.read_text()
    quoted = [shlex.split(line) for line in re.findall(r"`(entrypoint run [^`]*)`", text)]
    for words in [*quoted, *commands(text)]:
        if words[0] != "entrypoint" or len(words) < 2:
            continue
        assert words[1] in COMMANDS, words
        if words[1] == "run":
            parse(words[2:])  # raises UsageError
        else:
            parser(words[1]).parse_args(words[2:])  # exits with 2


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"`(entrypoint )?{name}\b", text), f"README.md does not tell of {name}"


def yaml_blocks(*, values: bool) -> list[Any]:
    """Those with values of the chart, or all others."""
    return [
        pytest.param(block, id=f"{path.relative_to(ROOT)}-{number}")
        for path in DOCUMENTS
        for number, block in enumerate(blocks(path.read_text(), "yaml"), 1)
        if values == (path.name == "KUBERNETES.md" and "apiVersion:" not in block)
    ]


@pytest.mark.parametrize("block", yaml_blocks(values=True))
def test_all_values_in_the_documents_are_the_charts(block: str) -> None:
    schema = json.loads((ROOT / "helm/entrypoint/values.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(block), schema)


@pytest.mark.parametrize("block", yaml_blocks(values=False))
def test_every_configuration_in_the_documents_can_be_loaded(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    manifests = [m for m in yaml.safe_load_all(block) if isinstance(m, dict)]
    assert manifests
    if any(set(m) & {"groups", "scrape_configs"} for m in manifests):
        return  # Prometheus' own; its tool checks them, with the system tests
    kubernetes = all("kind" in m for m in manifests)
    configs = [m["data"]["config.yaml"] for m in manifests if m["kind"] == "ConfigMap"] if kubernetes else [block]
    given = [m["spec"]["template"]["spec"] for m in manifests if m.get("kind") == "Deployment"]
    for number, config in enumerate(configs):
        path = tmp_path / f"{number}.yaml"
        (tmp_path / "db").write_text("secret")
        path.write_text(config.replace("/run/secrets/", f"{tmp_path}/"))
        environ = {"ENTRYPOINT_CPUS": "1"} | ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"} if kubernetes else {})
        loaded = load(Request(str(path), strict_grace=True), environ)  # raises ConfigError
        assert not (kubernetes and loaded.warnings)
        for pod in given:
            assert pod["terminationGracePeriodSeconds"] >= loaded.spec.shutdown.grace_period > 0


def test_the_states_are_drawn_as_the_table_is() -> None:
    states = runpy.run_path(str(ROOT / "docs/states.py"))
    page = states["page"]()
    current = (ROOT / "docs/STATES.md").read_text()
    assert current == page, "out of date: python docs/states.py > docs/STATES.md"
    assert not states["forgotten"]()
    for arrow in ("ready --> draining: .*liveness", "ready --> killing: heartbeat overdue", "starting --> ready: "):
        assert re.search(arrow, page)


def test_the_page_of_the_configuration_is_up_to_date() -> None:
    page = runpy.run_path(str(ROOT / "docs/config.py"))["markdown"]()
    assert (ROOT / "docs/CONFIG.md").read_text() == page, "out of date: python docs/config.py > docs/CONFIG.md"


def test_every_module_of_the_house_is_in_the_architecture() -> None:
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    plan = next(block for block in blocks(text, "") if block.startswith("entrypoint/\n"))
    rooms = dict(re.findall(r"^  (\w+)/(.*?)(?=^  \w|\Z)", plan, re.MULTILINE | re.DOTALL))
    assert set(rooms) == {path.name for path in (ROOT / "entrypoint").iterdir() if (path / "__init__.py").exists()}
    for room, described in rooms.items():
        modules = {path.stem for path in (ROOT / "entrypoint" / room).rglob("[a-z]*.py")}
        missing = modules - set(re.findall(r"\w+", described))
        assert not missing, f"{room}: {missing} not described"


EVENT = (
    r"`((?:worker|pool|rollout|config|reload|master|probe|hook|spawn|socket|message|selector)_[a-z]+(?:_[a-z]+)?"
    r"|rolled_back|no_control_socket|main_pid_ignored|observer_listens)`"
)


def literals() -> set[str]:
    """Every string that is quoted in the core and the master, so every event that may be logged."""
    text = "".join(
        path.read_text() for room in ("core", "master") for path in (ROOT / "entrypoint" / room).rglob("*.py")
    )
    assert 'f"rollout_{result}"' in text
    return set(re.findall(r'"(\w+)"', text)) | {f"rollout_{end}" for end in ("completed", "failed", "aborted")}


@EACH_DOCUMENT
def test_every_event_in_the_documents_is_logged(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(EVENT, text)) | set(re.findall(r'"event": "(\w+)"', text))
    assert named <= literals()


def test_every_metric_is_in_the_table_with_its_type_and_labels() -> None:
    told = snapshot(web=pool(worker("web", 0, 7, heartbeat_age_seconds=1.0)))
    told["master"] |= {"signals": {"TERM": 1}, "oom_kills": 0}
    families = Metrics(told, {os.getpid(): Usage(1, 1.0), 7: Usage(1, 1.0)}, {"web": 1.0}).collect()
    shown = {}
    for family in families:
        name = family.name + ("_total" if family.type == "counter" else "")
        assert any(value is not None for _, value in family.samples), f"nothing to be seen of {name}"
        shown[name] = family.type, set(family.labels)
    rows = re.findall(
        r"^\| `(entrypoint_\w+)` \| (\w+) \| (.*?) ?\|", (ROOT / "docs/METRICS.md").read_text(), re.MULTILINE
    )
    assert {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows} == shown


@EACH_DOCUMENT
def test_every_metric_in_the_documents_is_one(path: Path) -> None:
    table = (ROOT / "docs/METRICS.md").read_text()
    known = set(re.findall(r"^\| `(entrypoint_\w+)`", table, re.MULTILINE))
    known |= {f"{name}_bucket" for name in re.findall(r"^\| `(entrypoint_\w+)` \| histogram", table, re.MULTILINE)}
    assert set(re.findall(r"\bentrypoint_[a-z_]+\b(?!/)", path.read_text())) <= known


def test_every_reason_of_an_end_is_told() -> None:
    text = (ROOT / "docs/METRICS.md").read_text()
    table = text[text.index("| `reason` |") : text.index("### Sockets")]
    listed = {name: row for row in table.strip().splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(listed) == {*FAULTS, *WISHES}
    assert {name for name, row in listed.items() if row.split("|")[3].strip().startswith("yes")} == set(FAULTS)


def test_the_programs_of_the_documents_are_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    found = [block for path in DOCUMENTS for block in blocks(path.read_text(), "python")]
    assert found
    for block in found:
        exec(compile(block, "block", "exec"), {})


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
