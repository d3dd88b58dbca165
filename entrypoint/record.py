"""A named tuple that costs next to nothing to define: there are seventy of them on the way to the first worker.

`typing.NamedTuple` compiles source text for each class, 0.1 ms and 5 kB a time. These are the same to use: immutable,
equal by value, pickled as what they are, made by position or by name, with `_replace` and `_fields`.
"""

from __future__ import annotations

from collections import _tuplegetter  # type: ignore[attr-defined] # what named tuples use; typeshed leaves it out
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Self, TypeVar, dataclass_transform

    Class = TypeVar("Class", bound=type)
else:

    def dataclass_transform(**_options: bool) -> Callable[[Class], Class]:
        """At run time: nothing. To a type checker, every annotation of a subclass is a field."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record(tuple[Any, ...]):
    """The base of records: each annotation of a subclass is a field, with a default if it has a value."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _field_defaults: ClassVar[dict[str, Any]] = {}

    if not TYPE_CHECKING:

        def __init_subclass__(cls) -> None:
            cls._fields = tuple(cls.__annotations__)
            cls._field_defaults = {name: cls.__dict__[name] for name in cls._fields if name in cls.__dict__}
            for index, name in enumerate(cls._fields):
                setattr(cls, name, _tuplegetter(index, None))

        def __new__(cls, *values, **named):
            """Raises TypeError when a field is missing, unknown, or given twice."""
            fields = cls._fields
            if len(values) == len(fields) and not named:
                return tuple.__new__(cls, values)
            rest = fields[len(values) :]
            given = {**cls._field_defaults, **named}
            try:
                made = tuple.__new__(cls, (*values, *[given[name] for name in rest]))
            except KeyError as error:
                raise TypeError(f"{cls.__name__} lacks {error}") from None
            if len(made) != len(fields) or not named.keys() <= set(rest):
                raise TypeError(f"{cls.__name__} has the fields {', '.join(fields)}; given: {values}, {named}")
            return made

    def __getnewargs__(self) -> tuple[Any, ...]:
        """Pickled by its values."""
        return tuple(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({values})"

    def _replace(self, **changes: Any) -> Self:
        """Return a copy with other values. Raises TypeError for an unknown field."""
        values = [changes.pop(name, value) for name, value in zip(self._fields, self, strict=True)]
        if changes:
            raise TypeError(f"{type(self).__name__} has no {', '.join(changes)}")
        return type(self)(*values)
