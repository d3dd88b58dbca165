"""Checked values -> `Spec`: what depends on more than one key, on the system, or on files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from entrypoint.config import addresses, build_pool, envfiles, grace, users
from entrypoint.config.auto import auto_workers
from entrypoint.config.fields import SIGNAL_DEFAULTS
from entrypoint.config.initmode import auto_drain_delay
from entrypoint.config.scalars import MAX_TEXT, mapped_signal
from entrypoint.config.spec import (
    Auto,
    Control,
    Credentials,
    Heartbeat,
    Init,
    Log,
    Observer,
    Pool,
    Process,
    Reload,
    Shutdown,
    Socket,
    Spec,
)
from entrypoint.config.units import format_duration, shorten
from entrypoint.linux import cgroup
from entrypoint.linux.signals import signal_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from entrypoint.config.reader import Path, Problems

KUBERNETES_GRACE_PERIOD = 30.0  # terminationGracePeriodSeconds when nobody sets it

Values = dict[str, Any]


class Builder:
    """Builds a `Spec`; mistakes go to `problems`, remarks to `warnings`."""

    def __init__(self, problems: Problems, environ: Mapping[str, str], unset: Mapping[str, tuple[str, ...]]) -> None:
        self.problems = problems
        self.environ = environ
        self.unset = unset  # per pool
        self.warnings: list[str] = []
        self.limits: cgroup.Limits | None = None
        self.identities: dict[tuple[str | None, str | None], Credentials | None] = {}

    def spec(self, values: Values, shown: Values, *, strict: bool) -> Spec | None:
        """The whole; with problems noted it is None, or not fit for use. `strict`: for `check`."""
        sockets = self._sockets(values["sockets"], shown["sockets"])
        # A value that the reader refused is None here: its name still counts, so that nothing else stumbles over it.
        pools = values["pools"] or {}
        built = [
            self._pool(name, pool, shown["pools"][name], pools, values["sockets"])
            for name, pool in pools.items()
            if pool
        ]
        cycle = grace.find_cycle({pool.name: pool.after for pool in built})
        if cycle:
            self.problems.add(("pools", cycle[0], "after"), f"pools wait for each other: {' -> '.join(cycle)}")
        init = self._init(values["init"], shown["init"])
        shutdown = self._shutdown(values["shutdown"])
        shown["shutdown"] = {**shown["shutdown"], "drain_delay": format_duration(shutdown.drain_delay)}
        spec = Spec(
            tuple(built),
            init,
            sockets,
            shutdown,
            Log(**values["log"]),
            self._observer(values["observer"], shown["observer"], sockets),
            Control(**values["control"]),
            Reload(**values["reload"]),
            self._signals(values["signals"], shown),
        )
        if self.problems.found:
            return None
        used = {name for pool in spec.pools for name in pool.sockets}
        for socket in spec.sockets:
            if socket.name not in used:
                self.warnings.append(f"socket {socket.name} is used by no pool")
        if strict:
            for pool in spec.pools:
                self.warnings += build_pool.remarks(pool)
        return self._fit(spec, strict=strict)

    def _fit(self, spec: Spec, *, strict: bool) -> Spec:
        """The grace budget."""
        given = spec.shutdown.grace_period
        need = grace.budget(spec.pools, spec.shutdown.drain_delay)
        by_name = {pool.name: pool for pool in spec.pools}
        parts = [f"drain delay {format_duration(need.drain)}"]
        parts += [f"{name} {format_duration(by_name[name].stop.timeout or 0.0)}" for name in need.chain]
        total = format_duration(round(need.total, 3))
        sentence = f"stopping can take {total} ({' + '.join(parts)} + {format_duration(grace.SWEEP + grace.MARGIN)})"
        if not given:
            if strict and need.total > KUBERNETES_GRACE_PERIOD:
                default = format_duration(KUBERNETES_GRACE_PERIOD)
                self.warnings.append(f"{sentence}, more than the {default} that Kubernetes gives by default")
            return spec
        if need.total <= given + 1e-6:
            return spec
        sentence = f"{sentence}, more than the grace period of {format_duration(given)}"
        if strict:
            self.problems.add(("shutdown", "grace_period"), sentence)
            return spec
        pools, drain_delay = grace.shorten(spec.pools, spec.shutdown.drain_delay, given)
        shorter = ", ".join(f"{name} {format_duration(_timeout_of(pools, name))}" for name in need.chain)
        cut = (
            f"; drain delay {format_duration(round(drain_delay, 3))}" if drain_delay < spec.shutdown.drain_delay else ""
        )
        self.warnings.append(f"{sentence}; stops are shortened: {shorter}{cut}")
        return spec._replace(pools=pools, shutdown=spec.shutdown._replace(drain_delay=drain_delay))

    def _shutdown(self, values: Values) -> Shutdown:
        delay = values["drain_delay"]
        if delay == "auto":
            delay = auto_drain_delay(self.environ)
        return Shutdown(delay, values["grace_period"], values["termination_log"])

    def _observer(self, value: Values, shown: Values, sockets: tuple[Socket, ...]) -> Observer:
        at: Path = ("observer", "bind")
        if value["bind"] is None:
            return Observer(enabled=False)
        bind = shown["bind"]
        try:
            where = addresses.parse_bind(value["bind"])
        except ValueError as error:
            self.problems.add(at, f"{error}: {shorten(bind)!r}")
            return Observer(enabled=False)
        if where.kind == "fd":
            self.problems.add(at, f"must be an address: {shorten(bind)!r}")
        socket = Socket("observer", where.kind, where.host, where.port, where.path, backlog=128, bind=bind)
        for other in sockets if value["enabled"] else ():
            if addresses.clash(socket, other):
                self.problems.add(at, f"clashes with socket {other.name} ({other.bind}): {shorten(bind)!r}")
        return Observer(value["enabled"], socket)

    def _sockets(self, values: Values, shown: Values) -> tuple[Socket, ...]:
        sockets: list[Socket] = []
        for name, value in (values or {}).items():
            at: Path = ("sockets", name)
            if not value or value["bind"] is None:
                continue
            bind = shown[name]["bind"]
            try:
                where = addresses.parse_bind(value["bind"])
            except ValueError as error:
                self.problems.add((*at, "bind"), f"{error}: {shorten(bind)!r}")
                continue
            uid, gid = self._owner(value["owner"], shown[name], (*at, "owner"))
            for key in ("mode", "owner"):
                if value[key] is not None and where.kind != "unix":
                    self.problems.add((*at, key), "only a unix socket has it")
            if value["reuse_port"] and (where.kind != "tcp" or where.port == 0):
                self.problems.add((*at, "reuse_port"), "only a TCP socket with a port of its own can have it")
            socket = Socket(
                name, where.kind, where.host, where.port, where.path, value["mode"], uid, gid, where.fd,
                value["backlog"], value["reuse_port"], bind,
            )  # fmt: skip
            for other in sockets:
                if addresses.clash(socket, other):
                    self.problems.add(
                        (*at, "bind"), f"clashes with socket {other.name} ({other.bind}): {shorten(bind)!r}"
                    )
                    break
            sockets.append(socket)
        return tuple(sockets)

    def _owner(self, value: str | None, shown: Values, at: Path) -> tuple[int, int]:
        if value is None:
            return -1, -1
        user, colon, group = value.partition(":")
        try:
            return users.find_user(user) if user else -1, users.find_group(group) if colon else -1
        except ValueError as error:
            self.problems.add(at, f"{error}: {shown['owner']!r}")
            return -1, -1

    def _pool(self, name: str, value: Values, shown: Values, pools: Values, sockets: Values) -> Pool:
        at: Path = ("pools", name)
        process = self._process(value, shown, at)._replace(unset=self.unset.get(name, ()))
        workers, auto = self._workers(name, value["workers"])
        # Some parts show less than their defaults, which all pools share.
        shown["ready"] = dict(shown["ready"])
        problems = self.problems
        pool = Pool(
            name,
            process,
            workers,
            auto,
            self._names(value["sockets"], shown["sockets"], sockets or {}, (*at, "sockets"), "socket"),
            self._names(value["after"], shown["after"], pools, (*at, "after"), "pool"),
            value["critical"],
            build_pool.ready(problems, value["ready"], shown["ready"], (*at, "ready")),
            value["boot_timeout"],
            Heartbeat(**value["heartbeat"]),
            build_pool.liveness(problems, value["liveness"], shown.get("liveness", {}), (*at, "liveness")),
            build_pool.lifecycle(problems, value["lifecycle"], shown["lifecycle"], (*at, "lifecycle")),
            build_pool.stop(problems, value["stop"], (*at, "stop")),
            build_pool.restart(problems, value["restart"], (*at, "restart")),
            build_pool.rollout(problems, value["rollout"], (*at, "rollout")),
            value["min_ready_workers"],
            value["output"],
        )
        build_pool.check_readiness(problems, pool, at)
        build_pool.check_probes(problems, pool, at)
        return pool

    def _names(self, names: list[str | None], shown: list[str], known: Values, at: Path, what: str) -> tuple[str, ...]:
        """A list of names, each of something that exists and none twice."""
        found: dict[str, None] = {}
        for index, name in enumerate(names):
            if name is None:
                continue
            if name not in known:
                hint = self.problems.did_you_mean(name, known)
                self.problems.add((*at, index), f"no such {what}: {shown[index]!r}{hint}")
            elif name in found:
                self.problems.add((*at, index), f"listed twice: {shown[index]!r}")
            found[name] = None
        return tuple(found)

    def _workers(self, name: str, value: int | str | Values | None) -> tuple[int, Auto | None]:
        at = ("pools", name, "workers")
        if isinstance(value, int):
            return value, None
        auto = Auto()
        if isinstance(value, dict):
            auto = Auto(value["per_cpu"], value["min"], value["max"], value["memory"])
            if auto.max and auto.min > auto.max:
                self.problems.add((*at, "min"), f"more than max: {auto.min} > {auto.max}")
                return 1, auto
        if self.limits is None:
            self.limits = cgroup.limits()
        count, warning = auto_workers(auto, self.limits, self.environ)
        if warning:
            self.warnings.append(f"pools.{name}.workers: {warning}")
        return count, auto

    def _signals(self, values: Values, shown: Values) -> tuple[tuple[int, str], ...]:
        """What the file maps differently from the defaults, which are shown as well."""
        found: dict[int, str] = {}
        table = dict(SIGNAL_DEFAULTS)
        for key, action in values.items():
            try:
                number = mapped_signal(key)
            except ValueError:  # the reader has said so
                continue
            name = signal_name(number)
            if number in found:
                self.problems.add(("signals", key), f"listed twice: {name}")
            found[number] = action
            table[name] = shown["signals"][key]
        shown["signals"] = table
        return tuple((n, action) for n, action in found.items() if SIGNAL_DEFAULTS.get(signal_name(n)) != action)

    def _init(self, values: list[Values], shown: list[Values]) -> tuple[Init, ...]:
        commands: dict[str, Init] = {}
        for index, value in enumerate(values):
            at: Path = ("init", index)
            if not value:
                continue
            process = self._process(value, shown[index], at)
            name = value["name"]
            if name in commands:
                self.problems.add((*at, "name"), f"listed twice: {shown[index]['name']!r}")
            if name:
                commands[name] = Init(name, process, value["timeout"])
        return tuple(commands.values())

    def _process(self, value: Values, shown: Values, at: Path) -> Process:
        command = build_pool.command(
            self.problems, value["command"] or (), shown.get("command") or (), (*at, "command")
        )
        env, files = self._environment(value["env"], shown["env"], (*at, "env"))
        for index, path in enumerate(value["env_from"]):
            if path is not None:
                self._readable(envfiles.read_env_file, path, shown["env_from"][index], (*at, "env_from", index))
        return Process(
            command.argv,
            command.display,
            env,
            files,
            tuple(path for path in value["env_from"] if path is not None),
            (),
            value["cwd"] or "",
            self._credentials(value, shown, at),
            value["umask"],
            value["nice"],
            self._rlimits(value["rlimits"] or {}, (*at, "rlimits")),
            value["oom_score_adj"],
        )

    def _environment(
        self, values: Values, shown: Values, at: Path
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        env, files = [], []
        for name, value in values.items():
            if isinstance(value, str):
                if len(os.fsencode(name)) + len(os.fsencode(value)) + 1 > MAX_TEXT:
                    self.problems.add((*at, name), f"name and value are longer than {MAX_TEXT} bytes")
                env.append((name, value))
            elif value and value["file"] is not None:
                self._readable(envfiles.read_secret, value["file"], shown[name]["file"], (*at, name))
                files.append((name, value["file"]))
        return tuple(env), tuple(files)

    def _readable(self, read: Any, path: str, shown: str, at: Path) -> None:
        try:
            read(path)
        except envfiles.EnvFileError as error:
            self.problems.add(at, f"cannot read {shown}: {error.reason}")

    def _credentials(self, value: Values, shown: Values, at: Path) -> Credentials | None:
        user, group, group_at = value["user"], value["group"], "group"
        if user is not None and ":" in user:
            if group is not None:
                self.problems.add((*at, "user"), f"it has a group, and there is `group` as well: {shown['user']!r}")
                return None
            user, _, group = user.partition(":")
            group_at = "user"
        wanted = user, group
        if wanted in self.identities:
            return self.identities[wanted]
        for key, name, find in (("user", user, users.find_user), (group_at, group, users.find_group)):
            if name is not None:
                try:
                    find(name)
                except ValueError as error:
                    self.problems.add((*at, key), f"{error}: {shown[key]!r}")
                    return None
        who = users.credentials(*wanted)
        missing = users.missing_capabilities(who) if who else ()
        if missing:
            key = "user" if value["user"] is not None else "group"
            self.problems.add((*at, key), f"the master lacks {', '.join(missing)} for another {key}: {shown[key]!r}")
        else:
            self.identities[wanted] = who
        return who

    def _rlimits(self, values: Values, at: Path) -> tuple[tuple[int, int, int], ...]:
        limits = []
        for name, value in values.items():
            if value is None:
                continue
            import resource  # few configurations need it

            soft, hard = (value["soft"], value["hard"]) if isinstance(value, dict) else (value, value)
            if soft is None or hard is None:
                continue
            if hard >= 0 and not 0 <= soft <= hard:
                self.problems.add((*at, name), "soft is more than hard")
            limits.append((getattr(resource, f"RLIMIT_{name.upper()}"), soft, hard))
        return tuple(limits)


def _timeout_of(pools: tuple[Pool, ...], name: str) -> float:
    return next(pool.stop.timeout or 0.0 for pool in pools if pool.name == name)
