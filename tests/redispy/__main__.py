"""`make test-redispy`: redis-py's tests on one plain redis-server, then through shoal over four, and what differs.

Exit code: 0 when everything that passes on the plain server passes through shoal, or is in expected_failures.toml;
1 when a failure is not in that file, or something in it passes; 2 when it could not be run.
What became of every test, and all logs, are in `.cache/redispy/run`.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness import Fleet, Proxy

from benchmarks import machine
from redispy import report
from redispy.reasons import grouped
from redispy.source import CACHE, HERE, Source, prepare
from redispy.suite import Outcome, Suite
from redispy.verdict import Book, judge, proposal, read_book

BOOK = HERE / "expected_failures.toml"
RECORD = HERE.parent.parent / "benchmarks" / "record"
RUN = CACHE / "run"
SHARDS = 4
FLAVOUR = "redis7"
# With more failures than this, what fails is not a matter of luck.
RETRIES_MAX = 60


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-redispy ARGS=...", description="Runs redis-py's tests on shoal.")
    add = parser.add_argument
    add("--protocol", type=int, choices=(2, 3), default=2, help="what redis-py's clients speak (2)")
    add("-k", dest="chosen", metavar="EXPRESSION", help="only tests that pytest's -k would choose")
    add("--reuse-plain", action="store_true", help="take the last outcomes of the plain server, if there are any")
    add("--all", action="store_true", help="show every unexpected failure with its error")
    add("--propose", type=Path, metavar="FILE", help="write entries for unexpected failures, to be edited by hand")
    add("--record", action="store_true", help="write the figures to benchmarks/record")
    return parser.parse_args()


def say(text: str) -> None:
    print(text, flush=True)


def run_twice(suite: Suite, book: Book) -> tuple[dict[str, Outcome], list[str]]:
    """All tests, and failures once more when they are few: who passes then has passed. Also which those are."""
    found = suite.run(left_out=book.left_out)
    failed = [test for test, outcome in found.items() if outcome.outcome == "failed"]
    if len(failed) > RETRIES_MAX:
        return found, []
    again = Suite(suite.source, suite.address, suite.folder / "again", protocol=suite.protocol, words=suite.words).run(
        only=failed
    )
    recovered = [test for test, outcome in again.items() if outcome.passed]
    return {**found, **{test: again[test] for test in recovered}}, recovered


def on_plain(options: argparse.Namespace, source: Source, book: Book, words: list[str]) -> dict[str, Outcome]:
    """What becomes of the tests on one plain server."""
    kept = RUN / f"plain-{source.version}-resp{options.protocol}.json"
    if options.reuse_plain and kept.exists():
        return report.from_json(kept.read_text())
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), 1, FLAVOUR) as fleet:
        suite = Suite(source, fleet.addresses[0], RUN / "plain", protocol=options.protocol, words=words)
        found, recovered = run_twice(suite, book)
    if not words:
        kept.write_text(report.as_json(found))
    say(report.plain_failures(found, recovered))
    return found


def through_shoal(
    options: argparse.Namespace, source: Source, book: Book, words: list[str]
) -> tuple[dict[str, Outcome], list[str]]:
    """What becomes of them through shoal, and which needed a second try."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Fleet(Path(folder) / "fleet", SHARDS, FLAVOUR) as fleet,
        Proxy(RUN / "proxy", fleet.addresses, config=(HERE / "shoal.toml").read_text()) as proxy,
    ):
        suite = Suite(source, proxy.address, RUN / "shoal", protocol=options.protocol, words=words)
        found, recovered = run_twice(suite, book)
        if not proxy.running:
            say(f"shoal ended:\n{proxy.tail()}")
    (RUN / f"shoal-{source.version}-resp{options.protocol}.json").write_text(report.as_json(found))
    return found, recovered


def record(run: report.Run) -> Path:
    host = machine.describe()
    host["commit"] = machine.first_line(["git", "describe", "--always", "--dirty"])
    return report.write_record(RECORD, run, datetime.now(UTC), host, machine.host_kind(host))


def main() -> int:
    options = arguments()
    book = read_book(BOOK, options.protocol)
    words = ["-k", options.chosen] if options.chosen else []
    RUN.mkdir(parents=True, exist_ok=True)
    source = prepare()
    say(f"redis-py {source.version}: on one plain redis-server (two minutes)")
    plain: Mapping[str, Outcome] = on_plain(options, source, book, words)
    say(f"redis-py {source.version}: through shoal over {SHARDS} shards")
    through, second_try = through_shoal(options, source, book, words)
    verdict = judge(plain, through, book, second_try=second_try, whole=not words)
    server = machine.first_line(["redis-server", "--version"])
    run = report.Run(source.version, server, SHARDS, options.protocol, plain, through, verdict)
    say(report.failures(run, everything=options.all))
    say("\n" + report.figures(run))
    if options.propose is not None:
        options.propose.write_text(proposal(grouped(verdict.unexpected)))
    if options.record:
        say(f"recorded: {record(run)}")
    say("\nas expected" if verdict.good else "\nnot as expected: see above, and tests/redispy/expected_failures.toml")
    return 0 if verdict.good else 1


if __name__ == "__main__":
    try:
        code = main()
    except (AssertionError, OSError, ValueError) as error:
        print(f"test-redispy: {error}", file=sys.stderr)
        code = 2

    sys.exit(code)
