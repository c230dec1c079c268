"""A command with something wrong: a word too few or too many, one of another kind, a name that does not exist.

What comes of it is often an error, sometimes another valid command: both must be the servers' own.
Must stay true: the outcome is certain. Commands that draw lots, wait or run scripts are left as they are,
and so is what keeps a promise about its key (`LEX_KEYS`).
"""

from differential.draw import LEX_KEYS, Draw, Word, Words

LEFT_ALONE = {"SPOP", "SRANDMEMBER", "HRANDFIELD", "ZRANDMEMBER", "EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL",
              "FCALL_RO", "BLPOP", "BRPOP", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "HSCAN", "SSCAN"}  # fmt: skip

# No number here is one that makes a server allocate much. The last is more than 64 bits hold.
WRONG: tuple[Word, ...] = ("nonsense", "-1", "0", "1.5", "", "NX", "99999999999999999999")


def spoil(draw: Draw, words: Words) -> Words:
    """The same request with one thing changed."""
    if str(words[0]) in LEFT_ALONE or set(words) & set(LEX_KEYS) or (words[0] == "XADD" and draw.chance(0.8)):
        return words
    at = draw.number(1, len(words) - 1) if len(words) > 1 else 0
    roll = draw.number(0, 6)
    if roll == 0:
        return words[:-1] or words
    if roll == 1:
        return [*words, draw.pick(*WRONG)]
    if roll == 2 and at:
        return words[:at] + words[at + 1 :]
    if roll == 3 and at:
        return [*words[:at], words[at], *words[at:]]
    if roll == 4:
        name = str(words[0])
        return [draw.pick(name + "X", name.lower(), name.lower()), *words[1:]]
    return [*words[:at], draw.pick(*WRONG), *words[at + 1 :]] if at else [*words, draw.pick(*WRONG)]
