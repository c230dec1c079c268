"""Rust source, taken apart as far as the style checks need: bare code, literals, functions, what is used.

Flow: `Source(text)` walks the characters once and fills `code` (comments and the insides of literals become spaces, so
that positions and lines stay) and `literals`. Modules under `#[cfg(test)]` are blanked in `product_code`.
Must stay true: line n of `code` is line n of the text. Not a parser: macros are read as they look.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<line>//[^\n]*)
  | (?P<block>/\*)
  | (?P<raw>\b(?:b|c|br|cr)?r(?P<hashes>\#*)")
  | (?P<string>\b[bc]?"|")
  | (?P<char>b?'(?:\\(?:x[0-9a-fA-F]{2}|u\{[^}]*\}|.)|[^\\'\n])')
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Literal:
    line: int
    value: str
    start: int
    in_tests: bool


@dataclass(frozen=True)
class Function:
    name: str
    line: int
    length: int
    in_tests: bool


class Source:
    def __init__(self, text: str) -> None:
        self.text = text
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.code, found = _blank(text)
        self._test_spans = self._find_tests()
        self.literals = [Literal(self.line_of(start), value, start, self._in_tests(start)) for start, value in found]

    @property
    def product_code(self) -> str:
        """The code without modules of tests."""
        code = self.code
        for start, end in self._test_spans:
            code = code[:start] + re.sub(r"[^\n]", " ", code[start:end]) + code[end:]
        return code

    @property
    def product_lines(self) -> int:
        """How long the file is without its modules of tests."""
        inside = sum(self.text.count("\n", start, end) for start, end in self._test_spans)
        return self.text.count("\n") - inside

    def line_of(self, position: int) -> int:
        return bisect_right(self._line_starts, position)

    def find(self, pattern: str) -> list[tuple[int, str]]:
        """(line, match) of a pattern in the code that is not for tests."""
        code = self.product_code
        return [(self.line_of(match.start()), match.group()) for match in re.finditer(pattern, code)]

    def functions(self) -> list[Function]:
        found = []
        for match in re.finditer(r"\bfn\s+(\w+)", self.code):
            body = self._body(match.end())
            if body is not None:
                first, last = self.line_of(match.start()), self.line_of(self._closing(body))
                found.append(Function(match.group(1), first, last - first + 1, self._in_tests(match.start())))
        return found

    def uses(self) -> list[tuple[int, str]]:
        """(line, path) of everything named by a path: `use` trees written out, and paths in the code."""
        code = self.product_code
        found = []
        for match in re.finditer(r"\buse\s+([^;]+);", code):
            found += [(self.line_of(match.start()), path) for path in expand(match.group(1))]
        for match in re.finditer(r"\b\w+(?:\s*::\s*\w+)+", code):
            found.append((self.line_of(match.start()), re.sub(r"\s", "", match.group())))
        return found

    def _find_tests(self) -> list[tuple[int, int]]:
        head = r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub\s+)?mod\s+\w+\s*\{"
        return [(found.start(), self._closing(found.end() - 1) + 1) for found in re.finditer(head, self.code)]

    def _in_tests(self, position: int) -> bool:
        return any(start <= position < end for start, end in self._test_spans)

    def _body(self, position: int) -> int | None:
        """Where the body's brace opens; None for a declaration without one."""
        depth = 0
        for i in range(position, len(self.code)):
            character = self.code[i]
            if character in "([":
                depth += 1
            elif character in ")]":
                depth -= 1
            elif depth == 0 and character == "{":
                return i
            elif depth == 0 and character == ";":
                return None
        return None

    def _closing(self, opening: int) -> int:
        depth = 0
        for match in re.finditer(r"[{}]", self.code[opening:]):
            depth += 1 if match.group() == "{" else -1
            if depth == 0:
                return opening + match.start()
        return len(self.code) - 1


def expand(tree: str) -> list[str]:
    """`a::{b, c::{d, e}}` -> a::b, a::c::d, a::c::e; without spaces and `as`."""
    tree = re.sub(r"\bas\s+\w+", "", tree)
    tree = re.sub(r"\s", "", tree)
    start = tree.find("{")
    if start < 0:
        return [tree] if tree else []
    prefix, inner = tree[:start], tree[start + 1 : tree.rindex("}")]
    return [prefix + path for part in _split(inner) for path in expand(part)]


def _split(inner: str) -> list[str]:
    parts, depth, last = [], 0, 0
    for i, character in enumerate(inner):
        depth += (character == "{") - (character == "}")
        if character == "," and depth == 0:
            parts.append(inner[last:i])
            last = i + 1
    return [*parts, inner[last:]]


def _blank(text: str) -> tuple[str, list[tuple[int, str]]]:
    """The text with comments and literals as spaces, and the string literals with their positions."""
    pieces: list[str] = []
    literals: list[tuple[int, str]] = []
    position = 0
    while (match := _TOKEN.search(text, position)) is not None:
        pieces.append(text[position : match.start()])
        end = _end(text, match)
        if match["raw"] or match["string"]:
            inner = text[match.end() : end - 1 - len(match["hashes"] or "")]
            literals.append((match.start(), inner))
            pieces.append('"' + re.sub(r"[^\n]", " ", text[match.start() + 1 : end - 1]) + '"')
        else:
            pieces.append(re.sub(r"[^\n]", " ", text[match.start() : end]))
        position = end
    pieces.append(text[position:])
    return "".join(pieces), literals


def _end(text: str, match: re.Match[str]) -> int:
    """Where the comment or literal ends that the match begins."""
    if match["line"] or match["char"]:
        return match.end()
    if match["raw"]:
        closing = '"' + match["hashes"]
        return _after(text, closing, match.end())
    if match["string"]:
        string_end = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL).match(text, match.end())
        return string_end.end() if string_end else len(text)
    depth, position = 1, match.end()
    while depth and (mark := re.compile(r"/\*|\*/").search(text, position)):
        depth += 1 if mark.group() == "/*" else -1
        position = mark.end()
    return position if depth == 0 else len(text)


def _after(text: str, closing: str, position: int) -> int:
    found = text.find(closing, position)
    return found + len(closing) if found >= 0 else len(text)
