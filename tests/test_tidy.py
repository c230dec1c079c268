"""The rules of the style guide that a program can check, over every file of the project.

Each rule is a function from one file to its complaints, and two tests: it finds the fault in a bad sample, and the
project has none. An exception is an entry of a table below, with its reason.
Rejected: a list of known offenders that may stay. What a rule finds is mended, or the rule is wrong and goes.
"""

import ast
import re
from collections.abc import Callable, Iterator

import pytest
from tidy import rust
from tidy.tree import CORE, GENERATED, ROOT, files, is_test, text

LAYERS = ("protocol", "routing", "session", "net")
# Files beside the layers: up to which layer they may look. All others, none at all: they serve every layer.
BESIDE_LAYERS = {"error": 0}

LINES_MAX = 600
LINES_NEVER = 800
FUNCTION_LINES_MAX = 70
# A table of cases may be long; more than this is several tests.
TEST_FUNCTION_LINES_MAX = 120

# Reached only from the net layer: sockets, clocks, threads, chance, the world outside.
OUTSIDE = re.compile(
    r"^(?:std::(?:net|thread|fs|env|process|io::std(?:in|out|err))|mio|socket2|libc|rand|fastrand|getrandom)\b"
    r"|(?:^|::)(?:Instant|SystemTime)$|(?:^|::)(?:Instant|SystemTime)::"
)

FORBIDDEN_STEMS = {"util", "utils", "common", "helper", "helpers", "manager", "managers", "misc", "stuff"}
FORBIDDEN_WORDS = {"upstream", "upstreams", "manager", "managers", "slave", "util", "utils", "helper", "helpers"}

# Files whose subject is commands: their table, its types, and what shoal itself asks of servers.
OF_COMMANDS = {"protocol/command.rs", "protocol/command_table.rs", "protocol/errand.rs"}

# (file under crates/core/src, literal) -> why this is not the name of a command
NOT_COMMANDS = {
    ("routing/sort_patterns.rs", "GET"): "an option of SORT",
    ("routing/administration.rs", "OBJECT"): "a form of DEBUG",
    ("routing/acl.rs", "GET"): "an option of SORT",
    ("session/acl.rs", "RESET"): "an option of ACL LOG",
    ("session/info/fields.rs", "CPU"): "a section of INFO",
    ("session/client_admin.rs", "TYPE"): "an option of CLIENT LIST and CLIENT KILL",
    ("session/client_help.rs", "INFO"): "a line of CLIENT HELP",
    ("session/local.rs", "RESET"): "the text of a reply",
    ("session/local.rs", "AUTH"): "an option of HELLO",
    ("session/monitor.rs", "AUTH"): "the same, which is not shown",
    ("session/slowlog.rs", "RESET"): "a line of SLOWLOG HELP",
}

UNTOLD = {
    "an issue's number": re.compile(r"\bissues?\s+#?\d+\b", re.IGNORECASE),
    "a path of one machine": re.compile(r"(?<![\w.:/*~-])/(?:work|root|home)/\w"),
    "the address of a package registry": re.compile(
        r"https?://[\w.-]*(?:pypi|pythonhosted|npmjs|crates\.io|yarnpkg|maven\.org/maven2|repo\.maven|proxy\.golang)"
    ),
}

Complaints = Iterator[str]
Rule = Callable[[str, str], Complaints]


# ------------------------------------------------------------------------------------------------- rules for Rust


def layers(name: str, source: str) -> Complaints:
    """Imports go down only; below net there is no socket, clock, thread or random number."""
    below = name.removeprefix(CORE + "/").split("/")[0].removesuffix(".rs")
    if not name.startswith(CORE) or below == "lib":
        return
    rank = LAYERS.index(below) if below in LAYERS else BESIDE_LAYERS.get(below, -1)
    for line, path in rust.Source(source).uses():
        target = re.match(r"crate::(\w+)", path)
        if target and target[1] in LAYERS and LAYERS.index(target[1]) > rank:
            yield f"{name}:{line}: {below} must not know {target[1]} ({path})"
        if path.count("super::") > name.removeprefix(CORE + "/").count("/"):
            yield f"{name}:{line}: leaves its layer by {path}; write crate::..."
        if below != "net" and OUTSIDE.search(path):
            yield f"{name}:{line}: {path} belongs to net"


def no_panics(name: str, source: str) -> Complaints:
    """No unwrap, panic or print outside tests; an expect says why it cannot fail."""
    if not re.match(r"crates/\w+/src/", name):
        return
    parsed = rust.Source(source)
    pattern = r"\.unwrap\(\)|\.unwrap_err\(\)|\b(?:panic|todo|unimplemented|dbg|e?print(?:ln)?)!"
    for line, found in parsed.find(pattern):
        yield f"{name}:{line}: {found}"
    starts = {literal.start: literal.value for literal in parsed.literals}
    for match in re.finditer(r"\.expect\(\s*", parsed.product_code):
        if len(starts.get(match.end(), "")) < 10:
            yield f"{name}:{parsed.line_of(match.start())}: expect without the reason why it cannot fail"


def unsafe_in_its_places(name: str, source: str) -> Complaints:
    """unsafe only in net/poll.rs and the binding, each time under a SAFETY comment."""
    parsed = rust.Source(source)
    lines = source.splitlines()
    for line, _ in parsed.find(r"\bunsafe\b(?!_)"):
        if name != f"{CORE}/net/poll.rs" and not name.startswith("crates/python/"):
            yield f"{name}:{line}: unsafe"
        elif "SAFETY" not in "\n".join(lines[max(line - 7, 0) : line]):
            yield f"{name}:{line}: unsafe without a SAFETY comment above it"


def no_command_names(name: str, source: str) -> Complaints:
    """Command knowledge is data: no other file of the core names a command."""
    inside = name.removeprefix(CORE + "/")
    if not name.startswith(CORE) or inside in OF_COMMANDS:
        return
    for literal in rust.Source(source).literals:
        if not literal.in_tests and literal.value in command_names() and (inside, literal.value) not in NOT_COMMANDS:
            yield f'{name}:{literal.line}: names the command "{literal.value}"'


def core_without_python(name: str, source: str) -> Complaints:
    """The core never holds a Python object, nor knows of one."""
    if name.startswith("crates/core/"):
        for line, found in rust.Source(source).find(r"\b(?:pyo3|PyObject|PyAny|Python)\b"):
            yield f"{name}:{line}: {found} in the core"


def rust_functions(name: str, source: str) -> Complaints:
    """Functions of at most 70 lines; tests of at most 120."""
    if name not in GENERATED:
        for function in rust.Source(source).functions():
            limit = TEST_FUNCTION_LINES_MAX if function.in_tests or is_test(name) else FUNCTION_LINES_MAX
            if function.length > limit:
                yield f"{name}:{function.line}: fn {function.name} has {function.length} lines"


def rust_header(name: str, source: str) -> Complaints:
    """A file opens with prose."""
    head = " ".join(line[3:] for line in source.splitlines() if line.startswith("//!"))
    if not source.lstrip().startswith(("//!", "#![")) or len(head) < 40:
        yield f"{name}: opens without saying what it owns (//! ...)"


def rust_words(name: str, source: str) -> Complaints:
    """The glossary's words, not their rivals."""
    if not is_test(name):
        for line, word in rust.Source(source).find(r"\b[A-Za-z_]\w*\b"):
            if words_of(word) & FORBIDDEN_WORDS:
                yield f"{name}:{line}: {word}"


# ----------------------------------------------------------------------------------------------- rules for Python


def python_functions(name: str, source: str) -> Complaints:
    """Functions of at most 70 lines; tests of at most 120."""
    for found in ast.walk(ast.parse(source)):
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (found.end_lineno or found.lineno) - found.lineno + 1
            if length > (TEST_FUNCTION_LINES_MAX if is_test(name) else FUNCTION_LINES_MAX):
                yield f"{name}:{found.lineno}: def {found.name} has {length} lines"


def python_header(name: str, source: str) -> Complaints:
    """A file opens with prose."""
    if source.strip() and len(ast.get_docstring(ast.parse(source)) or "") < 40:
        yield f"{name}: opens without saying what it owns"


def python_words(name: str, source: str) -> Complaints:
    """The glossary's words, not their rivals."""
    if not name.startswith("src/"):
        return
    for found in ast.walk(ast.parse(source)):
        names = [getattr(found, field, None) for field in ("id", "arg", "attr", "name")]
        for word in names:
            if isinstance(word, str) and words_of(word) & FORBIDDEN_WORDS:
                yield f"{name}:{getattr(found, 'lineno', 0)}: {word}"


def no_sleep(name: str, source: str) -> Complaints:
    """Sleeping is not synchronisation: tests wait for conditions, with wait_until."""
    if not is_test(name) or name == "tests/harness/wait.py" or name.startswith("benchmarks/"):
        return
    if name.endswith(".py"):
        for found in ast.walk(ast.parse(source)):
            if isinstance(found, ast.Attribute | ast.Name):
                word = found.attr if isinstance(found, ast.Attribute) else found.id
                if word == "sleep":
                    yield f"{name}:{found.lineno}: sleep"
    else:
        for match in re.finditer(r"thread::sleep|Thread\.sleep|time\.Sleep|setTimeout", source):
            yield f"{name}:{source.count(chr(10), 0, match.start()) + 1}: {match.group()}"


# ------------------------------------------------------------------------------------------- rules for every file


def length(name: str, source: str) -> Complaints:
    """Files of at most 600 lines, 800 where ARCHITECTURE.md says why; modules of tests do not count."""
    if name in GENERATED or is_test(name):
        return
    lines = rust.Source(source).product_lines if name.endswith(".rs") else source.count("\n")
    explained = name in text("ARCHITECTURE.md") if (ROOT / "ARCHITECTURE.md").exists() else False
    if lines > LINES_NEVER or (lines > LINES_MAX and not explained):
        yield f"{name}: {lines} lines"


def untold(name: str, source: str) -> Complaints:
    """What concerns one machine or one day of work stays out of the project."""
    if name in GENERATED:
        return
    for what, pattern in UNTOLD.items():
        for match in pattern.finditer(source):
            yield f"{name}:{source.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()}"


def dependencies_have_reasons(name: str, source: str) -> Complaints:
    """Each direct dependency stands beside its reason."""
    if not name.endswith("Cargo.toml"):
        return
    section, previous = "", ""
    for number, line in enumerate(source.splitlines(), 1):
        section = line.strip() if line.startswith("[") else section
        entry = re.match(r"\[(?:dev-|build-)?dependencies\]", section) and re.match(r"([\w-]+)\s*=(?!.*path =)", line)
        if entry and "#" not in line and not previous.startswith("#"):
            yield f"{name}:{number}: {entry[1]} without its reason"
        previous = line.strip()


# -------------------------------------------------------------------------------------------------- what they need


def words_of(identifier: str) -> set[str]:
    """The words of a snake_case or CamelCase name, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def command_names() -> frozenset[str]:
    """First words of all commands, from the generated table; short ones are too likely to mean something else."""
    table = text("crates/core/src/protocol/command_table.rs")
    return frozenset(
        found for found in re.findall(r'\{ name: "([^"]+)", full_name: "[^"|]+"', table) if len(found) >= 3
    )


RUST_RULES: tuple[Rule, ...] = (
    layers,
    no_panics,
    unsafe_in_its_places,
    no_command_names,
    core_without_python,
    rust_functions,
    rust_header,
    rust_words,
    no_sleep,
    length,
)
PYTHON_RULES: tuple[Rule, ...] = (python_functions, python_header, python_words, no_sleep, length)
OTHER_RULES: tuple[Rule, ...] = (untold, dependencies_have_reasons)

CASES = [
    *((rule, (".rs",)) for rule in RUST_RULES),
    *((rule, (".py",)) for rule in PYTHON_RULES),
    (length, (".sh", ".js", ".mjs", ".go", ".java", ".html", ".css")),
    (no_sleep, (".js", ".mjs", ".go", ".java")),
    *((rule, ()) for rule in OTHER_RULES),
]

FILLER = "    let x = 1;\n" * 80

# rule, a file's name, a text that breaks the rule there
BAD = [
    (layers, f"{CORE}/protocol/a.rs", "use crate::{limits, session::client};"),
    (layers, f"{CORE}/routing/a.rs", "fn f() { crate::net::poll::run() }"),
    (layers, f"{CORE}/routing/a.rs", "use super::super::net::poll;"),
    (layers, f"{CORE}/limits.rs", "use crate::protocol::request;"),
    (layers, f"{CORE}/session/a.rs", "use std::{time::{Duration, Instant}, fmt};"),
    (layers, f"{CORE}/session/a.rs", "fn f() { let t = std::time::SystemTime::now(); }"),
    (layers, f"{CORE}/protocol/a.rs", "use std::net::TcpStream;"),
    (no_panics, f"{CORE}/net/a.rs", "fn f() { g().unwrap() }"),
    (no_panics, f"{CORE}/net/a.rs", 'fn f() { g().expect("x") }'),
    (no_panics, "crates/python/src/lib.rs", 'fn f() { panic!("no") }'),
    (unsafe_in_its_places, f"{CORE}/net/worker.rs", "fn f() { unsafe { g() } }"),
    (unsafe_in_its_places, f"{CORE}/net/poll.rs", "fn f() { unsafe { g() } }"),
    (no_command_names, f"{CORE}/session/a.rs", 'const A: &[u8] = b"MGET";'),
    (core_without_python, f"{CORE}/session/a.rs", "use pyo3::prelude;"),
    (rust_functions, f"{CORE}/net/a.rs", "fn f(a: [u8; 3]) -> u8 {\n" + FILLER + "}\n"),
    (rust_header, f"{CORE}/net/a.rs", "use std::fmt;\n"),
    (rust_words, f"{CORE}/net/a.rs", "struct ConnectionManager;"),
    (python_functions, "src/shoal/a.py", "def f():\n" + "    x = 1\n" * 80),
    (python_header, "src/shoal/a.py", "import os\n"),
    (python_words, "src/shoal/a.py", "upstream_port = 1\n"),
    (no_sleep, "tests/a.py", "import time\ntime.sleep(1)\n"),
    (no_sleep, "tests/a.py", "from asyncio import sleep\nsleep(1)\n"),
    (no_sleep, "crates/core/tests/a.rs", "fn f() { std::thread::sleep(d) }"),
    (length, f"{CORE}/net/a.rs", "//! x\n" * 801),
    (length, "src/shoal/a.py", "x = 1\n" * 601),
    (untold, "README.md", "see is" + "sue 12"),
    (untold, "README.md", "in /ho" + "me/somebody/x"),
    (untold, "a.lock", "https://files.python" + "hosted.org/x"),
    (dependencies_have_reasons, "crates/core/Cargo.toml", '[dependencies]\nmio = "1"\n'),
]

GOOD = [
    (layers, f"{CORE}/session/a.rs", "use crate::{limits, routing::{route, merge}};\nuse std::time::Duration;"),
    (layers, f"{CORE}/net/a.rs", "use std::time::Instant;\nuse crate::session::client;"),
    (
        no_panics,
        f"{CORE}/net/a.rs",
        '#[cfg(test)]\nmod tests { fn f() { g().unwrap(); panic!("{") } }\n// a.unwrap()\n',
    ),
    (no_panics, f"{CORE}/net/a.rs", 'fn f() { g().expect("the table is not empty: see above") }'),
    (unsafe_in_its_places, f"{CORE}/net/poll.rs", "// SAFETY: the descriptor is ours.\nunsafe { g() }"),
    (no_command_names, f"{CORE}/session/a.rs", '// "MGET"\nconst A: &str = "mget it";'),
    (rust_functions, f"{CORE}/net/a.rs", "trait A { fn f(); }\nfn g() { '{'; \"{\" }\n" + FILLER),
    (length, f"{CORE}/net/a.rs", "//! x\n#[cfg(test)]\nmod tests {\n" + "// x\n" * 900 + "}\n"),
    (dependencies_have_reasons, "crates/core/Cargo.toml", '[dependencies]\n# Sockets.\nmio = "1"\n'),
]


def named(case: tuple[Rule, object]) -> str:
    return case[0].__name__


@pytest.mark.parametrize("case", CASES, ids=[f"{rule.__name__}{''.join(ends)}" for rule, ends in CASES])
def test_the_project_keeps_the_rule(case: tuple[Rule, tuple[str, ...]]) -> None:
    rule, suffixes = case
    complaints = [complaint for name in files(*suffixes) for complaint in rule(name, text(name))]
    assert not complaints, f"{rule.__doc__}\n" + "\n".join(complaints)


@pytest.mark.parametrize(("rule", "name", "sample"), BAD, ids=[f"{named(c[:2])}-{i}" for i, c in enumerate(BAD)])
def test_the_rule_finds_the_fault(rule: Rule, name: str, sample: str) -> None:
    assert list(rule(name, sample)), rule.__doc__


@pytest.mark.parametrize(("rule", "name", "sample"), GOOD, ids=[f"{named(c[:2])}-{i}" for i, c in enumerate(GOOD)])
def test_the_rule_leaves_good_code_alone(rule: Rule, name: str, sample: str) -> None:
    assert not list(rule(name, sample)), rule.__doc__


def test_the_table_names_commands() -> None:
    assert {"GET", "MGET", "CLIENT"} <= command_names()
    assert len(command_names()) > 200


def test_exceptions_are_still_needed() -> None:
    stale = [
        (inside, value)
        for inside, value in NOT_COMMANDS
        if value not in {literal.value for literal in rust.Source(text(f"{CORE}/{inside}")).literals}
    ]
    assert not stale


def test_no_file_is_called_by_a_name_that_only_grows() -> None:
    bad = [name for name in files() if FORBIDDEN_STEMS & {part.split(".")[0].lower() for part in name.split("/")}]
    assert not bad


def test_every_target_of_the_makefile_is_listed_by_help() -> None:
    makefile = text("Makefile")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", makefile, re.MULTILINE))
    described = set(re.findall(r"^([a-z-]+):.*## \S", makefile, re.MULTILINE))
    assert targets == described
    assert {"build", "up", "test", "test-clients", "lint", "bench", "fuzz", "help"} <= described
