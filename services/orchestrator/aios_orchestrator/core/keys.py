"""What an answer is kept under, so that the same question has the same answer for a while."""

from aios_core.encoding import encode
from aios_core.hashing import sha256
from aios_orchestrator.core.draft import Draft, target_of
from aios_orchestrator.modes import word_of
from aios_orchestrator.workflow import Step, path_of


def cache_key(draft: Draft, step: Step, data: bytes) -> bytes:
    """The SHA-256 of what a step asks; empty where its answer is not kept, and where a person has it done anew. `data`
    is its canonical input, labels included. Raises what the key's expression gets wrong.

    A key that the document computes is its step's own: what two steps mean by the same words may differ."""
    run, cache = draft.run, step.cache
    if cache is None or draft.run.at(step.name).attempt_group > 1:
        return b""
    change = run.change_of(path_of(step.name))
    asked = [run.workspace, target_of(run, step)]
    asked += [change.model, change.prompt] if change is not None else ["", ""]
    asked += [word_of(step.mode)] if step.mode else []
    if cache.key is not None:
        data = encode(cache.key.evaluate(draft.look_from(step.scope)))
        asked += [run.workflow, path_of(step.name)]
    return sha256("\0".join(asked).encode(), b"\0", data)
