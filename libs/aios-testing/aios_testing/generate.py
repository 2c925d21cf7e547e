"""Generates the Python code of the protos: `python -m aios_testing.generate <folder>`.

Messages and their types for every proto; stubs of services for the client API alone, since services talk over the bus.
"""

import os
import sys
from importlib import resources
from pathlib import Path
from typing import Final

from grpc_tools import protoc

PROTO: Final = Path(__file__).resolve().parents[3] / "proto"
SERVED: Final = "aios/api/"


def generate(target: Path) -> list[Path]:
    """Write the code below `target`; returns the files, relative to it. Raises RuntimeError when protoc refuses."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    served = [source for source in sources if source.startswith(SERVED)]
    _protoc([f"--python_out={target}", f"--mypy_out={target}", *sources])
    _protoc([f"--grpc_python_out={target}", f"--mypy_grpc_out={target}", *served])
    for source in sources:
        for outdated in target.joinpath(source).parent.glob("*_pb2_grpc.py*"):
            if not source.startswith(SERVED):
                outdated.unlink()
    return sorted(
        path.relative_to(target)
        for path in target.joinpath("aios").rglob("*_pb2*.py*")
        if path.suffix != ".pyc"
    )


def _protoc(arguments: list[str]) -> None:
    # the plugins for type stubs are programs beside the interpreter
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    included = str(resources.files("grpc_tools") / "_proto")
    if protoc.main(["protoc", f"--proto_path={PROTO}", f"--proto_path={included}", *arguments]) != 0:
        raise RuntimeError("protoc refuses the protos; it says why above.")


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
