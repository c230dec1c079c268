"""The application matrix's own parts: the guide says what each application is tried with, and verdicts are just.

The jobs themselves fetch many packages and take minutes: `make test-apps`.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from apps.book import APPS, App
from apps.environments import HERE, MAKERS
from apps.keys import Groups, shape
from apps.report import table, write_record
from apps.run import Outcome, judge
from tidy.tree import text

GUIDE = text("docs/guides/applications.md")
LINES = [line.split("|")[1:-1] for line in GUIDE.splitlines() if line.startswith("| `")]
ROWS = {cells[0].strip("` "): [cell.strip() for cell in cells] for cells in LINES}


def test_every_application_is_in_the_guide_and_no_other() -> None:
    assert [app.name for app in APPS if app.name not in ROWS] == []
    assert set(ROWS) == {app.name for app in APPS}
    assert len({app.name for app in APPS}) == len(APPS)


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_the_guide_has_the_settings_that_are_tried(app: App) -> None:
    shown = ROWS[app.name][1]
    assert "\n".join(re.findall(r"`([^`]+)`", shown)) == app.lines
    assert app.lines or shown == "none"


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_every_job_exists(app: App) -> None:
    assert app.environment in MAKERS
    assert app.steps
    folders = {"node": "node", "go": "go", "java": "java", "ruby": "ruby"}
    program = app.program or "main.go"
    assert (HERE / folders.get(app.environment, "jobs") / program).is_file()


APP = App("name", "newest", "job.py", ("one", "two"))


@pytest.mark.parametrize(
    ("printed", "code", "verdict"),
    [
        ("version 1.2\nok one\nok two\n", 0, "passed"),
        ("version 1.2\nok one\n", 0, "failed"),
        ("version 1.2\nok two\nok one\n", 0, "failed"),
        ("version 1.2\nok one\nok two\nok three\n", 0, "failed"),
        ("version 1.2\nok one\nok two\n", 1, "failed"),
        ("version 1.2\nok one\nok two\n", None, "failed"),
        ("", 0, "failed"),
    ],
)
def test_passed_means_every_step_and_a_good_end(printed: str, code: int | None, verdict: str) -> None:
    assert judge(APP, printed, code, 1.0).verdict == verdict


def test_keys_are_grouped_by_what_used_them() -> None:
    groups = Groups()
    for who, name, keys in [
        ("a", "MULTI", []),
        ("b", "GET", ["alone"]),
        ("a", "SET", ["first:1"]),
        ("a", "SET", ["second:1"]),
        ("a", "EXEC", []),
        ("b", "EVAL", ["told"]),
        ("lua", "GET", ["made"]),
        ("a", "MGET", ["spread", "over", "shards"]),
        ("b", "WATCH", ["watched"]),
        ("b", "MULTI", []),
        ("b", "DEL", ["changed"]),
        ("b", "EXEC", []),
        ("a", "RENAME", ["first:2", "second:2"]),
    ]:
        groups.take(who, name, keys)
    assert groups.all() == [["first:1", "second:1"], ["told", "made"], ["watched", "changed"]]


def test_what_is_random_is_no_part_of_a_shape() -> None:
    assert shape("rq:job:54e97b55-6d2c-48f1-9ee2-9f01b891da31") == shape("rq:job:00000000-0000-0000-0000-000000000000")
    assert shape("bull:mail:1") == shape("bull:mail:22") != shape("bull:mail:wait")


def test_the_record_says_what_was_run(tmp_path: Path) -> None:
    outcomes = [Outcome("celery", "5.7", "passed", 3.0, steps=9), Outcome("rq", "3", "failed", 1.0, "why", 2)]
    assert "1 of 2 passed" in table(outcomes)
    path = write_record(tmp_path, outcomes, datetime(2026, 1, 2, tzinfo=UTC), {"cores": 2}, "host", "over shards")
    assert "| celery | 5.7 | passed | 9 | 3.0 |" in path.read_text()
    assert path.with_suffix(".json").read_text().count('"app"') == 2
