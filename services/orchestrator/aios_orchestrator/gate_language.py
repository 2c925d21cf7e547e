"""A gate, field by field."""

from typing import Final

from aios_orchestrator.computed_shapes import Computed
from aios_orchestrator.gating import MAX_APPROVERS, MAX_REMINDERS
from aios_orchestrator.shapes import (
    NAME,
    Choice,
    Duration,
    Field,
    Fields,
    Several,
    Share,
    Text,
    Whole,
)

TITLE: Final = Field(Computed(), "What a person sees first")
EXPIRES: Final = Field(Duration(), "How long it waits for a person, 30d without it")
_USER: Final = Text("the name of a user", NAME, "owner", "owner")
_CONFIDENCE: Final = Fields(
    {
        "of": Field(
            Computed(), "How sure something was, from 0 to 1, such as ${steps.sort.confidence}", True
        ),
        "at_least": Field(Share(), "From where on the gate passes by itself", True),
    }
)
_ESCALATE: Final = Fields(
    {
        "after": Field(Duration(), "How long nobody has decided", True),
        "to": Field(_USER, "The user who is asked as well then", True),
    }
)
_APPROVERS: Final = Fields(
    {
        "of": Field(
            Several(_USER, 1, MAX_APPROVERS, "a list of users", distinct=True), "Who may decide", True
        ),
        "need": Field(Whole(1, MAX_APPROVERS), "How many of them have to approve, 1 without it"),
    }
)
GATE: Final = Field(
    Fields(
        {
            "title": TITLE,
            "why": Field(Computed(), "Why it is to be done"),
            "risk": Field(Computed(), "What may go wrong"),
            "approves": Field(
                Several(Text("a step's name", NAME), distinct=True, about="a list of step names"),
                "The steps that are not done without it",
            ),
            "expires": EXPIRES,
            "fails": Field(
                Choice(("closed", "open")),
                "What happens when nobody decides in time: `closed` (as without it) stops the run, `open` approves",
            ),
            "confidence": Field(_CONFIDENCE, "At which confidence it passes without a person"),
            "remind": Field(
                Several(Duration(), most=MAX_REMINDERS, about="a list of durations"),
                "After which times a person is told again",
            ),
            "escalate": Field(_ESCALATE, "Who is asked as well when nobody decides"),
            "approvers": Field(_APPROVERS, "Who may decide, and how many have to"),
        }
    ),
    "A person approves exactly what the named steps would do",
)
