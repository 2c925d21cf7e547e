"""CEL without the library's own command line, whose imports would take a third of every start.

The package imports its command line whenever it is imported; an empty module in its place keeps that away.
"""

import sys
from types import ModuleType

sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))

import cel  # noqa: E402 - after its command line was put aside

compile_expression = cel.compile
"""Compile CEL; raises ValueError. The program has `variables()` and `execute(context)`."""
