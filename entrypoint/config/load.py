"""File + environment + flags -> `Spec`, or every mistake at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint.config import overlay, tree
from entrypoint.config.build import Builder
from entrypoint.config.digest import sha256
from entrypoint.config.envfiles import EnvFileError, is_stream, read_bytes, read_stream
from entrypoint.config.errors import EXIT_CONFIG, ConfigError
from entrypoint.config.fields import ROOT
from entrypoint.config.initmode import init_spec
from entrypoint.config.location import STDIN, inherited
from entrypoint.config.reader import Problems, Reader, TooMuchError
from entrypoint.config.spec import Reload
from entrypoint.config.units import format_duration
from entrypoint.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.spec import Spec
    from entrypoint.config.tree import Node

__all__ = ["ConfigError", "Loaded", "Request", "init_spec", "load"]

MAX_FILE = 1024 * 1024  # a ConfigMap cannot be larger


class Request(Record):
    """What to load, and what the command line lays over it."""

    path: str  # `-`: the standard input
    sets: tuple[str, ...] = ()  # PATH=VALUE
    workers: int | None = None
    command: tuple[str, ...] = ()  # replaces that of the pool `main`, or of the only pool
    # For `check`: a shutdown that does not fit is an error (else a warning and shorter stops), and what is hardly meant
    # is remarked on.
    strict_grace: bool = False
    grace_period: float | None = None  # seconds, instead of shutdown.grace_period
    streams: bool = False  # a pipe will do as well as a file: it is read to its end, however long that takes


class Loaded(Record):
    """A configuration that can be run, and what may be said about it."""

    spec: Spec
    warnings: tuple[str, ...]
    resolved: dict[str, Any]  # plain data with defaults filled in; secrets masked, ${NAME} as written


def load(request: Request, environ: Mapping[str, str]) -> Loaded:
    """Read, check and resolve a configuration; raises ConfigError, and nothing else, whatever the file holds."""
    content = _content(request)
    try:
        loaded = _load(content, request, environ)
    except ConfigError as error:
        error.sha256 = sha256(content)
        raise
    if loaded.spec.reload.watch and (inherited(request.path) or is_stream(request.path)):
        warning = "reload.watch: there is no file to follow: the configuration came from standard input or a pipe"
        spec = loaded.spec._replace(reload=Reload(watch=False))
        return loaded._replace(spec=spec, warnings=(*loaded.warnings, warning))
    return loaded


def _load(content: bytes, request: Request, environ: Mapping[str, str]) -> Loaded:
    problems = Problems(request.path)
    root = _lay_over(_root(request.path, content), request, environ, problems)
    # WEB_CONCURRENCY comes last: it only fills a gap.
    root, sized = overlay.web_concurrency(root, environ)
    try:
        values, shown = Reader(problems, environ).read(ROOT, root, ())
    except TooMuchError:
        reason = f"too large: more than {tree.MAX_NODES} values with anchors followed"
        raise ConfigError((f"cannot load {request.path}: {reason}",), EXIT_CONFIG) from None
    if values is None:
        raise ConfigError(problems.lines(), EXIT_CONFIG)
    if request.grace_period is not None:
        values["shutdown"] = {**values["shutdown"], "grace_period": request.grace_period}
        shown["shutdown"] = {**shown["shutdown"], "grace_period": format_duration(request.grace_period)}
        problems.where["shutdown", "grace_period"] = ("--grace-period", 0)
    builder = Builder(problems, environ, unset={sized: ("WEB_CONCURRENCY",)} if sized else {})
    spec = builder.spec(values, shown, strict=request.strict_grace)
    if spec is None or problems.found:
        raise ConfigError(problems.lines(), EXIT_CONFIG)
    return Loaded(spec._replace(path=request.path, sha256=sha256(content)), tuple(builder.warnings), shown)


def _content(request: Request) -> bytes:
    path = request.path
    try:
        if request.streams and is_stream(path):
            return read_stream(path, MAX_FILE)
        return read_bytes("/dev/stdin" if path in STDIN else path, MAX_FILE)
    except EnvFileError as error:
        reason = error.reason
        if not request.streams and inherited(path):
            reason += ": what came through a pipe is gone once it was read"
        raise ConfigError((f"cannot load {path}: {reason}",), EXIT_CONFIG) from None


def _root(path: str, content: bytes) -> Node:
    try:
        return _mapping(content)
    except tree.TreeError as error:
        place = f"{path}:{error.line}" if error.line else path
        raise ConfigError((f"cannot load {place}: {error.reason}",), EXIT_CONFIG) from None


def _mapping(content: bytes) -> Node:
    if b"\0" in content:
        raise tree.TreeError(content.count(b"\n", 0, content.index(b"\0")) + 1, "holds a NUL byte")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise tree.TreeError(content.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
    root = tree.parse(text)
    if root is None or root.empty:
        raise tree.TreeError(0, "empty")
    if root.kind != "map":
        raise tree.TreeError(root.line, f"a mapping expected, not {root.describe()}")
    return root


def _lay_over(root: Node, request: Request, environ: Mapping[str, str], problems: Problems) -> Node:
    root = overlay.environment(root, environ, problems)
    root = overlay.sets(root, request.sets, problems)
    return overlay.flags(root, request.workers, request.command, problems)
