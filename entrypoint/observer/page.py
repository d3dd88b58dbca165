"""The page: one document with its style and script in it, made once at the start."""

from __future__ import annotations

import base64
import errno
import os
import sys
from pkgutil import get_data
from typing import TYPE_CHECKING

# The C modules behind hashlib, which would bring OpenSSL: 3 MB to hash two strings.
if TYPE_CHECKING:
    from hashlib import sha256
elif sys.version_info >= (3, 12):
    from _sha2 import sha256
else:
    from _sha256 import sha256


class Page:
    """The document, and the policy under which a browser runs it: nothing but what is in it, and our own answers."""

    def __init__(self) -> None:
        """Read it from beside this module. Raises OSError."""
        html, style, script = (_read(name) for name in ("page.html", "page.css", "page.js"))
        self.html = html.replace("/* page.css */", style).replace("/* page.js */", script).encode()
        self.policy = (
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self.replies: dict[tuple[str, ...], bytes] = {}


def _read(name: str) -> str:
    """A file from beside this module, wherever that is loaded from: it may be an archive."""
    data = get_data("entrypoint.observer", name)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return data.decode()


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(content.encode()).digest()).decode()}'"
