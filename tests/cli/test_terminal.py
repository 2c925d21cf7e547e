"""What surrounds the commands: no server, wrong usage, terminals wide and narrow, pipes, zones, Ctrl-C, completion."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.served import Server, run

AIOS = [sys.executable, "-m", "aios_cli"]
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMANDS = (
    (),
    ("run", "list"),
    ("watch",),
    ("run", "start", "greet"),
    ("run", "show", "abcdef"),
    ("run", "watch", "abcdef"),
    ("run", "cancel", "abcdef"),
    ("run", "undo", "abcdef"),
    ("run", "simulate", "greet"),
    ("approval", "list"),
    ("approval", "show"),
    ("approval", "approve"),
    ("approval", "reject"),
    ("approval", "answer"),
    ("resource", "list"),
    ("resource", "show", "Workflow", "greet"),
    ("event", "list"),
    ("event", "publish", "x"),
    ("artifact", "get", "0" * 64),
    ("token", "list"),
)


def in_terminal(columns: int, *arguments: str, typed: bytes = b"", **environ: str) -> tuple[int, str]:
    """A command in a terminal of that width: its exit code and what it sent to the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    surroundings = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [*AIOS, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**surroundings, "TERM": "xterm-256color", **environ},
        start_new_session=True,
    )
    os.close(slave)
    os.write(master, typed)
    shown = bytearray()
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 65_536)
        except OSError:
            break  # the other side is closed
        if not part:
            break
        shown += part
    os.close(master)
    return process.wait(60), shown.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_server_every_command_says_how_to_start_one(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    said = run("--data-dir", str(tmp_path), *command)
    assert (said.code, said.out) == (4, "")
    assert said.err.startswith("No AIOS here; start it with `aios serve")
    told = run("--data-dir", str(tmp_path), *command, "--json")
    assert told.code == 4
    assert told.json["error"].keys() == {"code", "message", "remedy", "details"}
    assert told.json["error"]["code"] == "NO_SERVER"


def test_the_doctor_looks_at_the_machine_without_a_server_too(tmp_path: Path) -> None:
    said = run("--data-dir", str(tmp_path), "doctor", "--json")
    assert said.code == 4
    assert {check["name"] for check in said.json["checks"]} >= {"aios", "message bus", "server"}


def test_the_version_needs_no_server() -> None:
    assert run("version").out.startswith("aios ")
    assert run("version", "--json").json.keys() == {"version", "python"}
    assert run("--version").out == run("version").out


@pytest.mark.parametrize(
    "words",
    [("frobnicate",), ("run", "strat"), ("run", "show"), ("run", "list", "--limit", "many"), ("--nothing",)],
)
def test_wrong_usage_is_2_in_words_and_in_json(words: tuple[str, ...]) -> None:
    said = run(*words)
    assert (said.code, said.out) == (2, "")
    assert "Error:" in said.err
    told = run(*words, "--json")
    assert told.code == 2
    assert told.json["error"]["code"] == "USAGE"


def test_the_help_names_every_exit_code_that_scripts_meet() -> None:
    said = run("--help")
    assert said.code == 0
    for code in ("0 done", "3 it waits for a person", "4 no AIOS here", "130 interrupted"):
        assert code in " ".join(said.out.split())


def test_completion_offers_the_commands_of_a_group() -> None:
    asked = {**os.environ, "_AIOS_COMPLETE": "complete_bash", "COMP_WORDS": "aios run ", "COMP_CWORD": "2"}
    done = subprocess.run(AIOS, env=asked, capture_output=True, text=True, check=False, timeout=60)
    assert {"start", "undo", "watch"} <= set(done.stdout.split())


def test_a_wrong_token_is_not_allowed_and_not_repeated(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIOS_TOKEN", "aios_owner_wrong-secret")
    said = run("--address", server.ready["grpc"], "run", "list", "--json")
    assert (said.code, said.json["error"]["code"]) == (6, "UNAUTHENTICATED")
    assert "wrong-secret" not in said.out
    monkeypatch.delenv("AIOS_TOKEN")
    without = run("--address", server.ready["grpc"], "run", "list", "--json")
    assert (without.code, without.json["error"]["code"]) == (6, "UNAUTHENTICATED")


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(server: Server, columns: int) -> None:
    run_id = server.json("run", "start", "ask-first", "-i", f"name={'wide ' * 30}", "--wait")["run_id"]
    for command in (("run", "show", run_id), ("approval", "list"), ("run", "list"), ()):
        _, shown = in_terminal(columns, "--data-dir", str(server.data), *command)
        for line in STEERING.sub("", shown).splitlines():
            assert len(line) <= columns, line


def test_colour_is_for_terminals_that_want_it(server: Server) -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    server.json("run", "start", "ask-first", "-i", "name=Colour", "--wait")
    place = ("--data-dir", str(server.data))
    assert coloured.search(in_terminal(80, *place)[1])
    assert not coloured.search(in_terminal(80, *place, NO_COLOR="1")[1])
    piped = subprocess.run([*AIOS, *place], capture_output=True, text=True, check=True, timeout=60)
    assert "\x1b" not in piped.stdout


def test_a_question_is_asked_on_a_terminal_and_takes_a_number(server: Server) -> None:
    asked = server.json("run", "start", "question", "--wait")
    place = ("--data-dir", str(server.data))
    code, shown = in_terminal(
        80, *place, "approval", "answer", asked["pending_approvals"][0], "--wait", typed=b"nonsense\n2\n"
    )
    assert code == 0
    assert "Give the number of one of them." in shown
    assert server.json("run", "show", asked["run_id"])["outputs"] == {"answered": "blue"}


def test_without_a_terminal_nothing_is_asked(server: Server) -> None:
    asked = server.json("run", "start", "question", "--wait")
    done = subprocess.run(
        [
            *AIOS,
            "--data-dir",
            str(server.data),
            "approval",
            "answer",
            asked["pending_approvals"][0],
            "--json",
        ],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--answer color=" in json.loads(done.stdout)["error"]["message"]


def test_times_are_in_the_zone_of_the_person_and_utc_in_json(server: Server) -> None:
    ended = server.json("run", "start", "greet", "-i", "name=Zone", "--wait")
    hours = []
    for zone in ("UTC", "Asia/Tokyo"):
        done = subprocess.run(
            [*AIOS, "--data-dir", str(server.data), "run", "show", ended["run_id"]],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={**os.environ, "TZ": zone},
        )
        (hour,) = set(re.findall(r"^(\d\d):\d\d:\d\d ·", done.stdout, re.M))
        hours.append(int(hour))
    assert (hours[1] - hours[0]) % 24 == 9
    assert ended["create_time"].endswith("Z")


def test_a_reader_that_goes_away_is_no_error(server: Server) -> None:
    process = subprocess.Popen(
        [*AIOS, "--data-dir", str(server.data), "run", "list", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err


def test_ctrl_c_while_waiting_leaves_the_run_as_it_is(server: Server) -> None:
    document = server.place / "slow.yaml"
    document.write_text(
        "apiVersion: aios/v1\nkind: Workflow\nmetadata: {name: slow, title: Slow}\nspec:\n"
        "  inputs: {type: object, properties: {}}\n  steps:\n    - name: pause\n      wait: 10m\n"
    )
    server.json("apply", str(document))
    heeds = ["env", "--default-signal=INT"]  # who runs the tests in the background may have it ignored
    process = subprocess.Popen(
        [*heeds, *AIOS, "--data-dir", str(server.data), "run", "start", "slow", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert "started slow" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    (listed,) = server.json("run", "list", "--workflow", "slow")
    assert listed["state"] == "running"
    late = server.aios("--timeout", "0.5", "run", "watch", listed["run_id"])
    assert late.code == 8
    assert "The run goes on" in late.err
    assert server.json("run", "cancel", listed["run_id"])["state"] == "cancelled"
