"""The parts of a pool whose keys depend on each other: values of the reader -> parts of the spec.

Each function notes mistakes in `problems`. `at` is the path of the part, `shown` what may be displayed of its values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from entrypoint.config.expand import expand
from entrypoint.config.initmode import quote
from entrypoint.config.spec import Backoff, Command, Lifecycle, Probe, Ready, Restart, Rollout, Stop
from entrypoint.config.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from entrypoint.config.reader import Path, Problems
    from entrypoint.config.spec import Pool

Values = dict[str, Any]

PROBES = ("exec", "http", "tcp")
PROBE_FIELDS = ("period", "timeout", "failure_threshold", "initial_delay")


def command(problems: Problems, words: Sequence[str | None], shown: Sequence[str | None], at: Path) -> Command:
    """A command; words that the reader refused are None."""
    if words and words[0] == "":
        problems.add((*at, 0), "the program is an empty string")
    return Command(tuple(word or "" for word in words), quote(tuple(word or "" for word in shown)))


def ready(problems: Problems, value: Values, shown: Values, at: Path) -> Ready:
    """What makes a worker ready; fields that do not belong to it go from `shown`."""
    found = _probe(problems, value, shown, at)
    when: str = value["when"]
    wrong = dict.fromkeys(PROBE_FIELDS, "only with exec, http or tcp")
    if found is not None:
        wrong = dict.fromkeys(("when", "after"), "not together with exec, http or tcp")
    elif when != "alive":
        wrong["after"] = "only with when: alive"
    for key, reason in wrong.items():
        shown.pop(key, None)
        if (*at, key) in problems.where:
            problems.add((*at, key), reason)
    return Ready("probe", probe=found) if found is not None else Ready(when, value["after"])


def liveness(problems: Problems, value: Values | None, shown: Values, at: Path) -> Probe | None:
    """The probe of a ready worker; None: there is none."""
    if value is None:
        return None
    found = _probe(problems, value, shown, at)
    if found is None:
        problems.add(at, "exec, http or tcp is missing")
    return found


def _probe(problems: Problems, value: Values, shown: Values, at: Path) -> Probe | None:
    given = [key for key in PROBES if (*at, key) in problems.where]
    if not given:
        return None
    kind = given[0]
    for other in given[1:]:
        problems.add((*at, other), f"only one of exec, http and tcp can be there, and there is {kind}")
    fields: Values = {key: value[key] for key in PROBE_FIELDS}
    if kind == "exec":
        run = command(problems, value["exec"] or (), shown.get("exec") or (), (*at, "exec"))
        return Probe(exec=run, display=run.display, **fields)
    fields[kind] = value[kind] or ""
    return Probe(display=shown.get(kind) or "", **fields)


def check_readiness(problems: Problems, pool: Pool, at: Path) -> None:
    """A worker must be able to become ready, and in time."""
    if pool.ready.when == "accepting" and not pool.sockets:
        problems.add((*at, "ready", "when"), "a pool without sockets accepts on none: 'accepting'")
    key, wait = "after", pool.ready.after
    if pool.ready.probe is not None:
        key, wait = "initial_delay", pool.ready.probe.initial_delay
    elif pool.ready.when != "alive":
        return
    limit = pool.boot_timeout
    if not limit or wait < limit:
        return
    if (*at, "ready", key) in problems.where:
        reason = f"{format_duration(wait)} must be less than boot_timeout, {format_duration(limit)}"
        problems.add((*at, "ready", key), reason)
    elif (*at, "boot_timeout") in problems.where:
        reason = f"{format_duration(limit)} must be more than ready.{key}, by default {format_duration(wait)}"
        problems.add((*at, "boot_timeout"), reason)


def check_probes(problems: Problems, pool: Pool, at: Path) -> None:
    """With several workers a probe must ask the one that it is meant for."""
    if pool.workers == 1 and pool.auto is None:
        return
    for path, probe in _addressed(pool):
        problems.add(
            (*at, *path, "http" if probe.http else "tcp"),
            "must contain $(ENTRYPOINT_SLOT) with more than one worker: a shared socket would answer for another",
        )


def remarks(pool: Pool) -> list[str]:
    """What can be run, but is hardly meant."""
    found = []
    if pool.workers == 1 and pool.auto is None and pool.rollout.max_surge.value:
        found += [
            f"pools.{pool.name}.{'.'.join(path)}: does not contain $(ENTRYPOINT_SLOT): while a rollout runs the old "
            "worker and the new one, either may answer for the other"
            for path, _ in _addressed(pool)
        ]
    deadline, timeout = pool.rollout.deadline, pool.stop.timeout or 0.0
    if deadline and timeout > deadline:
        found.append(
            f"pools.{pool.name}.rollout.deadline: an old worker may take longer to stop, {format_duration(timeout)}, "
            "and only then is there a place for the next new one"
        )
    if pool.restart.policy == "always" and not pool.restart.min_uptime:
        found.append(
            f"pools.{pool.name}.restart.min_uptime: with 0s nothing counts as failed: "
            "a program that ends at once is started again at once, for ever"
        )
    return found


def _addressed(pool: Pool) -> list[tuple[tuple[str, ...], Probe]]:
    """The probes whose address is the same for every worker of the pool."""
    asked = ((("ready",), pool.ready.probe), (("liveness",), pool.liveness))
    return [(path, probe) for path, probe in asked if probe is not None and not _per_slot(probe, pool)]


def _per_slot(probe: Probe, pool: Pool) -> bool:
    address = probe.http or probe.tcp
    found = []
    for slot in ("0", "1"):
        environ = {"ENTRYPOINT_SLOT": slot}
        for name, value in pool.process.env:  # a variable of the pool may hold the slot
            environ[name] = expand(value, environ)
        found.append(expand(address, environ))
    return not address or found[0] != found[1]


def stop(problems: Problems, value: Values, at: Path) -> Stop:
    """How a worker is stopped; a default `quiesce` gives way to a short timeout."""
    made = Stop(value["signal"], value["timeout"], value["quiesce"], value["delay"])
    timeout = value["timeout"]
    if made.quiesce >= timeout:
        if (*at, "quiesce") in problems.where:
            problems.add((*at, "quiesce"), f"must be less than the timeout of {format_duration(timeout)}")
        made = made._replace(quiesce=timeout / 2)
    return made


def restart(problems: Problems, value: Values, at: Path) -> Restart:
    """When a worker is replaced."""
    backoff = Backoff(**value["backoff"])
    if backoff.initial > backoff.max:
        problems.add((*at, "backoff", "initial"), f"more than max, {format_duration(backoff.max)}")
    return Restart(value["policy"], value["min_uptime"], value["give_up_after"], backoff)


def rollout(problems: Problems, value: Values, at: Path) -> Rollout:
    """How workers are replaced by a new generation."""
    made = Rollout(**value)
    if not made.max_surge.value and not made.max_unavailable.value:
        problems.add((*at, "max_surge"), "max_surge and max_unavailable cannot both be 0: nothing could be replaced")
    if made.deadline and made.deadline <= made.min_ready:
        key = "deadline" if (*at, "deadline") in problems.where else "min_ready"
        parts = f"{format_duration(made.deadline)} is not more than min_ready, {format_duration(made.min_ready)}"
        problems.add((*at, key), f"the deadline of {parts}")
    return made


def lifecycle(problems: Problems, value: Values, shown: Values, at: Path) -> Lifecycle:
    """Commands around a worker's life."""
    hooks = {
        key: command(problems, words, shown.get(key) or (), (*at, key))
        for key, words in value.items()
        if words is not None
    }
    return Lifecycle(**hooks)
