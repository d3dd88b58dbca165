"""A named tuple that costs next to nothing to define: there are seventy of them on the way to the first worker.

`typing.NamedTuple` compiles source text for each class, 0.1 ms and 5 kB a time. These are the same to use: immutable,
equal by value, made by position or by name, with `_replace` and `_fields`.

`pack` and `unpack` take them from one process of ours to another by `marshal`: `pickle` takes 10 ms to import.
"""

# `dataclasses` imports `inspect`, which takes longer still. Packed, a record is a list that names its class.

from __future__ import annotations

import marshal

# What named tuples use, from where `collections` has it.
from _collections import _tuplegetter  # type: ignore[import-not-found] # typeshed leaves it out

TYPE_CHECKING = False  # everything imports this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    Class = TypeVar("Class", bound=type)
else:

    def dataclass_transform(**_options: bool) -> Callable[[Class], Class]:
        """At run time: nothing. To a type checker, every annotation of a subclass is a field."""
        return lambda cls: cls


_kinds: dict[str, type[Record]] = {}  # every class, by its full name


@dataclass_transform(frozen_default=True)
class Record(tuple["Any", ...]):
    """The base of records: each annotation of a subclass is a field, with a default if it has a value."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()
    _field_defaults: ClassVar[dict[str, Any]] = {}

    if not TYPE_CHECKING:

        def __init_subclass__(cls) -> None:
            _kinds[f"{cls.__module__}.{cls.__name__}"] = cls
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


def pack(value: object) -> bytes:
    """A record, or any nesting of records and tuples of plain values, as bytes. Raises ValueError for anything else."""
    return marshal.dumps(_plain(value))


def unpack(data: bytes) -> Any:
    """What was packed. For our own processes, which are trusted.

    Raises an exception of any kind if it was cut short.
    """
    return _records(marshal.loads(data))  # noqa: S302 - see above


def _plain(value: Any) -> Any:
    """With a list for each record, which has none itself."""
    if isinstance(value, Record):
        kind = type(value)
        return [f"{kind.__module__}.{kind.__name__}", *map(_plain, value)]
    return tuple(map(_plain, value)) if type(value) is tuple else value


def _records(value: Any) -> Any:
    if type(value) is list:
        name: str = value[0]
        if name not in _kinds:
            __import__(name.rpartition(".")[0])
        return tuple.__new__(_kinds[name], map(_records, value[1:]))
    return tuple(map(_records, value)) if type(value) is tuple else value
