"""The `aios` command. Help has to be quick, so what is heavy is imported where it is used."""

import sys
from typing import Annotated

import typer

from aios_cli import options
from aios_cli.commands import (
    approvals,
    artifacts,
    backup,
    budgets,
    demo,
    events,
    failures,
    forks,
    migrations,
    notify,
    plans,
    queues,
    recording,
    resources,
    runs,
    schedules,
    schema,
    serve,
    simulating,
    system,
    tokens,
    undoing,
    workflows,
)
from aios_cli.exits import EPILOG, INTERRUPTED, USAGE, defect
from aios_cli.options import given, shared
from aios_core.errors import AiosError

app = typer.Typer(
    name="aios",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback(invoke_without_command=True, epilog=EPILOG)
@shared
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The operating layer of a one-person company. Alone: what needs you, what runs, what it cost."""
    if version:
        system.version(**dict.fromkeys(("json", "data_dir", "address", "timeout")))
        raise typer.Exit
    if context.invoked_subcommand is None:
        system.status()


app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
forks.add_to(runs.app)
migrations.add_to(runs.app)
recording.add_to(workflows.app)
undoing.add_to(runs.app)
simulating.add_to(runs.app)
app.add_typer(runs.app, name="run")
app.add_typer(approvals.app, name="approval")
app.add_typer(failures.app, name="failure")
app.add_typer(plans.app, name="plan")
app.command("apply")(resources.apply)
app.command("schema")(schema.schema)
app.add_typer(resources.app, name="resource")
app.add_typer(workflows.app, name="workflow")
app.add_typer(events.app, name="event")
app.add_typer(queues.app, name="queue")
app.add_typer(schedules.app, name="schedule")
app.add_typer(budgets.app, name="budget")
app.add_typer(artifacts.app, name="artifact")
app.add_typer(tokens.app, name="token")
app.add_typer(notify.app, name="notify")
app.add_typer(backup.app, name="backup")
app.command("watch")(system.watch)
app.command("doctor")(system.doctor)
app.command("version")(system.version)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options.reset()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(words)
        code = app(args=words, prog_name="aios", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except AiosError as error:
        from aios_cli.output import fail

        return fail(error)
    except typer.TyperException as error:
        return _usage(error, words)
    except (typer.Abort, KeyboardInterrupt):
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; nothing more can be said
        return 0
    except Exception as error:
        from aios_cli.output import fail

        return fail(defect(error))


def _check_text(words: list[str]) -> None:
    """Bytes of another encoding arrive as half characters, which nothing can carry further."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise typer.BadParameter(f"{word!r} is not UTF-8 text.") from None


def _usage(error: typer.TyperException, words: list[str]) -> int:
    if given.json or "--json" in words:
        from aios_cli.output import usage

        return usage(error.format_message())
    show = getattr(error, "show", None)
    if show is not None:
        show()
    return error.exit_code or USAGE


if __name__ == "__main__":
    sys.exit(main())
