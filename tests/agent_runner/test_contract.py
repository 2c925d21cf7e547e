"""The agents that ship: what they ask of the machine that runs them."""

import pytest

from aios_agent_runner.contract import load_agents

SANDBOXED = [name for name, agent in load_agents().items() if agent.spec.runtime == "sandbox"]


@pytest.mark.parametrize("name", SANDBOXED)
def test_agents_that_ship_are_content_with_one_process(name: str) -> None:
    """Several would need namespaces to keep them in bounds, which a restricted container has not."""
    assert load_agents()[name].spec.resources.processes == 1
