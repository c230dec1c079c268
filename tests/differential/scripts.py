"""EVAL, EVALSHA and FCALL of commands whose keys are declared, be they on one shard or on several.

One script does what its arguments say: so every command of the other tables is done within scripts as well. It comes in
two forms: one stops at the first error (what was written before stays, as on any server), one returns errors.
Must stay true: every key that a script reaches is declared. What happens to others is not the subject here.
"""

import hashlib

from differential import geo, hashes, keyspace, lists, sets, sorted_sets, strings
from differential.draw import ALL_KEYS, Draw, Op, Words

# ARGV: for each command the number of its words, then these.
BODY = """local replies, at = {}, 1
while at <= #ARGV do
  local words = {}
  for i = at + 1, at + tonumber(ARGV[at]) do words[#words + 1] = ARGV[i] end
  replies[#replies + 1] = redis.%s(unpack(words))
  at = at + ARGV[at] + 1
end
return replies"""
STOPPING = BODY % "call"
GOING_ON = BODY % "pcall"
SCRIPTS = (STOPPING, GOING_ON)
DIGESTS = {script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in SCRIPTS}

LIBRARY = f"""#!lua name=differential
server.register_function('several', function(KEYS, ARGV)
{GOING_ON}
end)
server.register_function{{function_name='several_ro', flags={{'no-writes'}}, callback=function(KEYS, ARGV)
{GOING_ON}
end}}
"""

OURS = (*SCRIPTS, *DIGESTS.values(), "several", "several_ro")

DONE_WITHIN = (
    *strings.OPS, *strings.TOGETHER, *hashes.OPS, *lists.OPS, *lists.TOGETHER, *sets.OPS, *sets.TOGETHER,
    *sorted_sets.OPS, *sorted_sets.TOGETHER, *geo.OPS, *geo.TOGETHER, *keyspace.OPS, *keyspace.TOGETHER,
)  # fmt: skip


def keys_of(words: Words) -> list[str]:
    """The keys of a command, each once: no other word is called as keys are."""
    return list(dict.fromkeys(word for word in words[1:] if isinstance(word, str) and word in ALL_KEYS))


def several(draw: Draw) -> tuple[list[str], Words]:
    """The keys of some commands, and these as ARGV."""
    commands = draw.some(1, 3, lambda: draw.op(DONE_WITHIN))
    keys = list(dict.fromkeys(key for words in commands for key in keys_of(words)))
    return keys, [word for words in commands for word in (len(words), *words)]


def run(draw: Draw) -> Words:
    keys, arguments = several(draw)
    script = draw.pick(*SCRIPTS)
    read_only = "_RO" if draw.chance(0.15) else ""
    head: Words = draw.choose(["EVAL" + read_only, script], ["EVALSHA" + read_only, DIGESTS[script]])
    return [*head, len(keys), *keys, *arguments]


def call(draw: Draw) -> Words:
    keys, arguments = several(draw)
    head = draw.choose(["FCALL", "several"], ["FCALL", "several"], ["FCALL_RO", "several_ro"], ["FCALL_RO", "several"])
    return [*head, len(keys), *keys, *arguments]


def misuse(draw: Draw) -> Words:
    key = draw.key()
    return draw.choose(
        ["EVAL", STOPPING, -1, key],
        ["EVAL", STOPPING, 3, key],
        ["EVAL", STOPPING, "x", key],
        ["EVAL", "return redis.call('GET', KEYS[1]", 2, key, draw.key()],
        ["EVAL", "return nothing(KEYS[1])", 2, key, draw.key()],
        ["EVALSHA", "f" * 40, 2, key, draw.key()],
        ["FCALL", "nothing", 2, key, draw.key()],
    )


OPS = (Op(10, run), Op(4, call), Op(1, misuse))


def is_call(words: Words) -> bool:
    """Whether a script or function is asked for."""
    return str(words[0]).upper().removesuffix("_RO") in ("EVAL", "EVALSHA", "FCALL")


def commands_within(words: Words) -> list[Words] | None:
    """What a call of one of ours does, command by command; None of other requests."""
    if not is_call(words) or words[1] not in OURS:
        return None
    if not isinstance(words[2], int) or not 0 <= words[2] <= len(words) - 3:
        return None
    arguments, found, at = words[3 + words[2] :], [], 0
    while at < len(arguments):
        count = arguments[at]
        if not isinstance(count, int):
            return None
        found.append(arguments[at + 1 : at + 1 + count])
        at += count + 1
    return found
