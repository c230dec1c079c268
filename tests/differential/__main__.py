"""`make test-differential`: random programs on one plain server and on shoal over four shards, and what differs.

Exit code: 0 when nothing differed, 1 when something did, 2 when it could not be run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness import FLAVOURS, Fleet, Proxy

from benchmarks import machine
from differential import report
from differential.minimise import minimised
from differential.program import generate
from differential.run import Difference, Pair
from differential.sides import SETTINGS, Restored, Shards, Side, configuration

RECORD = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "record"
EXAMPLES = """\
examples:
  make test-differential                                     # 100,000 commands of seed 1
  make test-differential ARGS='--seed 7 --commands 2000'     # others, fewer
  make test-differential ARGS='--seed 7 --program 12'        # one program of them, as a report names it
  make test-differential ARGS='--against plain'              # two plain servers: proves the comparison itself
  make test-differential ARGS='--against restored'           # every value is dumped and restored all the time
"""
# What may stand against the plain server -> how many shards shoal has there.
AGAINST = {"plain": 0, "restored": 0, "shoal1": 1, "shoal4": 4}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make test-differential ARGS=...",
        description="Runs random programs on one server and on shoal over four, and compares.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--commands", type=int, default=100_000, help="how many to compare at least (100000)")
    add("--seed", type=int, default=1, help="what all programs are derived from (1)")
    add("--program", type=int, metavar="N", help="only this one")
    add("--flavour", choices=FLAVOURS, default="valkey", help="the servers, on both sides (valkey)")
    add("--against", choices=AGAINST, default="shoal4", help="what the plain server is compared with (shoal4)")
    add("--failures", type=int, default=5, metavar="N", help="stop after so many programs that differ (5)")
    add("--whole", action="store_true", help="do not minimise")
    add("--json", action="store_true", help="print figures and differences as one line of JSON")
    add("--record", action="store_true", help="write the figures to benchmarks/record")
    return parser.parse_args()


@contextmanager
def pair(flavour: str, against: str) -> Iterator[Pair]:
    """Starts both sides."""
    count = AGAINST[against]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        alone = stack.enter_context(Fleet(folder / "plain", 1, flavour, SETTINGS)).servers[0]
        fleet = stack.enter_context(Fleet(folder / "fleet", max(count, 1), flavour, SETTINGS))
        plain = Side("one server", alone.host, alone.port.number)
        if count:
            proxy = stack.enter_context(Proxy(folder / "proxy", fleet.addresses, config=configuration(count)))
            made = Pair(plain, Side("shoal", proxy.host, proxy.port), Shards(fleet))
        else:
            kind = Restored if against == "restored" else Side
            made = Pair(plain, kind("another server", fleet.servers[0].host, fleet.servers[0].port.number), None)
        made.prepare()
        yield made


def compare(made: Pair, options: argparse.Namespace, known: frozenset[str]) -> tuple[int, list[Difference]]:
    """Runs programs until there are enough commands, or too many differences: how many, and the differences."""
    found: list[Difference] = []
    number = options.program or 0
    while made.asked.total() < options.commands and len(found) < options.failures:
        program = generate(f"{options.seed}/{number}", known)
        if options.against == "restored":
            program = program.without_watch()
        difference = made.run(program)
        if difference is not None:
            if not options.whole:
                difference = minimised(difference.program, made.uncounted().run, difference)
            found.append(difference)
            if not options.json:
                print(report.difference(difference, options.seed, number, options.against) + "\n", flush=True)
        number += 1
        if options.program is not None:
            break
    return number - (options.program or 0), found


def main() -> int:
    options = arguments()
    begin = time.monotonic()
    with pair(options.flavour, options.against) as made:
        programs, found = compare(made, options, made.plain.commands())
        server = made.plain.version()
    figures = report.Figures(
        seed=options.seed,
        server=server,
        against=options.against,
        programs=programs,
        commands=made.asked.total(),
        differences=len(found),
        seconds=round(time.monotonic() - begin, 1),
        errors=dict(made.errors),
        forms=dict(made.forms),
        known=dict(made.known),
        asked=dict(sorted(made.asked.items())),
        longest_ms=round(made.longest_ms, 1),
        longest=made.longest,
    )
    if options.json:
        print(report.as_json(figures, found))
    else:
        print(report.names(found) + "\n" + report.summary(figures) if found else report.summary(figures))
    if options.record:
        host = machine.describe()
        host["commit"] = machine.first_line(["git", "describe", "--always", "--dirty"])
        path = report.write_record(RECORD, figures, datetime.now(UTC), host, machine.host_kind(host))
        print(f"recorded: {path}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    try:
        code = main()
    except (AssertionError, OSError, RuntimeError) as error:
        print(f"test-differential: {error}", file=sys.stderr)
        code = 2

    sys.exit(code)
