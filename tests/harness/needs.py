"""What a test needs and the machine may not have, and the list of it at the end of the run.

A test asks with `need(binary, package)`. What is missing skips the test and is noted; the end of the run says which
Debian package would bring it. With SHOAL_REQUIRE_ALL=1 (continuous integration) a missing thing fails the test
instead, so that a suite can not shrink unseen.
"""

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Debian keeps daemons where an ordinary user's PATH does not lead.
EXTRA_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# (what is missing, what would bring it) -> tests that did without
missing: dict[tuple[str, str], set[str]] = {}


def need(binary: str, package: str) -> Path:
    """The path of a program, or the end of the test: skipped, and noted with the Debian package that has it."""
    path = shutil.which(binary) or shutil.which(binary, path=":".join(EXTRA_FOLDERS))
    if path is None:
        lack(binary, f"apt-get install {package}")
    return Path(path)


def lack(what: str, remedy: str) -> NoReturn:
    """Ends the test for want of something: skipped, or failed where everything is required."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "(collection)").split(" ")[0]
    missing.setdefault((what, remedy), set()).add(test)
    text = f"{what} is not on this machine: {remedy}"
    if os.environ.get("SHOAL_REQUIRE_ALL") == "1":
        pytest.fail(f"{text} (SHOAL_REQUIRE_ALL=1)", pytrace=False)
    pytest.skip(text)
