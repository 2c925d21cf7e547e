"""Where a person or an environment gives a number as a text, what only looks like one is told, and is no defect."""

from pathlib import Path

import pytest
import typer

from aios.run.v1.state_pb2 import Question
from aios_cli.asking import ask
from aios_cli.editing import _put
from aios_cli.launcher.settings import _port
from aios_core.errors import TerminalError
from aios_core.values import Plain
from aios_runtime.bus.endpoint import read_port

pytestmark = pytest.mark.feature("L3")

ODD = ["²", "-1", "", "1.5", "9" * 5_000]


@pytest.mark.parametrize("text", [*ODD, "65536"])
def test_a_port(tmp_path: Path, text: str) -> None:
    assert _port("AIOS_GRPC_PORT", "65535") == 65_535
    with pytest.raises(TerminalError, match="a port is a number from 0 to 65535"):
        _port("AIOS_GRPC_PORT", text)
    place = tmp_path / "port"
    place.write_text(f"127.0.0.1:{text}")
    assert read_port(place) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [([1], "there is 0 alone"), ([1, 2], "there is 0 to 1"), ([], "there is nothing below it")],
)
def test_a_place_in_a_list(data: list[Plain], says: str) -> None:
    assert _put([1, 2, 3], ["2"], 4, "2=4") == [1, 2, 4]
    for text in (*ODD, "7"):
        with pytest.raises(TerminalError, match=says):
            _put(data, [text], 4, f"{text}=4")


def test_an_answer_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    given = iter([*ODD, "3", "2"])
    monkeypatch.setattr(typer, "prompt", lambda words: next(given))
    assert ask(Question(id="q", text="Which?", options=["a", "b"])) == "b"
