"""Imports without modules that PID 1 has no use for: others stand in for them meanwhile."""

from __future__ import annotations

import _collections_abc
import os
import sys
from _collections import deque  # type: ignore[import-not-found] # where `collections` has it; typeshed leaves it out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

Module: type[ModuleType] = type(sys)  # `types` would have to be imported for it


class Spared:
    """Until `end`, empty modules stand in for those of these names that are not imported yet.

    `threading` and `logging` come with hooks that run in every child after a fork (0.4 ms each time) to mend locks for
    children that go on; ours only execute a program, so no hook is registered meanwhile.
    """

    def __init__(self, *names: str) -> None:
        self.stand_ins = {name: Module(name) for name in names if name not in sys.modules}
        self._register = os.register_at_fork
        sys.modules.update(self.stand_ins)
        os.register_at_fork = _no_hooks

    def end(self) -> None:
        """Whoever imports one of them from now on gets the real one."""
        os.register_at_fork = self._register
        for name, stand_in in self.stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


# Of modules that take 10 ms and half a megabyte with all that they import, the names that our own ask them for:
# annotations are what `typing` is for, and nobody evaluates those.
FEW = {
    "typing": {"TYPE_CHECKING": False, "Any": object, "NoReturn": None},
    "collections": {"deque": deque, "abc": _collections_abc},
}


def few() -> Spared:
    """Let these names stand in for their modules. Who asks for something else gets that of the real one."""
    spared = Spared(*FEW)
    for module, stand_in in spared.stand_ins.items():
        vars(stand_in).update(FEW[module], __getattr__=lambda name, module=module: _real(spared, module, name))
    if "collections" in spared.stand_ins:
        sys.modules["collections.abc"] = spared.stand_ins["collections.abc"] = _collections_abc
    return spared


def _real(spared: Spared, module: str, name: str) -> object:
    if name.startswith("__"):  # a question of the import system about the module itself
        raise AttributeError(name)
    spared.end()
    return getattr(__import__(module), name)


def _no_hooks(**_hooks: object) -> None:
    """In place of `os.register_at_fork`."""
