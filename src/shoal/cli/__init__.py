"""The command line: `shoal VERB ...`.

One file per verb; this one holds the group, the entry point and what happens to errors: whatever is raised on
purpose becomes `shoal: ...` on standard error and its exit code, never a traceback. Results go to standard output,
the log to standard error. Verbs import what they need when they run, so that `--help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from shoal.cli.check import check
from shoal.cli.import_nutcracker import import_nutcracker
from shoal.cli.key import key
from shoal.cli.options import EXIT_CODES_HELP
from shoal.cli.ring import ring
from shoal.cli.serve import serve
from shoal.cli.up import up
from shoal.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, ShoalError


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from shoal.core import core_version

        click.echo(f"shoal {core_version()}")
        context.exit()


@click.group(
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def root() -> None:
    """Make many Redis or Valkey servers behave as one.

    An application keeps its ordinary client and its ordinary commands; shoal knows which server holds each key,
    speaks to it, and puts the answers together.

    \b
    Try it, with four servers of its own:
      shoal up
      redis-cli -p 6380 set user:42 hello
    \b
    Over servers that exist:
      shoal serve --shard 10.0.0.1:6379 --shard 10.0.0.2:6379
      shoal check shoal.toml && shoal serve shoal.toml
    \b
    Where does a key live?
      shoal key user:42 --config shoal.toml
    \b
    Are keys spread evenly, and what would another distribution move?
      shoal ring shoal.toml --to other.toml
    \b
    From Twemproxy:
      shoal serve --nutcracker nutcracker.yml
    """


for _verb in (up, serve, check, key, ring, import_nutcracker):
    root.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line and answers its exit code; the entry point of the program."""
    _open_standard_streams()
    try:
        result = root.main(arguments, prog_name="shoal", standalone_mode=False)
        sys.stdout.flush()
    except ShoalError as error:
        _complain(error.lines())
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.ClickException as error:
        _complain([_usage_line(error)])
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_FAILURE
    except BrokenPipeError:
        # Whoever read our output has seen enough (`shoal check ... | head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE
    return result if isinstance(result, int) else EXIT_OK


def _open_standard_streams() -> None:
    """Puts /dev/null in the place of closed standard streams.

    Otherwise the first sockets would get their numbers, and whatever is written to standard error would go to a client.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    # Python leaves these None when the stream was closed at its start.
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  (open until the end)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _usage_line(error: click.ClickException) -> str:
    text = error.format_message().rstrip(".")
    text = text[:1].lower() + text[1:] if text[1:2].islower() else text
    if isinstance(error, click.UsageError) and error.ctx is not None:
        text += f" (see {error.ctx.command_path} --help)"
    return " ".join(text.split())


def _complain(lines: Sequence[str]) -> None:
    for line in lines:
        click.echo(f"shoal: {line}", err=True)
