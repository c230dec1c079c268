"""Writes the tables of docs/reference.md that come from the code: commands, errors, limits, metrics, log events.

The page is prose with marked places; only what stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->` is
written here, from what the core and the control plane say of themselves. `make reference` rewrites the page,
`python tools/reference.py --check` only compares (exit 1 when it lags), and a test does the same.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from shoal import _core
from shoal.admin import PATHS
from shoal.affinity_presets import PRESETS
from shoal.errors import EXIT_CODES
from shoal.log import EVENTS
from shoal.metrics import CONTROL_METRICS, seconds

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference.md"
MARKED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end: \2 -->)", re.DOTALL)

# What the words of the core's command table mean, in the order in which they are shown.
POLICIES = {
    "blocking": "May wait: sent to the shard of their keys on a connection of the client's own. "
    "With keys on several shards the first that has something gives; "
    'with `cross_shard = "strict"` that is one operation, so that the order of the keys holds exactly.',
    "keyed": "Sent to the shard of their keys.",
    "script": "Scripts and functions: sent to the shard of their keys (with `cross_shard_functions` these may be on "
    "several, and it is one operation); without keys to the shard "
    "of their first argument if an affinity rule names a part of it, else to the `home_shard`. A script new to it is "
    "loaded there.",
    "split": "Split over the shards of their keys; the replies are put together in order. "
    'With `multi_key = "strict"` one operation instead.',
    "scan": "Goes over one shard after the other; a call goes on to the next shard until it has as many keys as "
    "COUNT asks for.",
    "all keys": 'About all keys of every shard, but for shoal\'s own where `cross_shard = "strict"`.',
    "all shards": "Sent to every shard; the replies are put together.",
    "all shards aside": "As above, on connections that are made for it: a script that runs does not hold it up.",
    "any shard": "The same on every shard: one of them is asked.",
    "debug": "With `debug_commands`: `OBJECT` to its key's shard, `SLEEP` to all, `ERROR` to any. Else refused.",
    "local": "Answered by shoal itself.",
}
# What is done with keys on several shards, by grade.
SEVERAL = {
    "strict": 'With keys on several shards one operation, where `cross_shard = "strict"`; else refused (`CROSSSLOT`):',
    "refused": "Refused with `CROSSSLOT` when their keys are on several shards:",
}
ONE_FLUSH = '`OK`: one operation over all shards where `cross_shard = "strict"`, else each shard by itself'
MERGES = {
    "any-good": "the first that is no error, else the error that says most",
    "count": "added up",
    "names": "all of them, one shard after the other",
    "any": "one shard's, at random",
    "flush": ONE_FLUSH + "; of another database than the keyspace's own always each shard by itself",
    "flush-all": ONE_FLUSH,
    "swap": '`OK` when every shard says so; refused for the keyspace\'s own database where `cross_shard = "strict"`',
    "all-ok": "`OK` when every shard says so",
    "and": "true where every shard says so",
    "config": "one map; sizes added up",
    "info": "one report; counts added up",
    "first": "the same from each",
    "key-order": "in the order of the keys",
    "libraries": "each library once",
    "longest": "the longest: a shard that has lost something says less",
    "min": "the smallest",
    "running": "of the shard that runs something",
    "sum": "added up",
    "latency-latest": "of each event the latest time and the worst",
    "latency-history": "of each second the worst",
    "latency-histogram": "counts added up, bound by bound",
    "memory-stats": "one report; sizes added up, ratios weighted",
    "texts": "each shard's text under its name",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Text for a table: a bar would end the cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def code(text: str) -> str:
    return f"`{cell(text)}`"


def shown(name: str) -> str:
    """A command as people write it: `client|list` is CLIENT LIST."""
    return name.replace("|", " ").upper()


def names(found: Iterable[str]) -> str:
    return ", ".join(f"`{shown(name)}`" for name in sorted(found))


def commands() -> str:
    """Every command by what is done with it, then the refused ones by reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    refusals: dict[str, list[str]] = {}
    for name, policy, _, refusal in _core.commands():
        kind, _, merge = policy.partition(", ")
        if kind == "refused":
            refusals.setdefault(refusal, []).append(name)
        else:
            groups.setdefault((kind, merge), []).append(name)
    unknown = {kind for kind, _ in groups} - set(POLICIES) | {merge for _, merge in groups if merge} - set(MERGES)
    if unknown:
        raise SystemExit(f"tools/reference.py does not know what these words of the core mean: {sorted(unknown)}")
    grades = {name: grade for name, _, grade, _ in _core.commands()}
    parts = []
    for kind, meaning in POLICIES.items():
        merges = sorted(merge for found, merge in groups if found == kind)
        if not merges:
            continue
        parts.append(f"**{kind}** — {meaning}\n")
        if kind in ("blocking", "keyed", "script"):
            parts += _by_number_of_keys(groups[kind, ""], grades)
        elif merges == [""]:
            parts.append(f"{names(groups[kind, ''])}\n")
        else:
            rows = [
                (names(groups[kind, merge]), MERGES.get(merge, "`OK` or the shards' one answer")) for merge in merges
            ]
            parts.append(table(["commands", "reply"], rows))
    rows = [(cell(reason), names(found)) for reason, found in sorted(refusals.items())]
    parts.append("**refused** — Answered with an error that says why and what to do.\n")
    parts.append(table(["`ERR '<command>' ...`", "commands"], rows))
    return "\n".join(parts)


def _by_number_of_keys(found: Iterable[str], grades: dict[str, str]) -> list[str]:
    """Those that always go through, and what becomes of the others when their keys are on several shards."""
    found = list(found)
    parts, several = [], set()
    for grade, meaning in SEVERAL.items():
        graded = [name for name in found if grades[name] == grade]
        several |= set(graded)
        if graded:
            parts.append(f"{meaning}\n\n{names(graded)}\n")
    always = [name for name in found if name not in several]
    return [f"{names(always)}\n", *parts] if always else parts


def text_commands() -> str:
    """memcached's commands, together where the same is done with them."""
    notes: dict[str, list[str]] = {}
    for name, note in _core.text_commands():
        notes.setdefault(note, []).append(name)
    rows = [(", ".join(code(name) for name in found), cell(note)) for note, found in notes.items()]
    return table(["commands", "what shoal does"], rows)


def errors() -> str:
    return table(["error", "when"], [(code(text), cell(when)) for text, when in _core.errors()])


def limits() -> str:
    rows = [(code(name), f"{value:,}", unit, cell(reason)) for name, value, unit, reason in _core.limits()]
    return table(["bound", "value", "unit", "reason"], rows)


def metrics() -> str:
    declared = [(one.name, one.kind, one.labels, one.help) for one in _core.metric_declarations()]
    declared += [(one.name, one.kind, one.labels, one.help) for one in CONTROL_METRICS]
    rows = [(code(name), kind, ", ".join(labels), cell(text)) for name, kind, labels, text in declared]
    bounds = ", ".join(seconds(bound) for bound in _core.histogram_bounds_us())
    return table(["metric", "kind", "labels", "what"], rows) + f"\nBuckets of histograms, in seconds: {bounds}.\n"


def events() -> str:
    return table(["event", "when"], [(code(name), cell(when)) for name, when in EVENTS.items()])


def exit_codes() -> str:
    return table(["code", "meaning"], [(str(number), meaning) for number, meaning in EXIT_CODES.items()])


def paths() -> str:
    return table(["path", "answer"], [(code(path), cell(answer)) for path, answer in PATHS.items()])


def presets() -> str:
    rows = []
    for name, preset in PRESETS.items():
        rules = "<br>".join(code(rule) for rule in preset.rules)
        rows.append((code(name), preset.serves, cell(preset.together), rules))
    return table(["preset", "for", "on one shard", "rules"], rows)


SECTIONS: dict[str, Callable[[], str]] = {
    "affinity-presets": presets,
    "commands": commands,
    "text-commands": text_commands,
    "errors": errors,
    "limits": limits,
    "metrics": metrics,
    "events": events,
    "exit-codes": exit_codes,
    "paths": paths,
}


def render(page: str) -> str:
    """The page with every generated place written anew; each section must have its place, and only these."""
    found = [match[2] for match in MARKED.finditer(page)]
    if sorted(found) != sorted(SECTIONS):
        raise SystemExit(f"docs/reference.md has places for {sorted(found)}, and there are {sorted(SECTIONS)}")
    return MARKED.sub(lambda match: match[1] + SECTIONS[match[2]]() + match[4], page)


def main() -> int:
    parser = argparse.ArgumentParser(description="Derive the tables of docs/reference.md from the code.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page lags")
    arguments = parser.parse_args()
    before = PAGE.read_text()
    after = render(before)
    if before == after:
        return 0
    if arguments.check:
        print("docs/reference.md lags behind the code: run make reference", file=sys.stderr)
        return 1
    PAGE.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
