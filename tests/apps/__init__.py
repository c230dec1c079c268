"""Applications as a judge of shoal: real packages, unmodified and with their defaults, do their main job through it.

    book          the applications: what is run, what shoal needs to know for it, the steps that must come
    environments  where each package is installed, from lock files with hashes; made once, in .cache/apps
    jobs, node    the programs: each does a job with a package, starts the worker that the package brings, and checks
    go, java      the results
    run           runs one job against one address and judges what it printed
    keys          which keys a job uses together, seen by MONITOR on one plain server; for the presets' own test
    report        the table, and the record
    __main__      starts servers and proxy, and the rest in order

`make test-apps` runs it: each job through shoal over four redis-servers, with the settings that
docs/guides/applications.md gives for it and no other. `--plain` runs the same jobs on one plain server, which proves
the jobs themselves. Not part of CI: it fetches many packages.
Must stay true: nothing in a job knows of shoal; only the address differs.
"""
