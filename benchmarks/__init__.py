"""What a proxy costs: shoal, direct Redis and other proxies side by side, on one machine, in one run.

Run it with `make bench` (or `python -m benchmarks --help` in the environment). docs/guides/benchmarks.md says how to
read the figures and how to find out where the time goes.

The files, in the order in which data flows:

    workloads.py   what is asked: command, clients, pipeline, and the bar that the cost has to stay under
    scenes.py      before which servers and in which configuration: slots, ketama, memcached
    subjects.py    who answers: how each proxy is started, and with which configuration
    processes.py   starts, pins and stops every process; free ports; nothing outlives the run
    shards.py      the four redis-server shards, their keys, and what they say was asked of them
    accounting.py  CPU time, memory and syscalls of a process, as the kernel counts them
    load.py        one run of a load generator, and what it printed
    memload.py     the same for memcached: servers, keys, witnesses, load (memload.c)
    bench.py       the rounds: which cell comes when; every cell checked before it counts
    reckon.py      ratios, medians, capacity: arithmetic only
    machine.py     what the machine and the programs are
    report.py      tables, the raw record
    features.py    a run of its own: messages, transactions and waits (featureload.c) beside one Redis

What must stay true: a ratio compares two cells of the same round; all processes of a cell share one core; a cell in
which a request failed or missed its key is not a cell. Only the standard library is used, so that the harness
measures the same wherever it runs.
"""
