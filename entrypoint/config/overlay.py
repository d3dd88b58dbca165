"""What the environment and the command line lay over the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.config import tree
from entrypoint.config.fields import PROCESS, ROOT
from entrypoint.config.kinds import Kind, ListOf, MapOf, OneOf, Scalar, Section
from entrypoint.config.tree import Node, TreeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from entrypoint.config.reader import Problems

PREFIX = "ENTRYPOINT_"
_SERVICE = r"(.+?)_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
_ENV = PROCESS[0].kind  # a map whose keys are the user's variables, `__` included


class _NothingError(Exception):
    """A name that stands for nothing in this configuration."""


def environment(root: Node, environ: Mapping[str, str], problems: Problems) -> Node:
    """Lay `ENTRYPOINT_POOLS__WEB__WORKERS=8` over the tree; other ENTRYPOINT_* variables are left alone.

    So are those that Kubernetes sets for a Service `entrypoint-web--pr-12`.
    """
    for name in sorted(environ):
        words = name[len(PREFIX) :].split("__")
        if name[: len(PREFIX)].upper() != PREFIX or len(words) < 2:
            continue
        try:
            root = _Overlay(name, environ[name], exact=False).lay(root, ROOT, words)
        except _NothingError:
            if not _of_a_service(name, environ):
                problems.found.append((0, f"cannot load {name}: names nothing in the configuration"))
        except TreeError as error:
            problems.found.append((0, f"cannot load {name}: {error.reason}"))
    return root


def _of_a_service(name: str, environ: Mapping[str, str]) -> bool:
    """Whether this is one of the variables that tell a pod of a Service; those come together."""
    import re  # nobody but an odd name has to wait for it

    found = re.fullmatch(_SERVICE, name)
    return found is not None and all(f"{found[1]}_SERVICE_{what}" in environ for what in ("HOST", "PORT"))


def sets(root: Node, assignments: tuple[str, ...], problems: Problems) -> Node:
    """Lay each `--set PATH=VALUE` over the tree."""
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals or not all(path.split(".")):
            problems.found.append((0, f"cannot load --set {path}: not PATH=VALUE"))
            continue
        try:
            root = _Overlay(f"--set {path}", value, exact=True).lay(root, ROOT, path.split("."))
        except _NothingError:
            problems.found.append((0, f"cannot load --set {path}: names nothing in the configuration"))
        except TreeError as error:
            problems.found.append((0, f"cannot load --set {path}: {error.reason}"))
    return root


def flags(root: Node, workers: int | None, command: tuple[str, ...], problems: Problems) -> Node:
    """Lay `--workers N` and `-- COMMAND` over the pool `main`, or the only one."""
    pools = root.pairs.get("pools")
    names = list(pools.pairs) if pools else []
    name = "main" if "main" in names else names[0] if len(names) == 1 else None
    for key, source, given in (("workers", "--workers", workers is not None), ("command", "-- COMMAND", bool(command))):
        if not given:
            continue
        if name is None:
            reason = "no pool is named main, and there is more than one" if names else "there is no pool"
            problems.found.append((0, f"cannot load {source}: {reason}"))
            continue
        node = tree.scalar(str(workers), source, literal=True)
        if key == "command":
            node = Node("list", source=source)
            node.items = [tree.scalar(word, source, literal=True) for word in command]
        root = _put(root, ("pools", name, key), node)
    return root


def web_concurrency(root: Node, environ: Mapping[str, str]) -> tuple[Node, str]:
    """Let WEB_CONCURRENCY size the pool `web`, or the only one, if nothing else does; also the pool's name or ''."""
    pools = root.pairs.get("pools")
    names = list(pools.pairs) if pools else []
    name = "web" if "web" in names else names[0] if len(names) == 1 else ""
    value = environ.get("WEB_CONCURRENCY", "")
    if not pools or not name or not value or pools.pairs[name].kind != "map":
        return root, ""
    given = pools.pairs[name].pairs.get("workers")
    if given is not None and not given.empty:
        return root, ""
    source = "WEB_CONCURRENCY"
    return _put(root, ("pools", name, "workers"), tree.scalar(value, source, literal=True)), name


def _put(node: Node, path: tuple[str, ...], value: Node) -> Node:
    """The tree with one value changed; nodes on the way are copied, since anchors share them."""
    if not path:
        return value
    twin = node.copy() if node.kind == "map" else Node("map", source=value.source)
    child = twin.pairs.get(path[0]) or Node("map", source=value.source)
    fresh = _put(child, path[1:], value)
    if path[0] in twin.pairs and path[1:]:
        twin.pairs[path[0]] = fresh
    else:
        twin.put(path[0], fresh)
    return twin


class _Overlay:
    """One value on its way to its place.

    `exact`: from the command line, where names are as in the file, and so is text. Else it is a value of the
    environment, which has no ${NAME} in it.
    """

    def __init__(self, source: str, text: str, *, exact: bool) -> None:
        self.source = source
        self.text = text
        self.exact = exact

    def lay(self, node: Node, kind: Kind | None, words: list[str]) -> Node:
        """The tree with the value laid over it; `kind` None: under a key that validation will refuse."""
        if not words:
            return self.value(kind)
        word, rest = words[0], words[1:]
        if isinstance(kind, OneOf):
            kind = kind.section
        if isinstance(kind, Scalar):
            raise _NothingError
        if isinstance(kind, ListOf):
            if node.kind != "list" or not (word.isascii() and word.isdecimal() and int(word) < len(node.items)):
                raise _NothingError
            twin = node.copy()
            twin.items[int(word)] = self.lay(node.items[int(word)], kind.item, rest)
            return twin
        twin = node.copy() if node.kind == "map" else Node("map", source=self.source)
        key, child, rest = self.step(twin, kind, word, rest)
        fresh = self.lay(twin.pairs.get(key) or Node("map", source=self.source), child, rest)
        if key in twin.pairs and rest:
            twin.pairs[key] = fresh  # its own place is still the file's
        else:
            twin.put(key, fresh)
        return twin

    def step(self, node: Node, kind: Kind | None, word: str, rest: list[str]) -> tuple[str, Kind | None, list[str]]:
        """The key that a word stands for, the kind below it, and the words that remain."""
        if isinstance(kind, Section):
            known = [*kind.fields, *kind.later]
            key = word if self.exact else _match(word, known)
            if not key:
                raise _NothingError
            field = kind.fields.get(key)
            return key, field.kind if field else None, rest if field else []
        if not isinstance(kind, MapOf) or self.exact:
            return word, kind.item if isinstance(kind, MapOf) else None, rest
        if kind is _ENV:
            name = "__".join([word, *rest])
            return _match(name, node.pairs) or name, kind.item, []
        key = _match(word, node.pairs) or _match(word, kind.known)
        if not key:
            raise _NothingError
        return key, kind.item, rest

    def value(self, kind: Kind | None) -> Node:
        """The text, as the kind wants it: a single value is the text itself, the rest is YAML."""
        plain = tree.scalar(self.text, self.source, literal=not self.exact)
        if kind is None or isinstance(kind, Scalar):
            return plain
        if isinstance(kind, OneOf):
            if not self.text.lstrip().startswith("{"):
                return plain
            if kind.scalar.secret:  # a password may look like anything
                try:
                    node = self.parsed()
                except TreeError:
                    return plain
                return node if node and list(node.pairs) == list(kind.section.fields) else plain
        node = self.parsed()
        if node is None:
            plain.text, plain.plain = "", True  # as a key with nothing after it
            return plain
        return node

    def parsed(self) -> Node | None:
        """The text as YAML. Raises TreeError."""
        return tree.parse(self.text, self.source, literal=not self.exact)


def _match(word: str, names: Iterable[str]) -> str:
    """The name that a word of the environment stands for; '' without one."""
    word = word.lower().replace("-", "_")
    for name in names:
        if name.lower().replace("-", "_") == word:
            return name
    return ""
