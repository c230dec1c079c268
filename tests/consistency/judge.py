"""All checkers over one history, each over the operations that are for it."""

from consistency import appends, conservation, counters, registers, wgl
from consistency.finding import Verdict
from consistency.history import History
from consistency.workload import APPEND, BANK, COUNTERS, EQUAL, REGISTER, TOKENS


def judge(history: History) -> list[Verdict]:
    """One verdict of each checker."""
    return [
        wgl.check(history.only(REGISTER)),
        appends.check(history.only(APPEND)),
        conservation.check_bank(history.only(BANK)),
        conservation.check_tokens(history.only(TOKENS)),
        registers.check(history.only(EQUAL)),
        counters.check(history.only(COUNTERS)),
    ]
