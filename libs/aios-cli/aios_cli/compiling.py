"""Documents compiled here, as the orchestrator does it: for what is to be checked or drawn before it is applied."""

from collections.abc import Sequence

from aios.api.v1 import api_pb2
from aios_cli.files import read_bytes
from aios_cli.session import Session
from aios_core.errors import TerminalError
from aios_orchestrator.checking import check_budget, check_intent, check_meant, check_workflow
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.language import checked
from aios_orchestrator.limits import compile_limit
from aios_orchestrator.problems import Problems
from aios_orchestrator.schedule import compile_schedule
from aios_orchestrator.uses import in_order, used
from aios_orchestrator.workflow import Workflow


class Compiler:
    """The documents of some files: `workflows` by name, `problems`, and `errors`, all of them."""

    def __init__(self, files: Sequence[str]) -> None:
        """Raises what can't be read."""
        self.documents: list[Document] = []
        self.workflows: dict[str, Workflow] = {}
        self.problems = Problems()
        for name in files:
            text = read_bytes(name)
            with self.problems.noting():
                self.documents += parse_documents(text, name)
        with self.problems.noting():
            for document in in_order(self.documents):
                self._workflow(document)
        for document in self.documents:
            if document.kind == "Intent":
                self._intent(document)
            elif document.kind == "Schedule":
                with self.problems.noting():
                    compile_schedule(document)
            elif document.kind == "Budget":
                check_budget(document, self.problems)
            elif document.kind == "Limit":
                with self.problems.noting():
                    compile_limit(checked(document, self.problems))

    @property
    def errors(self) -> list[TerminalError]:
        """All that is wrong, as it stands in the files."""
        return self.problems.in_order()

    def check(self) -> None:
        """Raises the first error, with the others."""
        self.problems.check()

    def _workflow(self, document: Document) -> None:
        found: dict[str, Workflow] = {}
        for place, ref in used(document):
            with self.problems.noting():
                found[ref] = self.workflows.get(ref) or _used(document, place, ref)
        workflow = check_workflow(document, found, self.problems)
        if workflow is not None:
            self.workflows[document.name] = workflow

    def _intent(self, document: Document) -> None:
        """An intent is checked with its workflow where that is among the files."""
        intent = check_intent(document, self.problems)
        meant = self.workflows.get(intent.workflow) if intent is not None else None
        if intent is not None and meant is not None:
            check_meant(document, intent, meant, self.problems)


def _used(document: Document, place: str, ref: str) -> Workflow:
    name, _, version = ref.partition("@")
    try:
        return applied(name, version)
    except TerminalError as error:
        raise document.error(
            "BAD_RESOURCE", place, f"{name!r} is not among these files, and not to be had: {error.message}"
        ) from None


def applied(name: str, version: str = "") -> Workflow:
    """A workflow that was applied, its newest version unless another is named. Raises NOT_FOUND, NO_SERVER."""
    with Session() as session:
        return _applied(session, name, version, {})


def _applied(session: Session, name: str, version: str, known: dict[str, Workflow]) -> Workflow:
    request = api_pb2.GetResourceRequest(kind="Workflow", name=name, version=version)
    resource = session.client.call(session.client.resources.GetResource, request).resource
    document = parse_documents(resource.document, f"{name}.yaml")[0]
    for _, ref in used(document):
        if ref not in known:
            child, _, pinned = ref.partition("@")
            known[ref] = _applied(session, child, pinned, known)
    return compile_workflow(document, known)
