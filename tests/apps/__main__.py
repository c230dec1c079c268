"""`make test-apps`: each application's job through shoal over four redis-servers, or with --plain on one.

Exit code: 0 when every job passed, 1 when one failed, 2 when something could not be run.
Logs of jobs and of the proxies are in .cache/apps/run.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness import Fleet, Proxy

from apps import keys, report
from apps.book import APPS, App
from apps.environments import CACHE, MAKERS, Environment, MissingError
from apps.run import Outcome, run
from benchmarks import machine

RECORD = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "record"
RUN = CACHE / "run"
SHARDS = 4
FLAVOUR = "redis7"
SHOAL = """\
admin = "{admin}"
workers = {workers}

[keyspace.main]
listen = "{listen}"
shards = ["{shard0}", "{shard1}", "{shard2}", "{shard3}"]
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make test-apps ARGS=...", description="Runs applications on shoal.")
    add = parser.add_argument
    add("-k", dest="chosen", metavar="WORD", action="append", help="only applications whose name begins so")
    add("--plain", action="store_true", help="on one plain server instead, which proves the jobs themselves")
    add("--keys", action="store_true", help="on one plain server, and write which keys each uses to recorded_keys.json")
    add("--bare", action="store_true", help="without any setting: shows which application needs which")
    add("--workers", type=int, default=2, help="threads of shoal (2, so that clients meet on different ones)")
    add("--json", action="store_true", help="print the outcomes as one line of JSON")
    add("--record", action="store_true", help="write the table to benchmarks/record")
    add("--list", action="store_true", help="list the applications and do nothing")
    return parser.parse_args()


@contextmanager
def endpoint(app: App, fleet: Fleet, options: argparse.Namespace) -> Iterator[str]:
    """The address that the job is told. Each application has a proxy of its own, with its settings alone."""
    for server in fleet.servers:
        server.client().flushall()
        server.client().script_flush()
    if options.plain or options.keys:
        yield fleet.addresses[0]
        return
    config = SHOAL.replace("{workers}", str(options.workers)) + ("" if options.bare else app.lines) + "\n"
    with Proxy(RUN / app.name, fleet.addresses, config=config) as proxy:
        yield proxy.address


def run_one(app: App, fleet: Fleet, environments: dict[str, Environment], options: argparse.Namespace) -> Outcome:
    try:
        if app.environment not in environments:
            environments[app.environment] = MAKERS[app.environment]()
    except MissingError as error:
        return Outcome(app.name, "?", "not run", 0.0, str(error))
    folder = RUN / app.name
    try:
        with endpoint(app, fleet, options) as address:
            if not options.keys:
                return run(app, environments[app.environment], address, folder)
            with keys.recorded(fleet.servers[0], folder, app):
                return run(app, environments[app.environment], address, folder)
    except RuntimeError as error:
        # shoal did not start; its own words.
        return Outcome(app.name, "?", "not run", 0.0, str(error))


def say(text: str, *, quiet: bool) -> None:
    print(text, file=sys.stderr if quiet else sys.stdout, flush=True)


def main() -> int:
    options = arguments()
    chosen = [app for app in APPS if not options.chosen or app.name.startswith(tuple(options.chosen))]
    if options.list or not chosen:
        print("\n".join(app.name for app in APPS))
        return 0 if options.list else 2
    count = 1 if options.plain or options.keys else SHARDS
    outcomes: list[Outcome] = []
    environments: dict[str, Environment] = {}
    with tempfile.TemporaryDirectory() as folder, Fleet(Path(folder), count, FLAVOUR) as fleet:
        for app in chosen:
            outcome = run_one(app, fleet, environments, options)
            outcomes.append(outcome)
            say(f"{outcome.app} {outcome.version}: {outcome.verdict}, {outcome.seconds:.1f} s", quiet=options.json)
            if not outcome.passed:
                say(outcome.reason, quiet=options.json)
    print(report.as_json(outcomes) if options.json else "\n" + report.table(outcomes))
    if options.record:
        host = machine.describe()
        host["commit"] = machine.first_line(["git", "describe", "--always", "--dirty"])
        host["server"] = machine.first_line(["redis-server", "--version"])
        where = "one plain Redis" if count == 1 else f"through shoal, {SHARDS} shards, {options.workers} workers"
        kind = machine.host_kind(host)
        print(f"recorded: {report.write_record(RECORD, outcomes, datetime.now(UTC), host, kind, where)}")
    if any(outcome.verdict == "not run" for outcome in outcomes):
        return 2
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
