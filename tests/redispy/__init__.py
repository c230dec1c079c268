"""redis-py's own tests as a judge of shoal: what passes on one plain Redis should pass through the proxy over shards.

    source     fetches redis-py's source distribution and makes a virtual environment for its tests
    recorder   a pytest plug-in inside that run: writes what becomes of each test, as it happens
    suite      runs the tests against one address, and goes on after a test that takes the whole run with it
    reasons    why a test failed, in a few classes, so that a long list says what to build next
    verdict    compares both runs and the file of expected failures
    report     says it, and keeps the figures
    __main__   starts servers and proxy, and the rest in order

`make test-redispy` runs it. Nothing of redis-py is kept in this project: its version and hash are (`source.lock`).
Must stay true: its tests run as they are; what cannot run here is left out by name and reason (expected_failures.toml).
"""
