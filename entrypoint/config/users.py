"""Names of users and groups -> numbers, once, at load."""

from __future__ import annotations

import grp
import os
import pwd

from entrypoint.config.spec import Credentials

_CAPABILITIES = (("CAP_KILL", 5), ("CAP_SETGID", 6), ("CAP_SETUID", 7))


def credentials(user: str | None, group: str | None) -> Credentials | None:
    """Who a process with these settings runs as; None: the master's own identity.

    Raises ValueError (without the text) for a name that does not exist.
    """
    if user is None and group is None:
        return None
    uid, gid = os.geteuid(), os.getegid()
    name = home = ""
    if user is not None:
        uid, entry = _find_user(user)
        if entry:
            gid, name, home = entry.pw_gid, entry.pw_name, entry.pw_dir
        elif uid != os.geteuid():
            home = "/"  # as container engines do: the inherited HOME is another user's
    if group is not None:
        gid = find_group(group)
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return None
    groups = os.getgrouplist(name, gid) if name else [gid]
    return Credentials(uid, gid, tuple(groups), name, home)


def find_user(text: str) -> int:
    """The uid of a name or number; raises ValueError."""
    return _find_user(text)[0]


def find_group(text: str) -> int:
    """The gid of a name or number; raises ValueError."""
    if _number(text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError, UnicodeError):
        raise ValueError("no such group") from None


def missing_capabilities(who: Credentials, root: str = "/") -> tuple[str, ...]:
    """The capabilities that a master needs, and lacks, to start and to signal processes of this identity."""
    try:
        with open(os.path.join(root, "proc/self/status"), encoding="ascii", errors="replace") as file:
            status = file.read()
        effective = int(status.split("\nCapEff:", 1)[1].split(None, 1)[0], 16)
    except (OSError, IndexError, ValueError):
        effective = -1 if os.geteuid() == 0 else 0
    needed = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID") if who.uid != os.geteuid() else ("CAP_SETGID",)
    return tuple(name for name, bit in _CAPABILITIES if name in needed and not effective >> bit & 1)


def _number(text: str) -> bool:
    # 2**32 - 1 means "unchanged" to the kernel.
    return text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 2**32 - 1


def _find_user(text: str) -> tuple[int, pwd.struct_passwd | None]:
    try:
        if _number(text):
            uid = int(text)
            try:
                return uid, pwd.getpwuid(uid)
            except KeyError:
                return uid, None
        entry = pwd.getpwnam(text)
    except (KeyError, ValueError, UnicodeError):
        raise ValueError("no such user") from None
    return entry.pw_uid, entry
