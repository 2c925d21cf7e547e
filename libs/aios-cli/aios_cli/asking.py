"""Answers to an approval's questions: from the command line, else asked for on a terminal."""

import sys
from collections.abc import Mapping, Sequence

import typer

from aios.run.v1.state_pb2 import Approval, Question
from aios_cli.words import clean
from aios_core.errors import TerminalError
from aios_core.values import Plain


def answers(item: Approval, text: str, pairs: Sequence[str]) -> Mapping[str, Plain]:
    """An answer for each question, by its id. Whether it is a good one is the server's to say.

    Raises INVALID_ARGUMENT when one is missing and there is nobody to ask.
    """
    said = dict(_pair(pair) for pair in pairs)
    questions = list(item.questions)
    if not questions:
        raise TerminalError(
            "INVALID_ARGUMENT", "This asks nothing; approve it or reject it.", field="approval"
        )
    if text:
        if len(questions) != 1:
            ids = ", ".join(question.id for question in questions)
            raise TerminalError(
                "INVALID_ARGUMENT", f"It asks {len(questions)} things ({ids}): give --answer for each."
            )
        said.setdefault(questions[0].id, text)
    for question in questions:
        if question.id not in said:
            if not sys.stdin.isatty():
                raise TerminalError(
                    "INVALID_ARGUMENT", f"{question.text} Give --answer {question.id}=…", field=question.id
                )
            said[question.id] = ask(question)
    return dict(said)


def ask(question: Question) -> str:
    """Ask on the terminal until there is an answer: a number for an option, or text."""
    typer.echo(f"\n{clean(question.text)}")
    if question.why:
        typer.echo(clean(question.why))
    for number, option in enumerate(question.options, 1):
        typer.echo(f"  {number}  {clean(option)}")
    free = bool(question.pattern) or not question.options
    while True:
        given = typer.prompt("Number or answer" if question.options else "Answer").strip()
        number = int(given) if given.isdecimal() and len(given) < 4 else 0
        if 1 <= number <= len(question.options) and given not in question.options:
            return question.options[number - 1]
        if given in question.options or free:
            return str(given)
        typer.echo("Give the number of one of them.")


def _pair(text: str) -> tuple[str, str]:
    key, equals, answer = text.partition("=")
    if not equals or not key:
        raise TerminalError("INVALID_ARGUMENT", f"--answer {text!r} must be QUESTION=TEXT.", field="answer")
    return key, answer
