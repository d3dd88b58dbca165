"""SHA-256 without OpenSSL."""

from __future__ import annotations


def sha256(content: bytes) -> str:
    """The digest in hexadecimal; empty where this Python has no SHA-256 at all.

    hashlib loads OpenSSL, 4 MB that take longer than all of the rest here; the interpreter's own module is small.
    """
    for name in ("_sha2", "_sha256", "hashlib"):  # Python 3.12 and later, 3.11, anything else
        try:
            digest: str = __import__(name).sha256(content).hexdigest()
        except ImportError:
            continue
        return digest
    return ""
