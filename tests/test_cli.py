"""The command line without a running proxy: help, errors as one line and exit 2, check, key."""

import binascii
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import shoal
from shoal import errors
from shoal.cli import main, root
from shoal.cli.options import columns, printable
from shoal.errors import EXIT_CODES

GOOD = """
[keyspace.main]
password = "hidden-client"
server_password = "hidden-server"
affinity = ["^bull:([^:]+):"]
affinity_presets = ["rq"]
shards = ["127.0.0.1:7001", "127.0.0.1:7002"]
"""


def slot_of(part: str) -> int:
    """Redis Cluster's CRC16, by a table that we did not write."""
    return binascii.crc_hqx(part.encode(errors="surrogateescape"), 0) % 16384


def owner_of(part: str) -> list[str]:
    return ["s0", "127.0.0.1:7001"] if slot_of(part) < 8192 else ["s1", "127.0.0.1:7002"]


VERBS = sorted(root.commands)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "shoal.toml"
    file.write_text(GOOD)
    file.chmod(0o600)
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error)"""
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_verbs() -> None:
    assert VERBS == ["check", "import-nutcracker", "key", "ring", "serve", "up"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_describes_gives_examples_and_the_exit_codes(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    code, out, err = run(capsys, *([verb] if verb else []), "--help")
    assert (code, err) == (0, "")
    assert f"  shoal {verb}" in out
    assert "Exit codes:\n" in out
    for number, meaning in EXIT_CODES.items():
        assert f"{number}  {meaning}" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_help_or_a_default_that_says_it(verb: str) -> None:
    for parameter in root.commands[verb].params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.show_default, parameter.name


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_can_answer_in_json(verb: str) -> None:
    assert any("--json" in parameter.opts for parameter in root.commands[verb].params)


def test_the_version_is_the_core_s(capsys: pytest.CaptureFixture[str]) -> None:
    from shoal import _core

    assert run(capsys, "--version") == (0, f"shoal {_core.version()}\n", "")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["sevre"], "no such command 'sevre'"),
        (["serve"], "name a FILE, or a --nutcracker file, or servers with --shard (see shoal serve --help)"),
        (["serve", "--sahrd", "x"], "no such option"),
        (["serve", "--shard", "x"], 'not host:port: "x"'),
        (["serve", "--shard", "a:1", "--workers", "0"], "--workers"),
        (["serve", "--shard", "a:1", "--workers", "65"], "--workers: at most 64"),
        (["serve", "--shard", "a:1", "--affinity", "(("], "--affinity ((: "),
        (["serve", "--shard", "a:1", "--password-file", "nowhere"], "--password-file: cannot read nowhere"),
        (["serve", "--shard", "a:1", "--shard", "a:1"], "shards s0 and s1 have the same address a:1"),
        (["serve", "nowhere.toml"], "cannot read nowhere.toml: No such file or directory"),
        (["serve", "nowhere.toml", "--shard", "a:1"], "--shard cannot be given together with FILE"),
        (["up", "--shards", "0"], "--shards"),
        (["up", "--ephemeral", "--data", "x"], "--ephemeral keeps no data: leave out --data"),
        (["up", "--listen", "x"], 'not host:port: "x"'),
        (["check"], "missing argument"),
        (["check", "nowhere.toml"], "cannot read nowhere.toml: No such file or directory"),
        (["key"], "missing argument"),
        (["key", "a", "--keyspace", "x"], "--keyspace needs --config"),
        (["key", "a", "--config", "x", "--shard", "a:1"], "--config cannot be given together with"),
    ],
)
def test_what_you_can_mend_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("shoal: ")
    assert complaint in line


def test_check_says_what_a_file_means(capsys: pytest.CaptureFixture[str], good: Path) -> None:
    code, out, err = run(capsys, "check", good)
    assert (code, err) == (0, "")
    for part in (
        f"{good}: good",
        "keyspace main",
        "listen            127.0.0.1:6380",
        "must log in (default)",
        "affinity          ^bull:([^:]+):",
        "^rq: => rq    (preset rq)",
        "shard s0  127.0.0.1:7001  8192 slots  0-8191      logs in as default",
        "shard s1  127.0.0.1:7002  8192 slots  8192-16383  logs in as default",
        "admin       off",
    ):
        assert part in out
    assert "hidden" not in out
    assert not any(line != line.rstrip() for line in out.splitlines())


def test_check_answers_in_json(capsys: pytest.CaptureFixture[str], good: Path) -> None:
    code, out, err = run(capsys, "check", good, "--json")
    assert (code, err) == (0, "")
    assert "hidden" not in out
    meaning = json.loads(out)
    assert meaning["ok"] is True
    (keyspace,) = meaning["keyspaces"]
    assert keyspace["users"] == ["default"]
    assert [
        (shard["endpoint"], shard["slots"], shard["slot_count"], shard["auth"]) for shard in keyspace["shards"]
    ] == [
        ("127.0.0.1:7001", ["0-8191"], 8192, True),
        ("127.0.0.1:7002", ["8192-16383"], 8192, True),
    ]


def test_check_says_everything_wrong_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text('wrokers = 1\n[keyspace.main]\npassword = 7\nshards = ["hidden@a:1", "b"]\n')
    code, out, err = run(capsys, "check", file)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert [line.removeprefix(f"shoal: {file}:").split(": ")[0] for line in lines] == ["1", "3", "4", "4"]
    assert "hidden" not in err
    code, out, err = run(capsys, "check", file, "--json")
    assert (code, err) == (2, "")
    answer = json.loads(out)
    assert answer["ok"] is False
    assert [(problem["line"], problem["path"]) for problem in answer["problems"]] == [
        (1, "wrokers"),
        (3, "keyspace.main.password"),
        (4, "keyspace.main.shards[0]"),
        (4, "keyspace.main.shards[1]"),
    ]


def test_what_is_wrong_with_a_nutcracker_file_is_said_in_json_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "n.yml"
    file.write_text("a:\n listen: 127.0.0.1:1\n colour: red\n servers:\n - 127.0.0.1:2:1\n")
    code, out, err = run(capsys, "import-nutcracker", file, "--json")
    assert (code, err) == (2, "")
    answer = json.loads(out)
    assert answer["ok"] is False
    (problem,) = answer["problems"]
    assert (problem["file"], problem["line"], problem["path"]) == (str(file), 3, "a.colour")


def test_check_shows_warnings(capsys: pytest.CaptureFixture[str], good: Path) -> None:
    good.chmod(0o644)
    code, out, _ = run(capsys, "check", good)
    assert code == 0
    assert "warning: keyspace.main.server_password: other users can read this file" in out


def test_key_says_where_a_key_lives(capsys: pytest.CaptureFixture[str], good: Path) -> None:
    expected = [("user:42", "user:42"), ("{user}:a", "user"), ("bull:mail:7", "mail"), ("bull:{x}:7", "{x}")]
    code, out, err = run(capsys, "key", *(key for key, _ in expected), "--config", good)
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["key", "hashed", "slot", "shard", "endpoint"],
        *([key, part, str(slot_of(part)), *owner_of(part)] for key, part in expected),
    ]
    assert {owner_of(part)[0] for _, part in expected} == {"s0", "s1"}, "the keys were chosen to show both"


def test_key_takes_shards_and_rules_as_options(capsys: pytest.CaptureFixture[str]) -> None:
    shards = ["--shard", "127.0.0.1:7001", "--shard", "[::1]:7002", "--affinity", "^.(.)"]
    code, out, _ = run(capsys, "key", "xay", "--json", *shards)
    assert code == 0
    assert json.loads(out) == [
        {"key": "xay", "hashed": "a", "slot": 15495, "keyspace": "main", "shard": "s1", "endpoint": "[::1]:7002"}
    ]


def test_key_without_shards_says_the_slot(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "key", "foo", "{}x", "\udcff\n", "--json")
    assert code == 0
    assert json.loads(out) == [
        {"key": "foo", "hashed": "foo", "slot": 12182},
        {"key": "{}x", "hashed": "{}x", "slot": slot_of("{}x")},
        {"key": "\\xff\\x0a", "hashed": "\\xff\\x0a", "slot": slot_of("\udcff\n")},
    ]


def test_at_random_no_shard_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text('[keyspace.main]\nrole = "cache"\ndistribution = "random"\nshards = ["a:1", "b:1"]\n')
    code, out, _ = run(capsys, "key", "x", "--config", file)
    assert (code, out.splitlines()[1].split()) == (0, ["x", "x", "any", "any"])
    (entry,) = json.loads(run(capsys, "key", "x", "--config", file, "--json")[1])
    assert (entry["shard"], entry["endpoint"]) == (None, None)


def test_key_wants_to_know_which_keyspace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    tables = [
        f'[keyspace.{name}]\nlisten = "127.0.0.1:{port}"\nshards = ["{name}:1"]\n'
        for name, port in zip("ab", (1, 2), strict=True)
    ]
    file.write_text("".join(tables))
    assert "choose one with --keyspace: a, b" in run(capsys, "key", "x", "--config", file)[2]
    assert '"c", but a, b' in run(capsys, "key", "x", "--config", file, "--keyspace", "c")[2]
    code, out, _ = run(capsys, "key", "x", "--config", file, "--keyspace", "b", "--json")
    assert (code, json.loads(out)[0]["endpoint"]) == (0, "b:1")


def test_serve_with_several_keyspaces_cannot_be_moved(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text('[keyspace.a]\nshards=["a:1"]\n[keyspace.b]\nlisten="127.0.0.1:1"\nshards=["b:1"]\n')
    code, _, err = run(capsys, "serve", file, "--listen", "127.0.0.1:2")
    assert code == 2
    assert "has several keyspaces, each with its own listen" in err


def test_a_core_that_is_not_built_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from shoal import core

    monkeypatch.setitem(sys.modules, "shoal._core", None)
    core.require_core.cache_clear()
    code, _, err = run(capsys, "key", "a")
    core.require_core.cache_clear()
    assert code == 1
    assert err.startswith("shoal: the data plane is not built for this Python: run make build")


def test_a_reader_that_leaves_is_not_a_traceback() -> None:
    command = [sys.executable, "-c", "import sys; from shoal.cli import main; sys.exit(main(['key', *'abc' * 40000]))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 1


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], {"pydantic", "uvicorn", "starlette", "shoal._core", "asyncio"}),
        (["key", "a"], {"pydantic", "uvicorn", "starlette", "asyncio"}),
        (["check", "--help"], {"pydantic", "uvicorn", "starlette", "shoal._core"}),
    ],
)
def test_quick_verbs_load_nothing_heavy(arguments: list[str], unwanted: set[str]) -> None:
    program = (
        "import sys; before = set(sys.modules); from shoal.cli import main; main(sys.argv[1:]); "
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert not unwanted & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("raw", "text"), [(b"a b", "a b"), ("é☃".encode(), "é☃"), (b"\x00\x1b[31m", "\\x00\\x1b[31m"), (b"\xff", "\\xff")]
)
def test_keys_cannot_steer_the_terminal(raw: bytes, text: str) -> None:
    assert printable(raw) == text


def test_columns_are_aligned() -> None:
    assert columns([("a", "bb", ""), ("ccc", "d", "e")], "  ") == "  a    bb\n  ccc  d   e"


def test_the_public_names_exist_and_are_all() -> None:
    assert all(hasattr(shoal, name) for name in shoal.__all__)
    assert sorted(shoal.__all__) == shoal.__all__
    classes = {name for name, value in vars(shoal).items() if isinstance(value, type)}
    assert classes <= set(shoal.__all__)


def test_the_tree_of_exceptions_is_drawn_where_it_is_defined() -> None:
    """Every exception stands in the docstring of errors.py, indented below its base, with its exit code."""
    drawn = [line for line in (errors.__doc__ or "").splitlines() if re.match(r"\s+[│├└ ─]*[A-Z]\w+Error\b", line)]
    column = {re.search(r"\w+", line)[0]: re.search(r"\w", line).start() for line in drawn}  # type: ignore[index,union-attr]
    classes = {
        value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ShoalError) and not name.startswith("_")
    }
    assert set(column) == {found.__name__ for found in classes}
    for found in classes - {errors.ShoalError}:
        base = next(parent for parent in found.__mro__[1:] if not parent.__name__.startswith("_"))
        assert column[found.__name__] > column[base.__name__]
