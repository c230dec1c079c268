"""Who is measured, and how each is started.

A subject is a name and a function from a `Setting` (the port to listen on, the shards, a directory for its files) to
a command line. Configurations are written here in full, so that the record can be read without another repository.
Each peer is set the way its users would set it for the same job: plain routing over four shards, no logging per
request, one worker. nutcracker is the baseline and runs with `-v 4`, its quiet setting; at its default level it logs
each connection, which would flatter everyone else.

From the environment come:

    SHOAL_BENCH_SHOAL="cmd"       another binary in shoal's place, e.g. one that is the bare core
    SHOAL_BENCH_PREDIXY=path      a predixy binary (the configuration is written here)
    SHOAL_BENCH_CMD_<NAME>="cmd"  any other proxy, under that name in lower case

In a command, {port}, {shards} (host:port,host:port,...), {shard_args} (--shard host:port --shard ...), {workers},
{dir}, {second_port} (free, for statistics or administration) and {nutcracker} (a file that nutcracker would take,
written for the scene: who uses it takes part in all scenes) are filled in. {workers} is asked for only in the
two-worker reckoning; a command without it takes no part there.
"""

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import LOOPBACK
from benchmarks.workloads import KETAMA, MEMCACHED, SLOTS

BASELINE = "nutcracker"
DIRECT = "direct"
ALL_SCENES = (SLOTS, KETAMA, MEMCACHED)
SHOAL = "shoal"

COMMAND_PREFIX = "SHOAL_BENCH_CMD_"
SHOAL_ARGUMENTS = "serve --listen 127.0.0.1:{port} {shard_args} --workers {workers}"
SHOAL_NUTCRACKER_ARGUMENTS = "serve --nutcracker {nutcracker} --workers {workers}"


@dataclass(frozen=True)
class Setting:
    """What a subject is told. `second_port` is for those that insist on a port for statistics or administration."""

    port: int
    second_port: int
    shards: tuple[str, ...]
    directory: Path
    workers: int = 1
    scene: str = SLOTS


@dataclass(frozen=True)
class Subject:
    """`command` is None for a server itself: the first of the scene is asked and accounted. `scenes`: where it takes
    part."""

    name: str
    title: str
    command: Callable[[Setting], list[str]] | None
    version: tuple[str, ...] = ()
    takes_workers: bool = False
    scenes: tuple[str, ...] = (SLOTS,)


def fill_in(template: str, setting: Setting) -> list[str]:
    """The words of a command template.

    Split first, so that a value with blanks stays one word; only {shard_args} becomes several.
    """
    words: list[str] = []
    plain = {
        "{port}": str(setting.port),
        "{second_port}": str(setting.second_port),
        "{shards}": ",".join(setting.shards),
        "{workers}": str(setting.workers),
        "{dir}": str(setting.directory),
    }
    if "{nutcracker}" in template:
        plain["{nutcracker}"] = _written(setting, "nutcracker.yml", nutcracker_configuration(setting))
    for word in shlex.split(template):
        if word == "{shard_args}":
            words.extend(part for shard in setting.shards for part in ("--shard", shard))
            continue
        for name, value in plain.items():
            word = word.replace(name, value)
        words.append(word)
    return words


def nutcracker_configuration(setting: Setting) -> str:
    lines = [
        "bench:",
        f"  listen: {LOOPBACK}:{setting.port}",
        "  hash: fnv1a_64",
        "  distribution: ketama",
        f"  redis: {'false' if setting.scene == MEMCACHED else 'true'}",
        "  preconnect: true",
        "  auto_eject_hosts: false",
        "  backlog: 1024",
        "  servers:",
        *(f"   - {shard}:1 shard{number}" for number, shard in enumerate(setting.shards)),
    ]
    return "\n".join(lines) + "\n"


def haproxy_configuration(setting: Setting) -> str:
    """TCP mode, one thread, to the first shard: what it costs to pass bytes on without looking at them."""
    return f"""\
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 1m
listen bench
    bind {LOOPBACK}:{setting.port}
    server shard0 {setting.shards[0]}
"""


def predixy_configuration(setting: Setting) -> str:
    groups = "\n".join(f"    Group shard{n} {{\n        + {shard}\n    }}" for n, shard in enumerate(setting.shards))
    return f"""\
Name bench
Bind {LOOPBACK}:{setting.port}
WorkerThreads 1
ClientTimeout 300
LogVerbSample 0
LogDebugSample 0
LogInfoSample 0
LogNoticeSample 1
LogWarnSample 1
LogErrorSample 1
Authority {{
    Auth {{
        Mode admin
    }}
}}
StandaloneServerPool {{
    Databases 16
    Hash crc16
    HashTag "{{}}"
    Distribution modula
    MasterReadPriority 60
    RefreshMethod fixed
    ServerTimeout 1
    ServerFailureLimit 10
    ServerRetryTimeout 1
    KeepAlive 120
{groups}
}}
"""


def _written(setting: Setting, name: str, text: str) -> str:
    path = setting.directory / name
    path.write_text(text)
    return str(path)


def _nutcracker(binary: str) -> Subject:
    def command(setting: Setting) -> list[str]:
        return [
            binary,
            *("-v", "4"),
            *("-c", _written(setting, "nutcracker.yml", nutcracker_configuration(setting))),
            *("-o", str(setting.directory / "nutcracker.out")),
            *("-p", str(setting.directory / "nutcracker.pid")),
            *("-a", LOOPBACK),
            *("-s", str(setting.second_port)),
        ]

    return Subject(BASELINE, "Twemproxy (nutcracker -v 4)", command, (binary, "--version"), scenes=ALL_SCENES)


def _haproxy(binary: str) -> Subject:
    def command(setting: Setting) -> list[str]:
        return [binary, "-db", "-f", _written(setting, "haproxy.cfg", haproxy_configuration(setting))]

    return Subject("haproxy", "HAProxy, TCP to one shard", command, (binary, "-v"))


def _predixy(binary: str) -> Subject:
    def command(setting: Setting) -> list[str]:
        return [binary, _written(setting, "predixy.conf", predixy_configuration(setting))]

    return Subject("predixy", "Predixy, one thread", command, (binary, "-v"))


def from_template(name: str, title: str, template: str, version: tuple[str, ...] = ()) -> Subject:
    """A subject whose command line somebody else wrote."""
    scenes = ALL_SCENES if "{nutcracker}" in template else (SLOTS,)
    return Subject(name, title, lambda setting: fill_in(template, setting), version, "{workers}" in template, scenes)


def _shoal(environ: Mapping[str, str], scripts: Path) -> Subject | None:
    if template := environ.get("SHOAL_BENCH_SHOAL"):
        return from_template(SHOAL, "shoal (SHOAL_BENCH_SHOAL)", template)
    binary = scripts / "shoal"
    if not binary.exists():
        return None
    quoted = shlex.quote(str(binary))

    def command(setting: Setting) -> list[str]:
        arguments = SHOAL_ARGUMENTS if setting.scene == SLOTS else SHOAL_NUTCRACKER_ARGUMENTS
        return fill_in(f"{quoted} {arguments}", setting)

    return Subject(SHOAL, "shoal", command, (str(binary), "--version"), True, ALL_SCENES)


def find_subjects(environ: Mapping[str, str], scripts: Path) -> tuple[list[Subject], list[str]]:
    """The subjects this machine can run, the baseline first, and a line for each that it cannot.

    `scripts` is the directory in which the package's `shoal` command is installed.
    """
    found: list[Subject] = []
    absent: list[str] = []
    if binary := find_binary("nutcracker"):
        found.append(_nutcracker(binary))
    else:
        absent.append("nutcracker (the baseline): install the Debian package nutcracker")
    if shoal := _shoal(environ, scripts):
        found.append(shoal)
    else:
        absent.append("shoal: not built; run `make build`")
    if binary := find_binary("haproxy"):
        found.append(_haproxy(binary))
    else:
        absent.append("haproxy: install the Debian package haproxy")
    found.append(Subject(DIRECT, "Redis or memcached itself, one shard", None, scenes=(SLOTS, MEMCACHED)))
    if binary := environ.get("SHOAL_BENCH_PREDIXY"):
        found.append(_predixy(binary))
    for variable in sorted(environ):
        if variable.startswith(COMMAND_PREFIX):
            name = variable.removeprefix(COMMAND_PREFIX).lower()
            found.append(from_template(name, name, environ[variable]))
    return found, absent


def find_binary(name: str) -> str | None:
    """On PATH, or where Debian puts what only root is expected to run."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def chosen(found: Sequence[Subject], names: Sequence[str]) -> list[Subject]:
    """The subjects of those names, in the order found; all for no names. KeyError for a name that is not there."""
    known = {subject.name for subject in found}
    for name in names:
        if name not in known:
            raise KeyError(f"no subject {name!r} here; there are: {', '.join(sorted(known))}")
    return [subject for subject in found if not names or subject.name in names]
