"""docs/reference.md names every setting, verb, option, exit code, event, bound, error, metric and command, and no more.

What the code lists by itself is generated into the page and compared as a whole; the rest is prose, searched here.
"""

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from shoal.cli import root
from shoal.config import parse_config
from shoal.config_model import LATER_KEYS, TABLES
from shoal.core import limit
from shoal.topology import (
    MAX_CLIENTS_DEFAULT,
    SLOWLOG_LOG_SLOWER_THAN_DEFAULT,
    SLOWLOG_MAX_LEN_DEFAULT,
    SLOWLOG_MAX_LEN_MAX,
)

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "reference.md").read_text()


def section(heading: str) -> str:
    """The text below a heading, up to the next one of its rank or above."""
    rank = len(heading) - len(heading.lstrip("#"))
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{rank}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference.md has no heading {heading!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a section by the word in code that begins them."""
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and (match := re.match(r"`([^` ]+)", cells[0])):
            assert match[1] not in found, f"{match[1]} stands there twice"
            found[match[1]] = cells
    return found


def test_the_generated_tables_are_those_of_the_code() -> None:
    command: list[str | Path] = [sys.executable, ROOT / "tools" / "reference.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


TABLE_HEADINGS = {"": "### The file", **{path: f"### `[[{path}]]`" for path in TABLES if path.count(".") >= 2}}
TABLE_HEADINGS |= {path: f"### `[{path}]`" for path in ("keyspace.NAME.tls", "keyspace.NAME.server_tls")}
TABLE_HEADINGS["keyspace.NAME"] = "### `[keyspace.NAME]`"


@pytest.mark.parametrize("path", list(TABLES))
def test_every_key_of_the_file_is_described_with_its_default_and_no_other(path: str) -> None:
    described = rows(section(TABLE_HEADINGS[path]))
    fields = TABLES[path].model_fields
    assert set(described) == {field.alias or name for name, field in fields.items()}
    for name, field in ((field.alias or name, field) for name, field in fields.items()):
        _, _, default, meaning = described[name]
        assert len(meaning) > 10
        if field.is_required():
            assert default == "required"
        elif field.default not in (None, {}):
            shown = f'"{field.default}"' if isinstance(field.default, str) else str(field.default)
            if isinstance(field.default, bool):
                shown = shown.lower()  # as TOML writes it
            assert default == f"`{shown}`", name


def test_what_comes_later_is_named() -> None:
    text = section("### Not yet")
    assert all(f"`{key}`" in text for key in LATER_KEYS)
    assert not LATER_KEYS.keys() & {name for table in TABLES.values() for name in table.model_fields}


def test_the_first_example_is_a_configuration() -> None:
    first, _ = re.findall(r"```toml\n(.*?)```", section("## Configuration"), re.DOTALL)
    assert len(parse_config(first, Path("shoal.toml")).topology.keyspace("main").shards) == 2


def test_the_larger_example_is_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, larger = re.findall(r"```toml\n(.*?)```", section("## Configuration"), re.DOTALL)
    monkeypatch.setenv("VALKEY_PASSWORD", "x")
    for name in ("client", "reports"):
        (tmp_path / f"{name}.password").write_text("x")
    config = parse_config(larger.replace("/etc/shoal/", f"{tmp_path}/"), tmp_path / "shoal.toml")
    assert [user.name for user in config.topology.keyspace("main").users] == ["default", "reports"]


def verb_section(verb: str) -> str:
    headings = re.findall(rf"^### `shoal {verb}\b[^`]*`$", PAGE, re.MULTILINE)
    assert len(headings) == 1, f"one heading for shoal {verb}"
    return section(headings[0])


@pytest.mark.parametrize("verb", sorted(root.commands))
def test_every_option_of_a_verb_is_described_and_no_other(verb: str) -> None:
    options = [parameter for parameter in root.commands[verb].params if isinstance(parameter, click.Option)]
    described = rows(verb_section(verb))
    assert {name for name in described if name.startswith("--")} == {name for option in options for name in option.opts}
    for option in options:
        default = described[option.opts[-1]][1]
        if isinstance(option.default, (str, int)) and not option.is_flag:
            assert default == f"`{option.default}`", option.name


def test_every_verb_described_exists() -> None:
    assert set(re.findall(r"^### `shoal ([\w-]+)", PAGE, re.MULTILINE)) == set(root.commands)
    assert "`shoal --version`" in PAGE


def core_sources() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "crates" / "core" / "src").rglob("*.rs")))


def test_every_event_of_the_core_is_described_and_no_other() -> None:
    written = set(re.findall(r'\bname: "([a-z]+(?:-[a-z]+)+)",\s*fields', core_sources()))
    written |= set(re.findall(r'\.event\(\s*[\w:]+,\s*"([a-z-]+)"', core_sources()))
    written |= set(re.findall(r'"((?:cross-)?shard-[a-z-]+)"', core_sources()))  # chosen first, written below
    assert len(written) >= 5, "the patterns still find them"
    described = section("## Log").split("Reasons of `client-closed`")[0]
    assert set(rows(described)) == written


def test_every_reason_for_closing_a_client_is_described_and_no_other() -> None:
    stats = (ROOT / "crates" / "core" / "src" / "session" / "stats.rs").read_text()
    body = stats.split("impl CloseReason")[1].split("pub fn is_ordinary")[0]
    reasons = set(re.findall(r'Self::\w+ => "([a-z-]+)"', body))
    assert len(reasons) >= 5
    described = section("## Log").split("Reasons of `client-closed`")[1].split("Events of the control plane")[0]
    assert set(rows(described)) == reasons


def test_a_default_that_two_places_state_is_the_same() -> None:
    assert limit("CLIENTS_DEFAULT") == MAX_CLIENTS_DEFAULT
    assert limit("SLOWLOG_US_DEFAULT") == SLOWLOG_LOG_SLOWER_THAN_DEFAULT
    assert limit("SLOWLOG_ENTRIES_DEFAULT") == SLOWLOG_MAX_LEN_DEFAULT
    assert limit("SLOWLOG_ENTRIES_MAX") == SLOWLOG_MAX_LEN_MAX


def test_every_link_inside_the_page_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links
    assert links <= anchors
