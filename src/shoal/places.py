"""Finds the line on which each key of a TOML text stands.

`tomllib` reads the values but forgets where they were, and an error without a line is half an error. This scanner
walks a text that tomllib has already accepted and records `path -> line` for every table header, key, array
element and inline table, with the same paths that the parsed value has: ("keyspace", "main", "shards", 2).

It relies on the text being valid TOML: it checks nothing, and reads values only far enough to step over them. So it
can be wrong about nothing but lines. Rejected: a second TOML library only for positions.
"""

from __future__ import annotations

import re
from bisect import bisect_left

Path = tuple[str | int, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]+")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}


def find_places(text: str) -> dict[Path, int]:
    """The line, counted from 1, of every path in `text`, which must be valid TOML."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


def format_path(path: Path) -> str:
    """("keyspace", "main", "shards", 2) as people write it: keyspace.main.shards[2]."""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            shown = part if _BARE_KEY.fullmatch(part) else f'"{part}"'
            out += f".{shown}" if out else shown
    return out


def line_of(places: dict[Path, int], path: Path) -> int | None:
    """The line of a path, or of its nearest ancestor that has one."""
    while path:
        if path in places:
            return places[path]
        path = path[:-1]
    return None


class _Scanner:
    """One pass over the text; `at` only grows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line_ends = [match.start() for match in re.finditer("\n", text)]
        self.places: dict[Path, int] = {}
        self.array_lengths: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self.skip_blank()
        while self.at < len(self.text):
            if self.peek() == "[":
                table = self.header()
            else:
                self.key_and_value(table)
            self.skip_blank()
        return self.places

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def record(self, path: Path, at: int) -> None:
        self.places.setdefault(path, bisect_left(self.line_ends, at) + 1)

    def skip_blank(self) -> None:
        """Over white space, line ends and comments."""
        while self.at < len(self.text):
            if self.peek() == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif self.peek() in " \t\n":
                self.at += 1
            else:
                return

    def header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; answers the path of the table that follows."""
        start = self.at
        is_array = self.text.startswith("[[", self.at)
        self.at += 2 if is_array else 1
        keys = self.dotted_key()
        self.at += 2 if is_array else 1
        path = self.resolve(keys, start, open_array=is_array)
        self.record(path, start)
        return path

    def resolve(self, keys: list[str], start: int, *, open_array: bool) -> Path:
        """A header's keys as a path: inside an array of tables they mean its last element."""
        path: Path = ()
        for depth, key in enumerate(keys):
            path += (key,)
            self.record(path, start)
            if open_array and depth == len(keys) - 1:
                self.array_lengths[path] = self.array_lengths.get(path, 0) + 1
            if path in self.array_lengths:
                path += (self.array_lengths[path] - 1,)
        return path

    def dotted_key(self) -> list[str]:
        keys = []
        while True:
            self.skip_blank()
            if self.peek() in "\"'":
                keys.append(self.string())
            else:
                match = _BARE_KEY.match(self.text, self.at)
                if match is None:
                    raise ValueError(f"no key at offset {self.at}")  # not reached by valid TOML
                keys.append(match[0])
                self.at = match.end()
            self.skip_blank()
            if self.peek() != ".":
                return keys
            self.at += 1

    def key_and_value(self, table: Path) -> None:
        start = self.at
        keys = self.dotted_key()
        for depth in range(1, len(keys) + 1):
            self.record((*table, *keys[:depth]), start)
        self.at += 1  # the "="
        self.value((*table, *keys))

    def value(self, path: Path) -> None:
        self.skip_blank()
        self.record(path, self.at)
        match self.peek():
            case '"' | "'":
                self.string()
            case "[":
                self.array(path)
            case "{":
                self.inline_table(path)
            case _:
                scalar = _SCALAR.match(self.text, self.at)
                self.at = scalar.end() if scalar else self.at + 1

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        self.skip_blank()
        while self.peek() not in ("]", ""):
            self.value((*path, index))
            index += 1
            self.skip_separator()
        self.at += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        self.skip_blank()
        while self.peek() not in ("}", ""):
            self.key_and_value(path)
            self.skip_separator()
        self.at += 1

    def skip_separator(self) -> None:
        self.skip_blank()
        if self.peek() == ",":
            self.at += 1
        self.skip_blank()

    def string(self) -> str:
        """Any of the four kinds of string; answers its text (which matters for quoted keys only)."""
        quote = self.peek()
        fence = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(fence)
        start = self.at
        while self.at < len(self.text) and not self.text.startswith(fence, self.at):
            self.at += 2 if quote == '"' and self.peek() == "\\" else 1
        end = self.at
        self.at += len(fence)
        while len(fence) == 3 and self.peek() == quote and self.at - end < 5:
            self.at += 1  # a multi-line string may end with one or two quotes of its own
        raw = self.text[start:end]
        return _unescape(raw) if quote == '"' else raw


def _unescape(raw: str) -> str:
    def one(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1].lstrip("uU"), 16))
        return _ESCAPES.get(match[2], match[2])

    return re.sub(r"\\(?:(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})|(.))", one, raw)
