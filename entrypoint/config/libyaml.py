"""The parser of libyaml alone. PyYAML brings one in Python with it, and much else: 12 ms that nobody can wait for.

It is for a process that does nothing but read a configuration. What stands in for the rest of PyYAML are modules with
the few names that its C extension and its package ask for.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

# By module, the exception that the C extension takes from it.
_ERRORS = {
    "composer": "ComposerError",
    "constructor": "ConstructorError",
    "emitter": "EmitterError",
    "parser": "ParserError",
    "reader": "ReaderError",
    "representer": "RepresenterError",
    "scanner": "ScannerError",
    "serializer": "SerializerError",
}
# And the names that the package builds on.
_CLASSES = {"loader": ("Loader", "FullLoader", "UnsafeLoader"), "dumper": ("Dumper",), "cyaml": ()}


def import_alone() -> None:
    """Import `yaml` with next to nothing but libyaml's parser; the whole of it where that is not possible."""
    try:
        _import()
    except Exception:  # noqa: BLE001 - a PyYAML without libyaml, or one that is arranged in another way
        for name in [name for name in sys.modules if name.partition(".")[0] == "yaml"]:
            del sys.modules[name]


def _import() -> None:
    module = type(sys)
    stand_ins: dict[str, ModuleType] = {name: module(f"yaml.{name}") for name in (*_ERRORS, *_CLASSES)}
    for name, classes in _CLASSES.items():
        vars(stand_ins[name]).update(dict.fromkeys(classes, object))
    sys.modules.update((stand_in.__name__, stand_in) for stand_in in stand_ins.values())
    import yaml
    from yaml.error import MarkedYAMLError

    for name, error in _ERRORS.items():
        base = _ReaderError if name == "reader" else MarkedYAMLError
        setattr(stand_ins[name], error, type(error, (base,), {}))
        setattr(yaml, name, stand_ins[name])
    from yaml._yaml import CParser

    yaml.CSafeLoader = CParser  # type: ignore[misc, assignment] # all that is asked of it are its events


class _ReaderError(Exception):
    """What PyYAML's is, as far as it is told why a text cannot be read."""

    def __init__(self, _name: str, position: int, _character: object, _encoding: str, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason
