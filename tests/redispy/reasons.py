"""Why a test failed, in a few classes: what shoal refuses (by command), what it answers otherwise, what hangs.

The first rule that is found in the error decides. A class is for people who read a list of two hundred failures;
nothing is judged by it.
"""

import re
from collections import Counter
from collections.abc import Iterable

from redispy.suite import Outcome

# (in the error, the class; \1 stands for the first group)
RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (r"CROSSSLOT '([^']+)'", r"keys on several shards: \1"),
        (r"CROSSSLOT|different shards", "keys on several shards"),
        (r"'([^']+)' with .* reaches keys", r"keys that are not named: \1"),
        (r"'([^']+)' names no key", r"no key is named: \1"),
        (r"'([^']+)' was not executed: it belongs", "refused: multi"),
        (r"unknown command '([^']+)'", r"unknown command: \1"),
        (r"unknown subcommand '([^']+)'", r"unknown subcommand: \1"),
        (r"DID NOT RAISE", "no error where Redis has one"),
        (r"ResponseError: (?:Command # \d+ .*? caused error: )?'([^']+)' ", r"refused: \1"),
        (r"Hangs: |Failed: Timeout", "hangs"),
        (r"TimeoutError", "no answer in time"),
        (r"ConnectionError|ConnectionResetError|IncompleteReadError", "the connection was closed"),
        (r"AuthenticationError|NoPermissionError", "logging in, rights"),
        (r"ResponseError: (\S+ \S+ \S+)", r"an error: \1"),
        (r"AssertionError", "another answer than one Redis gives"),
        (r"(TypeError|KeyError|IndexError|ValueError|AttributeError|StopIteration)", r"an answer of another form: \1"),
        (r"^(\w+)", r"\1"),
    )
)
UNKNOWN = "without a message"


def reason(outcome: Outcome) -> str:
    """The class of one failure."""
    for pattern, name in RULES:
        found = pattern.search(outcome.error)
        if found:
            return found.expand(name).lower() if name.startswith("refused") else found.expand(name)
    return UNKNOWN


def grouped(outcomes: Iterable[Outcome]) -> list[tuple[str, list[Outcome]]]:
    """Failures by class, the largest class first."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(reason(outcome), []).append(outcome)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))


def phases(outcomes: Iterable[Outcome]) -> str:
    """In which phases they failed, when it is not only the test itself."""
    counts = Counter(outcome.phase for outcome in outcomes)
    told = {"setup": "in preparing", "teardown": "in clearing up"}
    return ", ".join(f"{counts[phase]} {words}" for phase, words in told.items() if counts[phase])
