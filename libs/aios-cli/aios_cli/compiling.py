"""Documents compiled here, as the orchestrator does it: for what is to be checked or drawn before it is applied."""

from collections.abc import Sequence

from aios.api.v1 import api_pb2
from aios_cli.files import read_bytes
from aios_cli.session import Session
from aios_core.errors import TerminalError
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.resolve import compile_intent
from aios_orchestrator.schedule import compile_schedule
from aios_orchestrator.uses import bind, in_order, used
from aios_orchestrator.workflow import Workflow


class Compiler:
    """The documents of some files: `workflows` by name, and `errors`, one a document at most."""

    def __init__(self, files: Sequence[str]) -> None:
        """Raises what can't be read."""
        self.documents: list[Document] = []
        self.workflows: dict[str, Workflow] = {}
        self.errors: list[TerminalError] = []
        for name in files:
            text = read_bytes(name)
            try:
                self.documents += parse_documents(text, name)
            except TerminalError as error:
                self.errors.append(error)
        try:
            ordered = in_order(self.documents)
        except TerminalError as error:
            self.errors.append(error)
            return
        for document in [*ordered, *(other for other in self.documents if other.kind != "Workflow")]:
            try:
                self._compile(document)
            except TerminalError as error:
                self.errors.append(error)

    def check(self) -> None:
        """Raises the first error."""
        if self.errors:
            raise self.errors[0]

    def _compile(self, document: Document) -> None:
        if document.kind == "Intent":
            compile_intent(document)
            return
        if document.kind == "Schedule":
            compile_schedule(document)
            return
        found = {ref: self.workflows.get(ref) or _used(document, place, ref) for place, ref in used(document)}
        self.workflows[document.name] = compile_workflow(document, bind(document, found))


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
