"""Becomes an embedded server that ends when its parent ends. Run as a script: `launch.py PARENT_PID PROGRAM ARG...`

A parent that is killed cannot stop its children, so each asks the kernel beforehand: PR_SET_PDEATHSIG sends SIGTERM
when the thread that started it dies, and stays in force over exec. That thread must therefore be the main thread. If
the parent died before the call, nobody would send anything; so its pid is compared afterwards.

This is a process of its own, and not a `preexec_fn`, because Python code between fork and exec is unsafe in a program
with threads, and the data plane's workers are threads. It costs some 20 ms of start per shard. It imports nothing of
shoal, so that it can run with `python -I -S`.

Elsewhere than on Linux there is no such call: there a killed parent does leave its servers, and the data directory's
lock, which they inherit, keeps a second `shoal up` from starting on the same data until they are stopped by hand.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
EXIT_CANNOT_RUN = 127


def main() -> int:
    parent, program, arguments = int(sys.argv[1]), sys.argv[2], sys.argv[2:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
            print(f"launch: prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
            return EXIT_CANNOT_RUN
    if os.getppid() != parent:
        return EXIT_CANNOT_RUN
    # Python ignores these two for itself; the server shall find what a shell would give it.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(program, arguments)
    except OSError as error:
        print(f"launch: {program}: {error.strerror}", file=sys.stderr)
    return EXIT_CANNOT_RUN


if __name__ == "__main__":
    sys.exit(main())
