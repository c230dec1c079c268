"""One event is one line that can be read back, whatever a client put into it; secrets never show."""

import errno
import io
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shoal import log
from shoal.log import EVENTS, Log, LoggingBridge, render_json, render_logfmt, timestamp

NASTY = [
    "",
    " ",
    "a b",
    'say "hi"',
    "a=b",
    "back\\slash",
    "line\nbreak\r\n",
    "tab\t",
    "\x00\x1b[31m\x7f",
    "naïve ☃ \U0001f41f",
    "\udcff",
    "level=error event=forged",
    "\u2028\u0085",
]


@dataclass
class Event:
    """What the core hands over."""

    name: str = "client-closed"
    level: str = "info"
    unix_ms: int = 1_700_000_000_123
    fields: list[tuple[str, str]] = field(default_factory=list)


def parse_logfmt(line: str) -> dict[str, str]:
    """An independent reader: pairs separated by blanks, quoted values with JSON's escapes (and \\U)."""
    pairs = re.findall(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line, "nothing is left over"
    read = {}
    for key, value in pairs:
        if value.startswith('"'):
            value = re.sub(
                r"\\U([0-9a-f]{8})",
                lambda match: json.dumps(chr(int(match[1], 16)))[1:-1],
                value.replace("\\\\", "\\u005c"),
            )
            value = json.loads(value)
        read[key] = value
    return read


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize(("render", "parse"), [(render_logfmt, parse_logfmt), (render_json, json.loads)])
def test_what_goes_into_a_line_comes_out_of_it(
    value: str, render: Callable[..., str], parse: Callable[[str], object]
) -> None:
    line = render(0, "info", "client-closed", [("reason", value), ("after", "x")])
    assert line.isascii()
    assert line.isprintable()
    assert parse(line) == {
        "ts": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "event": "client-closed",
        "reason": value,
        "after": "x",
    }


@pytest.mark.parametrize("seed", range(100))
def test_random_text_comes_out_of_a_line(seed: int) -> None:
    chance = random.Random(seed)
    value = "".join(chance.choice(' ="\\\n\tab\x01é\U0001f41f') for _ in range(chance.randrange(12)))
    assert parse_logfmt(render_logfmt(0, "info", "e", [("v", value)]))["v"] == value


def test_plain_values_stay_plain() -> None:
    assert render_logfmt(1_700_000_000_123, "warning", "shard-down", [("shard", "s1"), ("reason", "timed out")]) == (
        'ts=2023-11-14T22:13:20.123Z level=warning event=shard-down shard=s1 reason="timed out"'
    )


@pytest.mark.parametrize("render", [render_logfmt, render_json])
def test_secrets_never_show(render: Callable[..., str]) -> None:
    fields = [("password", "hidden"), ("server_password", "hidden"), ("Secret", "hidden"), ("auth_token", "hidden")]
    assert "hidden" not in render(0, "info", "e", fields)


def test_a_field_cannot_pass_for_another() -> None:
    fields = [("level", "forged"), ("event", "forged"), ("a b=c", "1"), ("x", "1"), ("x", "2"), ("", "3")]
    lines = render_logfmt(0, "info", "real", fields), render_json(0, "info", "real", fields)
    for read in (parse_logfmt(lines[0]), json.loads(lines[1])):
        assert (read["level"], read["event"]) == ("info", "real")
        assert (read["level_2"], read["a_b_c"], read["x"], read["x_2"], read["_"]) == ("forged", "1", "1", "2", "3")


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_the_log_writes_one_line_for_each_event(form: str) -> None:
    stream = io.StringIO()
    written = Log(form, "info", stream)
    written.write("info", "ready", listen="127.0.0.1:1", nothing=None)
    written.event(Event(fields=[("reason", "protocol\nerror")]))
    written.event(Event(level="debug"))
    written.write("debug", "starting")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "nothing" not in lines[0]
    assert "2023-11-14T22:13:20.123Z" in lines[1]


@pytest.mark.parametrize(("lowest", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels_below_the_chosen_one_are_left_out(lowest: str, expected: int) -> None:
    stream = io.StringIO()
    written = Log("logfmt", lowest, stream)
    for level in log.LEVELS:
        written.write(level, "e")
    assert len(stream.getvalue().splitlines()) == expected


def test_a_log_that_nobody_can_take_stops_nothing(tmp_path: Path) -> None:
    closed = (tmp_path / "log").open("w")
    closed.close()
    Log("logfmt", "info", closed).write("info", "ready")
    Log("logfmt", "info", FullDisk()).write("info", "ready")


class FullDisk(io.StringIO):
    """A log file on a disk without space."""

    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_the_web_server_says_becomes_a_line_of_ours() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("shoal-test")
    logger.propagate = False
    logger.addHandler(LoggingBridge(Log("logfmt", "info", stream)))
    logger.info("not worth a line")
    logger.error("it %s", "broke\nbadly")
    assert parse_logfmt(stream.getvalue().rstrip("\n")) | {"ts": ""} == {
        "ts": "",
        "level": "error",
        "event": "admin-message",
        "source": "shoal-test",
        "text": "it broke\nbadly",
    }


def test_every_event_that_is_written_is_declared_and_every_declared_one_is_written() -> None:
    written = set()
    for file in Path(log.__file__).parent.rglob("*.py"):
        found = re.findall(r"\.write\(\s*(.+?),\s*\"([a-z-]+)\"", file.read_text())
        written |= set(re.findall(r'_render\([^"]+"[a-z]+", "([a-z-]+)"', file.read_text()))
        written |= {name for level, name in found if "level" in level or '"' in level}
    assert written == set(EVENTS)


def test_time_is_written_so_that_it_sorts() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_700_000_000_009) == "2023-11-14T22:13:20.009Z"


def test_a_pipe_that_nobody_reads_stops_nothing() -> None:
    """A collector that has stopped: lines are dropped, and counted when it reads again."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as collector:
        written = Log("logfmt", "info", stream)
        begun = time.monotonic()
        for number in range(3_000):
            written.write("info", "ready", number=number, text="x" * 100)
        assert time.monotonic() - begun < 10, "it waited for the reader"
        os.set_blocking(reader, False)
        seen = b""
        while piece := collector.read(1 << 16):
            seen += piece
        assert b"number=0 " in seen
        assert b"number=2999 " not in seen
        written.write("info", "stopped")
        lines = (collector.read(1 << 16) or b"").decode().splitlines()
        assert "event=log-lines-dropped" in lines[0]
        dropped = 3_000 - seen.count(b"event=ready")
        assert f"count={dropped}" in lines[0]
        assert "event=stopped" in lines[1]
