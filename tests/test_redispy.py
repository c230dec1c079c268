"""The verdict over redis-py's tests: what counts, what is expected, and what makes `make test-redispy` fail.

The suite itself takes many minutes and is not run here.
"""

from pathlib import Path

import pytest
from redispy.reasons import reason
from redispy.suite import Outcome
from redispy.verdict import Book, Entry, judge, matches, read_book

BOOK = Path(__file__).resolve().parent / "redispy" / "expected_failures.toml"


def outcomes(**results: str) -> dict[str, Outcome]:
    return {test: Outcome(test, result, spoke=True) for test, result in results.items()}


def test_only_what_passes_on_the_plain_server_counts() -> None:
    verdict = judge(outcomes(a="passed", b="failed", c="skipped"), outcomes(a="passed", b="failed", c="failed"), Book())
    assert (verdict.plain, verdict.passed, verdict.share, verdict.good) == (["a"], ["a"], 1.0, True)


def test_a_run_in_which_nothing_counts_is_not_good() -> None:
    skipped = outcomes(a="skipped")
    assert not judge(skipped, skipped, Book()).good


def test_a_failure_must_be_in_the_file() -> None:
    plain, through = outcomes(a="passed", b="passed"), outcomes(a="passed", b="failed")
    assert [outcome.test for outcome in judge(plain, through, Book()).unexpected] == ["b"]
    book = Book((Entry("expected", "why", ("b",)),))
    verdict = judge(plain, through, book)
    assert (verdict.good, verdict.expected, verdict.share) == (True, {"b": "why"}, 0.5)


def test_an_expected_failure_that_passes_and_an_entry_without_a_test_are_faults() -> None:
    plain = outcomes(a="passed")
    assert judge(plain, plain, Book((Entry("expected", "why", ("a",)),))).now_passing == {"a": "why"}
    assert judge(plain, plain, Book((Entry("flaky", "why", ("gone*",)),))).unused == ["gone*"]


def test_flaky_tests_do_not_count_and_second_tries_do() -> None:
    plain, through = outcomes(a="passed", b="passed"), outcomes(a="failed", b="failed")
    verdict = judge(plain, through, Book((Entry("flaky", "why", ("a",)),)), second_try=["b"])
    assert (verdict.plain, verdict.passed, verdict.good) == (["b"], ["b"], True)


def test_brackets_are_part_of_names() -> None:
    assert matches("tests/a.py::*::test_x[single]", "tests/a.py::TestA::test_x[single]")
    assert not matches("test_x[single]", "test_xs")


@pytest.mark.parametrize(
    ("error", "name"),
    [
        ("ResponseError: CROSSSLOT 'sunion' has keys on different shards: a, b", "keys on several shards: sunion"),
        ("ResponseError: 'exec' is not supported yet", "refused: exec"),
        ("ResponseError: unknown command 'FOO', with args beginning with: ", "unknown command: FOO"),
        ("AssertionError: assert 1 == 2", "another answer than one Redis gives"),
        ("Failed: Timeout >20.0s", "hangs"),
        ("", "without a message"),
    ],
)
def test_failures_are_put_into_classes(error: str, name: str) -> None:
    assert reason(Outcome("t", "failed", "call", error)) == name


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_file_of_expected_failures_can_be_read(protocol: int) -> None:
    assert read_book(BOOK, protocol).left_out("tests/test_connection.py::test_create_single_connection_client_from_url")


def test_a_kind_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "book.toml"
    file.write_text('[[expcted]]\nreason = "x"\ntests = ["a"]\n')
    with pytest.raises(ValueError, match="expcted"):
        read_book(file, 2)
