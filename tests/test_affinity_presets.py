"""The affinity presets against the key names that each package itself used while it did its job on one server.

`tests/apps/recorded_keys.json` has, for each application, groups of keys that one command, transaction or script used
(`make test-apps ARGS=--keys` records them). With its preset each group must hash to one part; without, at least one
group must not, or the preset would be for nothing.
"""

import json
from pathlib import Path

import pytest
from apps.book import APPS, App

from shoal.affinity_presets import PRESETS
from shoal.config import parse_config
from shoal.core import check_affinity, locate

RECORDED: dict[str, list[list[str]]] = json.loads(
    (Path(__file__).resolve().parent / "apps" / "recorded_keys.json").read_text()
)
WITH_PRESETS = [app for app in APPS if app.presets]


def parts(group: list[str], rules: tuple[str, ...]) -> set[bytes]:
    return {locate(key.encode("latin-1"), rules)[0] for key in group}


def rules_of(app: App) -> tuple[str, ...]:
    return tuple(rule for name in app.presets for rule in PRESETS[name].rules)


@pytest.mark.parametrize("app", WITH_PRESETS, ids=lambda app: app.name)
def test_what_a_package_uses_together_is_together(app: App) -> None:
    apart = [group for group in RECORDED[app.name] if len(parts(group, rules_of(app))) > 1]
    assert not apart


@pytest.mark.parametrize("app", WITH_PRESETS, ids=lambda app: app.name)
def test_the_preset_is_needed(app: App) -> None:
    assert any(len(parts(group, ())) > 1 for group in RECORDED[app.name])


def test_every_preset_is_tried_by_an_application() -> None:
    assert {name for app in APPS for name in app.presets} == set(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_all_rules_can_be_used(name: str) -> None:
    assert [check_affinity(rule) for rule in PRESETS[name].rules] == [None] * len(PRESETS[name].rules)


def test_all_presets_fit_into_one_keyspace() -> None:
    names = ", ".join(f'"{name}"' for name in PRESETS)
    config = parse_config(f'[keyspace.main]\nshards = ["a:1"]\naffinity_presets = [{names}]\n', Path("shoal.toml"))
    assert len(config.topology.keyspace("main").affinity) == sum(len(preset.rules) for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("preset", "keys"),
    [
        ("celery", ["celery-task-meta-1", "celery-task-meta-2"]),
        ("celery", ["celery-taskset-meta-1.j", "celery-taskset-meta-2.j"]),
        ("bullmq", ["bull:mail:wait", "bull:sms:wait"]),
        ("dramatiq", ["dramatiq-results:a", "dramatiq-results:b"]),
        ("dramatiq", ["window@1795824017", "other@1795824017"]),
        ("taskiq", ["taskiq", "other"]),
        ("sidekiq", ["retry", "schedule"]),
    ],
)
def test_what_may_spread_does(preset: str, keys: list[str]) -> None:
    assert len(parts(keys, PRESETS[preset].rules)) == len(keys)


@pytest.mark.parametrize("name", PRESETS)
def test_other_keys_are_left_alone(name: str) -> None:
    for key in (b"user:42", b"celeryman", b"queues2", b"rqx", b"me@example.org", b"10.0.0.1:6379"):
        assert locate(key, PRESETS[name].rules)[0] == key
