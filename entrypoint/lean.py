"""A finder for our own modules that does the least of what the interpreter's own does.

The master is some sixty modules, and to find one and check it takes as long as to run it: a fifth of the time to the
first worker. What this one does not know is found as ever: a module without compiled code, or whose source is not what
was compiled; another optimization; an archive.
"""

from __future__ import annotations

import marshal
import os
import sys

# What both are made of; `importlib` would have to be imported for the same names.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

HEADER = 16  # bytes: magic, flags, then time and size of the source, or its hash; see PEP 552
UNCHECKED = 1  # flags: the source need not be looked at
MOST = 1 << 16  # bytes of compiled code; more are left to the interpreter
SUFFIX = f".{sys.implementation.cache_tag}.pyc"


class Finder:
    """Finds and loads modules of one package."""

    def __init__(self, package: str) -> None:
        self._prefix = f"{package}."

    def find_spec(self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module in a package, if its compiled code can be used; see importlib.abc.MetaPathFinder."""
        if path is None or not name.startswith(self._prefix):
            return None
        folder, tail = path[0], name.rpartition(".")[2]
        source = f"{folder}/{tail}.py"
        code = _compiled(source, f"{folder}/__pycache__/{tail}{SUFFIX}")
        places = None
        if code is None:
            source = f"{folder}/{tail}/__init__.py"
            code = _compiled(source, f"{folder}/{tail}/__pycache__/__init__{SUFFIX}")
            if code is None:
                return None
            places = [f"{folder}/{tail}"]
        spec = ModuleSpec(name, None, origin=source, loader_state=code, is_package=places is not None)
        spec.loader = self  # type: ignore[assignment] # all that is asked of one, without `importlib`
        if places is not None:
            spec.submodule_search_locations = places
        spec.has_location = True  # for `__file__`
        return spec

    def create_module(self, _spec: ModuleSpec) -> None:
        """As the interpreter makes it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the code that was found."""
        spec = module.__spec__
        assert spec is not None  # noqa: S101 - for the type checker
        code, spec.loader_state = spec.loader_state, None
        exec(code, vars(module))  # noqa: S102 - this is what an import is


def _compiled(source: str, path: str) -> CodeType | None:
    """The compiled code of a module, if it is that of its source."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, MOST)
        finally:
            os.close(fd)
        if data[:4] != MAGIC_NUMBER or len(data) == MOST:
            return None
        flags = int.from_bytes(data[4:8], "little")
        if flags == 0:
            found = os.stat(source)
            if data[8:12] != (int(found.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little"):
                return None
            if data[12:HEADER] != (found.st_size & 0xFFFFFFFF).to_bytes(4, "little"):
                return None
        elif flags != UNCHECKED:
            return None
        code: CodeType = marshal.loads(memoryview(data)[HEADER:])  # noqa: S302 - as the interpreter itself does
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return code


def install(package: str) -> None:
    """Find the modules of a package by this from now on, where that is possible."""
    if not sys.flags.optimize and sys.pycache_prefix is None:
        sys.meta_path.insert(0, Finder(package))
