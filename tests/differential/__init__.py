"""Random programs of commands on one plain server and on shoal over four shards: nobody may be able to tell them apart.

    draw         the choices of a program: its keys and what they mostly hold, members, values, scores, times
    strings, hashes, lists, sets, sorted_sets, geo, streams, keyspace
                 what is asked of each type, with weights: one table `OPS` each
    scripts      EVAL and FCALL with declared keys
    blunders     the same commands with something wrong
    program      from a seed to a list of steps of two clients, with transactions and WATCH
    reply        replies with their kinds, as they came
    compare      when two replies count as equal
    known        where shoal means to differ, and why
    state        everything that a side holds, and what the shards hold
    sides        the servers, the proxy, connections to both
    run          one program on both sides
    minimise     the fewest steps that still differ
    report       what is said, and the figures
    __main__     all of it in order

`make test-differential` runs it; tests/test_differential.py runs a part of it, and shows that differences are found.
Must stay true: a program depends on its seed and the server's list of commands alone, and is made before it is run; no
order is ignored that servers promise; no value is expected that came from shoal.
"""
