"""A tree of nodes + the table of keys -> plain values, and every mistake with its path and line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint.config.expand import literal
from entrypoint.config.interpolate import interpolate
from entrypoint.config.kinds import Default, Field, Kind, ListOf, MapOf, OneOf, Scalar, Section
from entrypoint.config.tree import MAX_NODES, Node
from entrypoint.config.units import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Path = tuple[str | int, ...]

MASK = "***"
MAX_PROBLEMS = 100  # more than anyone reads; keeps the answer to a hopeless file short
_NOTHING = ("", "~", "null")
_SHELL = r"[|&;<>*`]|\$[A-Za-z_]"  # a command with one of these is meant for a shell


class TooMuchError(Exception):
    """The tree, with its aliases followed, is larger than anything sensible."""


class Problems:
    """The mistakes found so far, and where everything stands."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.where: dict[Path, tuple[str, int]] = {(): ("", 0)}  # of what the user wrote
        self.found: list[tuple[int, str]] = []
        self.dropped = 0

    def add(self, path: Path, reason: str) -> None:
        """Report a mistake at `path`, or at its closest ancestor that the user wrote."""
        if len(self.found) == MAX_PROBLEMS:
            self.dropped += 1
            return
        at = path
        while at not in self.where:
            at = at[:-1]
        source, line = self.where[at]
        place = source or (f"{self.path}:{line}" if line else self.path)
        keys = "".join(f"[{key}]" if isinstance(key, int) else f".{shorten(key)}" for key in path).removeprefix(".")
        self.found.append((line, f"cannot load {place}: {keys}{': ' if keys else ''}{reason}"))

    def did_you_mean(self, word: str, known: Iterable[str]) -> str:
        """A hint at the closest known word; empty without one, or when there are problems enough."""
        if len(self.found) > 20:
            return ""
        import difflib  # only on the way to an error: its import is slow

        close = difflib.get_close_matches(word[:100], known, 1)
        return f" (did you mean {close[0]}?)" if close else ""

    def lines(self) -> tuple[str, ...]:
        """Every message, in the order of the file."""
        lines = list(dict.fromkeys(line for _, line in sorted(self.found, key=lambda item: item[0])))
        if self.dropped:
            lines.append(f"cannot load {self.path}: {self.dropped} more errors")
        return tuple(lines)


class Reader:
    """Reads nodes by their kinds.

    Each `read` returns (value, shown): the value to run by and what may be displayed of it. A mistake is noted
    and replaced by the default, so that one run finds them all.
    """

    def __init__(self, problems: Problems, environ: Mapping[str, str]) -> None:
        self.problems = problems
        self.environ = environ
        self.visits = 0
        self.defaults: dict[int, tuple[Any, Any]] = {}

    def read(self, kind: Kind, node: Node, path: Path) -> tuple[Any, Any]:
        """The value of a node; (None, None) where it is wrong."""
        self.visits += 1
        if self.visits > MAX_NODES:
            raise TooMuchError
        if isinstance(kind, OneOf):
            return self.read(kind.section if node.kind == "map" else kind.scalar, node, path)
        if isinstance(kind, Scalar):
            return self._scalar(kind, node, path)
        nothing = _nothing(node)
        if isinstance(kind, ListOf):
            if node.kind == "list" or nothing:
                return self._list(kind, node, path)
            self.problems.add(path, f"{kind.name} expected, not {node.describe()}{_as_list(kind, node)}")
            return None, None
        if node.kind != "map" and not nothing:
            self.problems.add(path, f"a mapping expected, not {node.describe()}")
            return None, None
        return self._section(kind, node, path) if isinstance(kind, Section) else self._map(kind, node, path)

    def _scalar(self, kind: Scalar, node: Node, path: Path) -> tuple[Any, Any]:
        if node.kind != "scalar":
            self.problems.add(path, f"{kind.name} expected, not {node.describe()}")
            return None, None
        text = node.text
        interpolated = "${" in text and not node.literal
        try:
            if interpolated:
                text = interpolate(text, self.environ)
        except ValueError as error:
            self.problems.add(path, str(error))
            return None, None
        try:
            value = kind.parse(text)
        except ValueError as error:
            self.problems.add(path, str(error) if kind.secret else f"{error}: {shorten(node.text)!r}")
            return None, None
        if kind.secret:
            shown = MASK
        elif interpolated:
            shown = node.text
        else:
            shown = kind.show(value) if kind.show else value
        if kind.per_worker:
            value = self._for_workers(kind, node)
        return value, shown

    def _for_workers(self, kind: Scalar, node: Node) -> str:
        """The text that each worker resolves: only what the configuration says is a $(NAME), never what a value holds.

        A variable of the environment is a value as a whole where it sets one of the worker's.
        """
        if node.literal:
            return literal(node.text) if kind.secret else node.text
        return interpolate(node.text, self.environ, literal) if "${" in node.text else node.text

    def _list(self, kind: ListOf, node: Node, path: Path) -> tuple[Any, Any]:
        values, shown = [], []
        if not kind.least <= len(node.items) <= kind.most:
            limit = "must not be empty" if not node.items else f"more than {kind.most} items"
            self.problems.add(path, limit)
            return None, None
        for index, item in enumerate(node.items):
            self.problems.where[*path, index] = (item.source, item.line)
            value, show = self.read(kind.item, item, (*path, index))
            values.append(value)
            shown.append(show)
        return values, shown

    def _map(self, kind: MapOf, node: Node, path: Path) -> tuple[Any, Any]:
        values, shown = {}, {}
        if not kind.least <= len(node.pairs) <= kind.most:
            limit = "must not be empty" if not node.pairs else f"more than {kind.most} entries"
            self.problems.add(path, limit)
        for key, item in list(node.pairs.items())[: kind.most]:
            at = (*path, key)
            self.problems.where[at] = node.keys[key]
            try:
                kind.key(key)
            except ValueError as error:
                self.problems.add(at, str(error))
            values[key], shown[key] = self.read(kind.item, item, at)
        return values, shown

    def _section(self, kind: Section, node: Node, path: Path) -> tuple[Any, Any]:
        values, shown = {}, {}
        where = self.problems.where
        for key in node.pairs:
            if key in kind.fields or (kind.free and key.startswith(kind.free)):
                continue
            self.visits += 1
            where[*path, key] = node.keys[key]
            if key in kind.later:
                self.problems.add((*path, key), "not supported yet")
            else:
                hint = self.problems.did_you_mean(key, kind.fields)
                self.problems.add((*path, key), f"unknown key{hint}")
        for key, field in kind.fields.items():
            item = node.pairs.get(key)
            value = show = None
            if item is not None and _absent(field.kind, item):
                item = None
            if item is not None:
                where[*path, key] = node.keys[key]
                value, show = self.read(field.kind, item, (*path, key))
            if field.required and item is None and not any(key in node.pairs for key in field.instead):
                self.problems.add(path, f"{key} is missing")
            if value is None and field.default is not None:
                value, show = self._default(field)
            values[key] = value
            if show is not None:
                shown[key] = show
        return values, shown

    def _default(self, field: Field) -> tuple[Any, Any]:
        """What a key has when it is not written; computed once, shared, never changed."""
        if id(field) not in self.defaults:
            self.defaults[id(field)] = Reader(Problems(""), {}).read(field.kind, _written(field.default), ())
        return self.defaults[id(field)]


def _as_list(kind: ListOf, node: Node) -> str:
    """What to write instead of a single value; not where that is a variable's, which is for nobody's eyes."""
    if node.kind != "scalar" or node.literal or len(node.text) > 200 or not node.text.isprintable():
        return ""
    words = [node.text]
    if kind.command:
        import re  # both only on the way to an error
        import shlex

        try:
            words = shlex.split(node.text)
        except ValueError:  # a quote is not closed
            return ""
        if re.search(_SHELL, node.text):
            words = ["sh", "-c", node.text]
    return f": write [{', '.join(_flow(word) for word in words)}]"


def _flow(word: str) -> str:
    """A word as it may stand in a YAML list."""
    plain = word[:1].isalpha() and all(char.isalnum() or char in "_-./=+@" for char in word)
    return word if plain else '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _nothing(node: Node) -> bool:
    return node.kind == "scalar" and node.plain and node.text in _NOTHING


def _absent(kind: Kind, node: Node) -> bool:
    """Whether a key is as good as not there; `~` may be a text, but not a mapping or a list."""
    return node.empty or (isinstance(kind, Section | ListOf | MapOf) and _nothing(node))


def _written(default: Default) -> Node:
    if isinstance(default, str):
        return Node("scalar", text=default)
    if isinstance(default, list):
        return Node("list")
    node = Node("map")
    for key, text in (default or {}).items():
        node.put(key, Node("scalar", text=text))
    return node
