"""A history checker: many clients, few hot keys on several shards, and the question whether all was as on one server.

    history       what clients did and saw: one `Operation` each, kept as lines of JSON
    workload      what clients do: random operations of six kinds, as words for the wire and as commands for the model
    client        a process of several clients: does it over raw sockets and writes it down
    model         a little Redis without a network, which says what a command should have answered
    wgl           is there any order of the operations in which the model answers the same? (Wing, Gong, Lowe)
    appends       transactions that append to lists and read them: cycles between them, named (after Elle)
    graph         strongly connected components and short cycles
    registers     all keys written together are equal, and no read goes back in time
    conservation  money and tokens that are moved are neither lost nor doubled, in any snapshot
    counters      what was acknowledged is there, and nothing that nobody did
    residue       what an operation must not leave behind on the shards
    finding       what a checker says
    judge         asks them all
    rig           real servers and one to three proxies over them, or one plain server
    faults        what goes wrong meanwhile, each fault a class with a name
    report        the verdict in words, as JSON, and as a record
    rounds        load, faults, quiescence, checks, again and again
    __main__      the command line

`make test-consistency` runs it. The checkers are pure functions over a history; `tests/test_consistency.py` gives each
of them histories that must fail. Rejected: a checker that exists. Elle and Knossos want a JVM, porcupine wants Go, and
no Python package has either; these are a few hundred lines, and small enough to be tested by what they must find.
Must stay true: nothing here knows how shoal does it. What is checked is what clients saw.
"""
