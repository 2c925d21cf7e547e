"""Everything the author of a connector imports. No bus, no store: the host drives what is declared here."""

from aios_sdk.connector.actions import Action, Arguments, Call, Result, Spec, action
from aios_sdk.connector.answers import (
    CannotTell,
    Change,
    Conflict,
    Done,
    Looked,
    NotDone,
    Predicted,
    Rediscovered,
    Standing,
    Stands,
    Traced,
    Undone,
)
from aios_sdk.connector.artifacts import Artifacts
from aios_sdk.connector.connector import Connector
from aios_sdk.connector.effects import Effect, Idempotency, Inverse, Key, Lookup, Nothing, Rate

__all__ = [
    "Action",
    "Arguments",
    "Artifacts",
    "Call",
    "CannotTell",
    "Change",
    "Conflict",
    "Connector",
    "Done",
    "Effect",
    "Idempotency",
    "Inverse",
    "Key",
    "Looked",
    "Lookup",
    "NotDone",
    "Nothing",
    "Predicted",
    "Rate",
    "Rediscovered",
    "Result",
    "Spec",
    "Standing",
    "Stands",
    "Traced",
    "Undone",
    "action",
]
