"""How an interpreter of our own is started: isolated from its environment, and finding what we find."""

# The master and its helpers are started like this (`-I -S`), so that nothing of their environment runs in them. Without
# `site` an interpreter knows neither `dist-packages`, `lib64`, the system packages of a virtual environment, nor a .pth
# file; so the search path goes along (`-X`). What PYTHONPATH and the user's own site have added is left out, unless the
# package itself is there.

from __future__ import annotations

import os
import sys

PACKAGE = os.path.dirname(os.path.abspath(__file__))


def command(*words: str) -> tuple[str, ...]:
    """What to execute for `entrypoint WORDS` without PYTHON* variables, site, sitecustomize; always in UTF-8.

    The search path goes with it, for `find_packages` in __main__: without site the interpreter would not find what is
    in no place of its own, as with a distribution's packages, a .pth file, or a folder that is called lib64.
    """
    path = f"-Xentrypoint_path={':'.join(search_path())}"
    main = os.path.join(PACKAGE, "__main__.py")
    if not os.path.isdir(PACKAGE):  # in an archive, which is executed as a whole
        main = os.path.dirname(PACKAGE)
    return sys.executable, "-I", "-S", "-Xutf8", path, main, *words


def search_path() -> list[str]:
    """Where modules are found: where we are, and sys.path without what is only there because of the environment."""
    here = os.path.dirname(PACKAGE)
    site = sys.modules.get("site")
    if site is None:  # nobody has added anything
        return [here, *(place for place in sys.path if place != here)]
    path = sys.path[0 if sys.flags.safe_path else 1 :]  # the first is where the script is, or the current directory
    foreign = {site.USER_SITE}
    if not sys.flags.ignore_environment:
        named = {os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(":")}
        foreign |= named.difference(site.getsitepackages())  # a place of the interpreter's own may be named as well
    return [here, *(place for place in path if place and place != here and place not in foreign)]
