"""Resources: documents under a name, every version of them kept, compiled when they are used."""

import difflib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aios.event.v1.event_pb2 import Correlation
from aios.resource.v1 import resource_pb2 as pb
from aios_core.errors import RetryableError, TerminalError
from aios_core.hashing import sha256
from aios_core.ids import derive
from aios_orchestrator import plans
from aios_orchestrator.budget import Budget, compile_budget
from aios_orchestrator.checking import check_budget, check_intent, check_meant, check_workflow
from aios_orchestrator.correlation import MAX_CORRELATIONS
from aios_orchestrator.definition import compile_workflow
from aios_orchestrator.document import Document, parse_documents
from aios_orchestrator.language import checked
from aios_orchestrator.limits import Limit, compile_limit
from aios_orchestrator.mapping import Expression, Path, compile_expression
from aios_orchestrator.model import Run
from aios_orchestrator.problems import Problems
from aios_orchestrator.resolve import Intent, compile_intent
from aios_orchestrator.schedule import Schedule, compile_schedule
from aios_orchestrator.uses import in_order, used
from aios_orchestrator.workflow import Workflow
from aios_runtime.store.port import Committed, Store, Write

log = logging.getLogger(__name__)

COMPILED: Final = 256  # workflow versions kept compiled
PAGE: Final = 1000  # resources that are read at once


def resource_key(workspace: str, kind: str, name: str) -> str:
    """The aggregate of a resource: its head is the newest version, its records are all of them."""
    return f"{workspace}/resource/{kind}/{name}"


def _correlations_of(workspace: str, event_type: str) -> str:
    return f"{workspace}/correlation/{derive('type', event_type)}/"


class ResourceBook:
    """Reads and applies resources."""

    def __init__(self, store: Store, workspace: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        # Its revision counts what was applied, by whichever process.
        self._changes = f"{workspace}/book/changes"
        self._revision = 0
        self._workflows: OrderedDict[tuple[str, str, str], Workflow] = OrderedDict()
        self._grown: OrderedDict[tuple[object, ...], Workflow] = OrderedDict()
        self._newest: dict[tuple[str, str], str] = {}
        self._intents: dict[str, tuple[Intent, ...]] = {}
        self._schedules: dict[str, tuple[Schedule, ...]] = {}
        self._limits: dict[str, tuple[Limit, ...]] = {}
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        self.applied = 0
        """Counts what was applied, by this process or seen from others."""
        self.changed: Callable[[int], None] = lambda due_ms: None
        """Called when something was applied, with 0: whatever it changes is due now."""
        self._correlations: dict[str, dict[str, Path | Expression | None]] = {}

    async def refresh(self) -> None:
        """Forget which versions are the newest if another process has applied some since."""
        if not self._store.shared:
            return
        stored = await self._store.read(self._changes)
        revision = stored.revision if stored is not None else 0
        if revision != self._revision:
            self._revision = revision
            self._forget()

    def _forget(self) -> None:
        self.applied += 1
        self.changed(0)
        for known in (
            self._newest,
            self._intents,
            self._schedules,
            self._limits,
            self._budgets,
            self._correlations,
        ):
            known.clear()

    async def _tell_others(self) -> None:
        """After resources are committed: whoever reads what counts them reads those as well."""
        while self._store.shared:
            stored = await self._store.read(self._changes)
            revision = stored.revision if stored is not None else 0
            (result,) = await self._store.commit([Write(key=self._changes, expect=revision, head=b"")])
            if isinstance(result, Committed):
                return

    async def apply(self, request: pb.ApplyResourcesRequest) -> pb.ApplyResourcesResponse:
        """Check every document, then commit those that changed: all of them or none. Raises what a document breaks.

        The same request id again gets the first answer, with other content REQUEST_ID_REUSED.
        """
        if not request.request_id or request.dry_run:
            return await self._apply(request)
        key = f"{request.workspace}/apply/{request.request_id}"
        content = sha256(request.yaml, request.file.encode())
        known = await self._store.read(key)
        if known is None:
            answer = await self._apply(request)
            head = content + answer.SerializeToString(deterministic=True)
            await self._store.commit([Write(key=key, expect=0, head=head)])
            return answer
        if not known.head.startswith(content):
            raise TerminalError(
                "REQUEST_ID_REUSED",
                f"Request id {request.request_id!r} was used for another content.",
                field="request_id",
            )
        return pb.ApplyResourcesResponse.FromString(known.head[len(content) :])

    async def _apply(self, request: pb.ApplyResourcesRequest) -> pb.ApplyResourcesResponse:
        documents = parse_documents(request.yaml, request.file or "input")
        problems = Problems()
        names = [(document.kind, document.name) for document in documents]
        for at, name in enumerate(names):
            if name in names[:at]:
                message = f"{name[0]} {name[1]!r} stands twice."
                problems.add(documents[at].error("BAD_RESOURCE", "metadata.name", message))
        compiled = await self._check(request.workspace, documents, problems)
        problems.check()
        changes, writes = [], []
        for document in documents:
            change, write = await self._change(request, document)
            changes.append(change)
            writes += [write] if write else []
        waits = await self._waits(request.workspace, documents, compiled)
        if writes and not request.dry_run:
            # First by what events are looked up, then the workflows that wait by it.
            if waits:
                await self._store.commit(waits)
                await self._tell_others()
            self._correlations.clear()
            results = await self._store.commit(writes)
            if not all(isinstance(result, Committed) for result in results):
                raise RetryableError(
                    "CONFLICT", "Somebody else applied one of these at the same moment. Apply again."
                )
            self._forget()
        if not request.dry_run:
            # Also when nothing changed: whoever applied it before may not have come to it.
            await self._tell_others()
        return pb.ApplyResourcesResponse(applied=changes)

    async def _check(
        self, workspace: str, documents: Sequence[Document], problems: Problems
    ) -> dict[str, Workflow]:
        """Check the documents, those workflows first that others use, and pin what each uses to its version."""
        compiled: dict[str, Workflow] = {}
        broken: set[str] = set()
        for document in in_order(documents):
            found: dict[str, Workflow] = {}
            for place, ref in used(document):
                with problems.noting():
                    if ref in compiled:
                        found[ref] = compiled[ref]
                    elif ref not in broken:
                        found[ref] = await self._used(workspace, document, place, ref)
            workflow = check_workflow(document, found, problems)
            if workflow is None:
                broken.add(document.name)
            else:
                compiled[document.name] = workflow
        for document in documents:
            intent = check_intent(document, problems) if document.kind == "Intent" else None
            if intent is not None and intent.workflow not in broken:
                with problems.noting():
                    name = intent.workflow
                    meant = compiled.get(name) or await self._used(workspace, document, "spec.workflow", name)
                    check_meant(document, intent, meant, problems)
            if document.kind == "Limit":
                with problems.noting():
                    compile_limit(checked(document, problems))
            if document.kind == "Budget":
                budget = check_budget(document, problems)
                named = budget.of if budget is not None and budget.scope == "workflow" else ""
                if named and named not in compiled and named not in broken:
                    with problems.noting():
                        await self._used(workspace, document, "spec.of", named)
            if document.kind == "Schedule":
                with problems.noting():
                    name = compile_schedule(document).workflow
                    if name not in compiled and name not in broken:
                        await self._used(workspace, document, "spec.workflow", name)
        return compiled

    async def _waits(
        self, workspace: str, documents: Sequence[Document], compiled: Mapping[str, Workflow]
    ) -> list[Write]:
        """What has to be known of every event type that the workflows wait for. Raises BAD_RESOURCE when one type is
        waited for in too many ways."""
        new: dict[str, Write] = {}
        known: dict[str, set[str]] = {}
        for document in documents:
            for step in compiled[document.name].ordered if document.name in compiled else ():
                if step.hears is None:
                    continue
                kind, side = step.hears.event_type, step.hears.side
                sides = known.setdefault(kind, set(await self.correlations(workspace, kind)))
                if side in sides:
                    continue
                if len(sides) >= MAX_CORRELATIONS:
                    message = (
                        f"there are {len(sides)} other expressions by which {kind!r} is waited for; use one."
                    )
                    raise document.error("BAD_RESOURCE", f"{step.place}.wait.match", message)
                sides.add(side)
                key = f"{_correlations_of(workspace, kind)}{derive('by', side)}"
                head = Correlation(event_type=kind, expression=side).SerializeToString()
                new[key] = Write(key, 0, head)
        return list(new.values())

    async def correlations(self, workspace: str, event_type: str) -> Mapping[str, Path | Expression | None]:
        """The expressions by which workflows wait for events of a type, compiled; '' is by the type alone."""
        known = self._correlations.get(event_type)
        if known is None:
            page = await self._store.scan(_correlations_of(workspace, event_type), limit=MAX_CORRELATIONS)
            sides = [Correlation.FromString(item.head).expression for item in page.items]
            known = {side: compile_expression(side, "match") if side else None for side in sides}
            if len(self._correlations) >= COMPILED:  # types are from outside
                self._correlations.clear()
            self._correlations[event_type] = known
        return known

    async def _used(self, workspace: str, document: Document, place: str, ref: str) -> Workflow:
        name, _, version = ref.partition("@")
        try:
            return await self.workflow(workspace, name, version)
        except TerminalError as error:
            if error.code != "NOT_FOUND":
                raise
            raise document.error("BAD_RESOURCE", place, error.message) from None

    async def _change(
        self, request: pb.ApplyResourcesRequest, document: Document
    ) -> tuple[pb.Applied, Write | None]:
        key = resource_key(request.workspace, document.kind, document.name)
        stored = await self._store.read(key)
        newest = pb.Resource.FromString(stored.head) if stored is not None else None
        version = document.version()
        applied = pb.Applied(kind=document.kind, name=document.name, version=version, change="unchanged")
        if newest is not None and newest.version == version:
            return applied, None
        applied.change = "updated" if newest is not None else "created"
        resource = pb.Resource(
            workspace=request.workspace,
            kind=document.kind,
            name=document.name,
            version=version,
            document=document.canonical(),
            create_time_ms=self._now_ms(),
            generation=(newest.generation if newest is not None else 0) + 1,
            applied_by=request.actor,
        )
        data = resource.SerializeToString()
        index = {"resources": request.workspace, "kind": f"{request.workspace}/{document.kind}"}
        expect = stored.revision if stored is not None else 0
        return applied, Write(key=key, expect=expect, head=data, records={f"v/{version}": data}, index=index)

    async def get(self, workspace: str, kind: str, name: str, version: str = "") -> pb.Resource | None:
        """A resource, its newest version unless another is named."""
        key = resource_key(workspace, kind, name)
        if version:
            data = await self._store.record(key, f"v/{version}")
            return pb.Resource.FromString(data) if data is not None else None
        stored = await self._store.read(key)
        return pb.Resource.FromString(stored.head) if stored is not None else None

    async def listed(self, workspace: str, kind: str) -> list[pb.Resource]:
        """Resources of a kind (all kinds for ''), in the order of kind and name."""
        found, token = await self.page(workspace, kind, "", PAGE)
        while token:
            more, token = await self.page(workspace, kind, token, PAGE)
            found += more
        return found

    async def page(self, workspace: str, kind: str, token: str, limit: int) -> tuple[list[pb.Resource], str]:
        """A page of them, and the token of the next."""
        prefix = f"{workspace}/resource/{kind}/" if kind else f"{workspace}/resource/"
        page = await self._store.scan(prefix, token=token, limit=limit)
        return [pb.Resource.FromString(item.head) for item in page.items], page.next_token

    async def workflow(self, workspace: str, name: str, version: str = "") -> Workflow:
        """A compiled workflow. Raises NOT_FOUND, naming the nearest."""
        version = version or self._newest.get((workspace, name), "")
        key = (workspace, name, version)
        if version and key in self._workflows:
            self._workflows.move_to_end(key)
            return self._workflows[key]
        resource = await self.get(workspace, "Workflow", name, version)
        if resource is None:
            raise await self.unknown(workspace, "Workflow", name, version)
        compiled = self._workflows.get((workspace, name, resource.version))
        if compiled is None:
            compiled = await self._compiled(workspace, parse_documents(resource.document, f"{name}.yaml")[0])
        self._newest.setdefault((workspace, name), compiled.version) if not version else None
        self._workflows[(workspace, name, compiled.version)] = compiled
        while len(self._workflows) > COMPILED:
            self._workflows.popitem(last=False)
        return compiled

    async def followed(self, run: Run) -> Workflow:
        """The workflow that a run follows: its version, with the plans that it has adopted. Raises NOT_FOUND."""
        workflow = await self.workflow(run.workspace, run.workflow, run.workflow_version)
        if not run.plans:
            return workflow
        key = (
            run.workspace,
            workflow.version,
            tuple((name, run.plans[name].version) for name in sorted(run.plans)),
        )
        known = self._grown.get(key)
        if known is None:
            known = plans.grown(workflow, {name: plan.plan for name, plan in run.plans.items()})
            self._grown[key] = known
            while len(self._grown) > COMPILED:
                self._grown.popitem(last=False)
        return known

    async def _compiled(self, workspace: str, document: Document) -> Workflow:
        """A stored document names the versions of all that it uses, which were there before it."""
        found = {ref: await self.workflow(workspace, *ref.split("@", 1)) for _, ref in used(document)}
        return compile_workflow(document, found)

    async def unknown(self, workspace: str, kind: str, name: str, version: str) -> TerminalError:
        """What to say of a resource that isn't there: NOT_FOUND, with the nearest name."""
        names = [resource.name for resource in await self.listed(workspace, kind)]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(names) or 'none yet'}."
        what = f"{kind.lower()} {name[:80]!r}"
        if version and name in names:
            what, hint = f"version {version[:80]!r} of the {what}", ""
        field = "workflow" if kind == "Workflow" else "name"
        return TerminalError("NOT_FOUND", f"There is no {what}.{hint}", field=field)

    async def intents(self, workspace: str) -> tuple[Intent, ...]:
        """Every compiled intent of a workspace."""
        known = self._intents.get(workspace)
        if known is None:
            resources = await self.listed(workspace, "Intent")
            known = tuple(
                compile_intent(parse_documents(item.document, f"{item.name}.yaml")[0]) for item in resources
            )
            self._intents[workspace] = known
        return known

    async def budgets(self, workspace: str) -> tuple[Budget, ...]:
        """Every compiled budget of a workspace."""
        known = self._budgets.get(workspace)
        if known is None:
            resources = await self.listed(workspace, "Budget")
            known = tuple(
                compile_budget(parse_documents(item.document, f"{item.name}.yaml")[0]) for item in resources
            )
            self._budgets[workspace] = known
        return known

    async def schedules(self, workspace: str) -> tuple[Schedule, ...]:
        """Every compiled schedule of a workspace."""
        known = self._schedules.get(workspace)
        if known is None:
            resources = await self.listed(workspace, "Schedule")
            found = []
            for item in resources:
                try:
                    document = parse_documents(item.document, f"{item.name}.yaml")[0]
                    found.append(compile_schedule(document))
                except TerminalError as error:  # such as a time zone that is no more
                    log.warning("schedule %s is left out: %s", item.name, error.message)
            self._schedules[workspace] = known = tuple(found)
        return known

    async def limits(self, workspace: str) -> tuple[Limit, ...]:
        """Every compiled limit of a workspace."""
        known = self._limits.get(workspace)
        if known is None:
            resources = await self.listed(workspace, "Limit")
            known = tuple(
                compile_limit(parse_documents(item.document, f"{item.name}.yaml")[0]) for item in resources
            )
            self._limits[workspace] = known
        return known

    async def schedule(self, workspace: str, name: str) -> Schedule:
        """A compiled schedule. Raises NOT_FOUND, naming the nearest."""
        for schedule in await self.schedules(workspace):
            if schedule.name == name:
                return schedule
        raise await self.unknown(workspace, "Schedule", name, "")
