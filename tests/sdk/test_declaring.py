"""A declaration that promises what its class does not do is refused at import."""

from pathlib import Path
from typing import Any

import pytest

from aios_sdk.connector import Action, Effect, Inverse, Key, Lookup, Nothing, action
from tests.sdk import toy

FULL: dict[str, Any] = {"input": toy.Send, "output": toy.Sent, "captured": toy.Before}


@pytest.mark.parametrize(
    ("declared", "base", "says"),
    [
        ({"effect": Effect.READ}, Action, "must define perform"),
        ({"effect": Effect.IRREVERSIBLE, "captured": None}, toy.SendBase, "declare the model `captured`"),
        ({"effect": Effect.REVERSIBLE}, toy.WithLookup, "declare its inverse"),
        ({"effect": Effect.COMPENSABLE, "inverse": Inverse("x", True)}, toy.SendBase, "must define undo"),
        (
            {"effect": Effect.IRREVERSIBLE, "inverse": Inverse("x", True)},
            toy.SendBase,
            "can't have an inverse",
        ),
        ({"effect": Effect.IRREVERSIBLE, "idempotency": Lookup()}, toy.SendBase, "must define lookup"),
        ({"effect": Effect.IRREVERSIBLE, "idempotency": Key(0)}, toy.SendBase, "remembers_ms"),
        ({"effect": Effect.IRREVERSIBLE, "steering": ("too",)}, toy.SendBase, "no such input field: too"),
    ],
)
def test_a_promise_that_is_not_kept_is_a_type_error(declared: dict[str, Any], base: type, says: str) -> None:
    class Declared(base):  # type: ignore[misc]
        pass

    with pytest.raises(TypeError, match=says):
        action("send", **{**FULL, **declared})(Declared)


def test_a_connector_describes_each_action(tmp_path: Path) -> None:
    described = toy.connector(toy.World(tmp_path / "world"), Nothing(), lookup=False).describe()
    send = described["actions"]["send"]
    assert (send["effect"], send["idempotency"], send["steering"]) == ("irreversible", "nothing", ["to"])
    assert send["input"]["required"] == ["to"]
