"""Imports without modules that PID 1 has no use for: others stand in for them meanwhile."""

from __future__ import annotations

import os
import sys

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


def typing() -> Spared:
    """Spare the module `typing`, which takes 10 ms and half a megabyte with all that it imports.

    Annotations are all that our modules need it for, and nobody evaluates those. Who does ask for something else of it
    gets that of the real one.
    """
    spared = Spared("typing")

    def real(name: str) -> object:
        if name.startswith("__"):  # a question of the import system about the module itself
            raise AttributeError(name)
        spared.end()
        import typing

        return getattr(typing, name)

    for stand_in in spared.stand_ins.values():
        vars(stand_in).update(TYPE_CHECKING=False, Any=object, NoReturn=None, __getattr__=real)
    return spared


def _no_hooks(**_hooks: object) -> None:
    """In place of `os.register_at_fork`."""
