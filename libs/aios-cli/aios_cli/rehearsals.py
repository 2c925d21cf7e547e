"""Files of tests for workflows: what they name is compiled here, and each test is tried."""

from pathlib import Path

from aios_cli.compiling import Compiler
from aios_cli.files import read_bytes
from aios_core.errors import TerminalError
from aios_orchestrator.cases import Rehearsed, cases_of
from aios_orchestrator.document import parse_plain
from aios_orchestrator.rehearsing import rehearse

FIELDS = ("files", "tests")


def rehearsed(file: Path) -> list[Rehearsed]:
    """What came of each test of a file. Raises what is wrong with the file, or with the workflows that it names."""
    data = parse_plain(read_bytes(str(file)), str(file))
    if not isinstance(data, dict) or set(data) - set(FIELDS):
        raise _wrong(file, "it is a map of `files` and `tests`")
    names = data.get("files")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _wrong(file, "`files` must be a list of files of workflows, beside this one")
    compiler = Compiler([str(file.parent / name) for name in names])
    compiler.check()
    told = []
    for at, case in enumerate(cases_of(data.get("tests"))):
        asked = data["tests"][at].get("workflow")
        known = compiler.workflows
        name = asked if asked is not None else next(iter(known)) if len(known) == 1 else ""
        if name not in known:
            raise _wrong(
                file, f"tests[{at}].workflow: there is no {name!r}; choose one of {', '.join(known)}"
            )
        try:
            told.append(rehearse(known[name], case))
        except TerminalError as error:
            told.append(Rehearsed(case.name, "refused", None, problems=[error.message]))
    return told


def _wrong(file: Path, words: str) -> TerminalError:
    return TerminalError("BAD_RESOURCE", f"{file}: {words}.", file=str(file))
