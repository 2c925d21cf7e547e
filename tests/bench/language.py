"""`make bench ARGS=--language`: how long a workflow of 200 steps takes to check, and to apply."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from aios.resource.v1.resource_pb2 import ApplyResourcesRequest
from aios_cli.compiling import Compiler
from aios_orchestrator import mapping
from aios_orchestrator.resources import ResourceBook
from aios_testing.store_memory import MemoryStore

STEPS = 200
ROUNDS = 10
HEAD = """apiVersion: aios/v1
kind: Workflow
metadata: {name: long}
spec:
  inputs: {type: object, properties: {n: {type: integer}, tags: {type: array, items: {type: string}}}}
  steps:
    - {name: s0, transform: {n: "${inputs.n + 1}", tags: "${inputs.tags.filter(t, t != '0')}"}}
"""
# Five steps with eight expressions, as documents have them; what they read is the transform before.
FIVE = """    - name: work{0}
      agent: worker
      when: "steps.s{1}.n > {0} && size(steps.s{1}.tags) > 0"
      input: {{n: "${{steps.s{1}.n}}", text: "part {0} of ${{inputs.n}}",
        tags: "${{steps.s{1}.tags.map(t, t + '-{0}')}}"}}
      gives: {{type: object, properties: {{text: {{type: string}}}}}}
    - {{name: route{0}, branch: {{cases: {{large: "inputs.n > {0}"}}, otherwise: small}}}}
    - {{name: ok{0}, when: "steps.route{0}.case == 'large'",
       gate: {{title: "Write ${{inputs.n}}", approves: [write{0}]}}}}
    - name: write{0}
      connector: files.write_file
      effect: write
      when: "steps.route{0}.case == 'large'"
      input: {{path: "out/{0}", content: "${{steps.work{0} != null ? steps.work{0}.text : 'none'}}"}}
    - {{name: s{0}, transform: {{n: "${{steps.s{1}.n + {0}}}", tags: "${{steps.s{1}.tags}}"}}}}
"""


def document() -> bytes:
    """A workflow of 200 steps, each of whose expressions is another."""
    rounds = "".join(FIVE.format(at, at - 1) for at in range(1, STEPS // 5))
    rest = "".join(f'    - {{name: end{at}, transform: "${{inputs.n * {at + 2}}}"}}\n' for at in range(4))
    return (HEAD + rounds + rest).encode()


async def figures() -> dict[str, float]:
    """Milliseconds of a processor, the median of ten: to check and to apply what was never seen, and what was."""
    text, found = document(), {}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "long.yaml"
        file.write_bytes(text)
        for name, seen in (("never seen", False), ("seen before", True)):
            lints, applies = [], []
            for _ in range(ROUNDS):
                mapping.forget() if not seen else None
                began = time.process_time()
                compiler = Compiler([str(file)])
                lints.append(time.process_time() - began)
                compiler.check()
                assert len(compiler.workflows["long"].steps) == STEPS
                mapping.forget() if not seen else None
                book = ResourceBook(MemoryStore(lambda: 0), "main", lambda: 0)
                began = time.process_time()
                await book.apply(ApplyResourcesRequest(workspace="main", yaml=text, file="long.yaml"))
                applies.append(time.process_time() - began)
            found[f"CPU ms to check {STEPS} steps, {name}"] = sorted(lints)[ROUNDS // 2] * 1000
            found[f"CPU ms to apply {STEPS} steps, {name}"] = sorted(applies)[ROUNDS // 2] * 1000
    return found
