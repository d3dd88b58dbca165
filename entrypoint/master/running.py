"""A worker's process, as the parts of the master know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from entrypoint.config.environment import Identity

if TYPE_CHECKING:
    from entrypoint.core import actions as act
    from entrypoint.core.terms import Template


class Running:
    """A worker's process."""

    __slots__ = ("alive", "asked", "error", "order", "pid", "refused", "uid", "warned")

    def __init__(self, order: act.Spawn, pid: int, uid: int) -> None:
        self.order = order
        self.pid = pid
        self.uid = uid
        self.error = ""  # why its program never ran
        self.alive = True  # not reaped: the pid is its own
        self.asked = False  # it was told to go
        self.refused = False  # somebody else spoke in its name; told once
        self.warned = False  # it named another main process; told once

    @property
    def serial(self) -> int:
        """Its life's number."""
        return self.order.serial

    @property
    def slot(self) -> int:
        """Its place in the pool."""
        return self.order.slot

    @property
    def template(self) -> Template:
        """What it was born with."""
        return self.order.template

    @property
    def identity(self) -> Identity:
        """What it is told about itself."""
        return Identity(self.order.pool, self.order.slot, self.order.generation)

    @property
    def fields(self) -> dict[str, object]:
        """Who it is, for a line of the log."""
        return {"pool": self.order.pool, "slot": self.order.slot, "pid": self.pid}
