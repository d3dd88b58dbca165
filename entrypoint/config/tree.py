"""YAML text -> a tree of nodes that keep their source text and line.

Built from the parser's events and not by yaml.load: the text of a scalar must survive (`NO`, `1.10`, `0123`), every
node needs its line, duplicate keys are errors, and a hostile file must be refused after a bounded amount of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from typing import Any, Literal

# Fast enough together with validation to answer within a second, and far above any real configuration.
MAX_NODES = 50_000
MAX_DEPTH = 50

_TAG = "tag:yaml.org,2002:"
_KINDS = {"scalar": "a single value", "map": "a mapping", "list": "a list"}


class TreeError(Exception):
    """The text is not a tree: `line` (0: unknown) and a one-line reason."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason


class Node:
    """A scalar with its text, a map, or a list; `source` names an overlay (empty: the file)."""

    __slots__ = ("items", "keys", "kind", "line", "literal", "pairs", "plain", "source", "text")

    def __init__(self, kind: Literal["scalar", "map", "list"], line: int = 0, text: str = "", source: str = "") -> None:
        self.kind = kind
        self.line = line
        self.text = text
        self.source = source
        self.plain = False  # a scalar without quotes
        self.literal = False  # no ${NAME} in it: it is a value of the environment, or a word of the command line
        self.pairs: dict[str, Node] = {}
        self.keys: dict[str, tuple[str, int]] = {}  # (source, line) of each key of a map
        self.items: list[Node] = []

    @property
    def empty(self) -> bool:
        """Whether this is a key with nothing after it, which means "as if it were not there"."""
        return self.kind == "scalar" and self.plain and self.text == ""

    def describe(self) -> str:
        """What this is, for "... expected, not a list"."""
        return _KINDS[self.kind]

    def copy(self) -> Node:
        """A copy that shares its children: anchors share nodes, so an overlay must not change one in place."""
        twin = Node(self.kind, self.line, self.text, self.source)
        twin.plain, twin.literal = self.plain, self.literal
        twin.pairs, twin.keys, twin.items = dict(self.pairs), dict(self.keys), list(self.items)
        return twin

    def put(self, key: str, value: Node) -> None:
        """Set a key of a map on behalf of an overlay."""
        self.pairs[key] = value
        self.keys[key] = (value.source, value.line)


def scalar(text: str, source: str, *, literal: bool = False) -> Node:
    """A scalar that comes from an overlay."""
    node = Node("scalar", text=text, source=source)
    node.literal = literal
    return node


def parse(text: str, source: str = "", *, literal: bool = False) -> Node | None:
    """The tree of a YAML text, None for an empty one; `literal`: what its scalars are. Raises TreeError."""
    loader: type[Any] = getattr(yaml, "CSafeLoader", None) or yaml.SafeLoader
    try:
        parser = loader(text)
        try:
            return _Composer(parser, source, literal=literal).document()
        finally:
            parser.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.problem, error.context) if part)
        last = text.rstrip("\n").count("\n") + 1  # the end of the text counts as a line of its own for the parser
        raise TreeError(min(mark.line + 1, last) if mark else 0, f"not YAML: {reason}") from None
    except yaml.reader.ReaderError as error:
        at = error.position if isinstance(error.position, int) else 0
        raise TreeError(text.count("\n", 0, at) + 1, f"not YAML: {error.reason}") from None
    except UnicodeError:
        raise TreeError(0, "not UTF-8") from None


class _Composer:
    def __init__(self, parser: Any, source: str, *, literal: bool) -> None:
        self.next = parser.get_event
        self.source = source
        self.literal = literal
        self.anchors: dict[str, Node | None] = {}
        self.count = 0

    def document(self) -> Node | None:
        self.next()  # stream start
        if isinstance(self.next(), yaml.StreamEndEvent):
            return None
        root = self.node(self.next(), 0)
        self.next()  # document end
        after = self.next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise TreeError(after.start_mark.line + 1, "more than one YAML document")
        return root

    def node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        self.count += 1
        if self.count > MAX_NODES:
            raise TreeError(line, f"too large: more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise TreeError(line, f"nested deeper than {MAX_DEPTH}")
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor not in self.anchors:
                raise TreeError(line, f"unknown anchor: {anchor}")
            found = self.anchors[anchor]
            if found is None:
                raise TreeError(line, f"anchor {anchor} contains itself")
            return found
        if event.tag and event.tag != "!" and not event.tag.startswith(_TAG):
            raise TreeError(line, f"unknown tag: {event.tag}")
        if anchor:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node("scalar", line, event.value, self.source)
            node.plain = not event.style and not event.tag
            node.literal = self.literal
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node("list", line, source=self.source)
            while not isinstance(event := self.next(), yaml.SequenceEndEvent):
                node.items.append(self.node(event, depth + 1))
        else:
            node = self.mapping(line, depth)
        if anchor:
            self.anchors[anchor] = node
        return node

    def mapping(self, line: int, depth: int) -> Node:
        node = Node("map", line, source=self.source)
        merged: list[Node] = []
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            key = self.node(event, depth + 1)
            if key.kind != "scalar":
                raise TreeError(key.line, "a key must be a single word")
            at = event.start_mark.line + 1  # a key may be an alias: its own line is elsewhere
            value = self.node(self.next(), depth + 1)
            if key.plain and key.text == "<<":
                merged += value.items if value.kind == "list" else [value]
            elif key.text in node.pairs:
                raise TreeError(at, f"duplicate key: {key.text} (first on line {node.keys[key.text][1]})")
            else:
                node.pairs[key.text] = value
                node.keys[key.text] = (self.source, at)
        for base in merged:
            if base.kind != "map":
                raise TreeError(line, "<< takes a mapping or a list of mappings")
            self.count += len(base.pairs)
            for name, value in base.pairs.items():
                if name not in node.pairs:
                    node.pairs[name] = value
                    node.keys[name] = base.keys[name]
        return node
