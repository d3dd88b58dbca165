"""What the parts of the master have in common. For type checkers only: nobody imports it at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from entrypoint.core.events import Event

Tell = Callable[[Event], None]  # a fact, to the core
Orders = dict[type, Callable[[Any], None]]  # what a part carries out, by the kind of order
