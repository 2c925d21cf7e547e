"""What a code agent answers, before it becomes a step's output."""

from typing import Any

import pytest

from aios_agent_runner.materialize import answer_of, output_of
from aios_core.errors import TerminalError
from aios_core.values import Pointer

pytestmark = pytest.mark.feature("E1")

SHA = "ab" * 32
MADE = {"a.txt": Pointer(SHA, 3)}


def test_the_files_that_an_agent_leaves_stand_beside_what_it_answers() -> None:
    answer = answer_of("writer", b'{"n": 1.50}')
    assert output_of("writer", answer, {}) == answer
    output: Any = output_of("writer", answer, MADE)
    assert str(output["n"]) == "1.50"
    assert output["artifacts"] == MADE


@pytest.mark.parametrize(
    ("response", "says"),
    [
        (f'{{"$artifact": "{SHA}", "size": 3}}', "its answer is an artifact, not a map"),
        ('{"$bytes": "YQ=="}', "its answer is bytes, not a map"),
        ('{"file": {"$artifact": "zz"}}', r"\$artifact is a SHA-256 in 64 digits from 0 to f, not 'zz'"),
        ('{"n": 99999999999999999999999999', "not readable JSON"),
        ("[" * 5000, "nested"),
        ("[1]", "its answer is a list, not a map"),
    ],
)
def test_an_answer_that_no_step_can_have_as_its_output_fails_it_and_says_why(
    response: str, says: str
) -> None:
    """A pointer or bytes in the place of the whole answer were a defect of the runner, not the agent's failure."""
    with pytest.raises(TerminalError, match=f"The agent writer: .*{says}") as caught:
        output_of("writer", answer_of("writer", response.encode()), {})
    assert caught.value.code == "AGENT_BAD_OUTPUT"
