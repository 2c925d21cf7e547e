"""How the three processes speak. Imported on both sides of the wall, so it imports next to nothing.

Control socket (runner and zygote, sequenced packets; one packet is one message):
    runner → zygote   CONFIG (JSON), SPAWN call (with the child's end of its call socket), KILL call
    zygote → runner   HELLO (JSON), FAILED (a sentence), EXIT call, wait status, user and system seconds, peak KiB

Call socket (runner and child, a stream):
    runner → child    header length, request length, header (JSON), request; descriptors ride on the first byte
    child → runner    OUT with a descriptor of the call's `out` directory, then one of RESPONSE or ERROR
"""

import struct
from typing import Final

CONFIG: Final = b"C"
SPAWN: Final = b"S"
KILL: Final = b"K"
HELLO: Final = b"H"
FAILED: Final = b"F"
EXIT: Final = b"E"

COMMAND: Final = struct.Struct("<cQ")  # verb, call
EXITED: Final = struct.Struct("<cQiddQ")  # verb, call, wait status, user s, system s, peak resident KiB
NOT_FORKED: Final = -1  # in place of the wait status: the kernel refused the fork

REQUEST: Final = struct.Struct("<II")  # bytes of header, bytes of request
TABLE: Final = struct.Struct(
    "<I"
)  # bytes of the table at the head of a shared file: JSON of [name, bytes], then them
FRAME: Final = struct.Struct("<cI")  # kind, bytes that follow

OUT: Final = b"O"
RESPONSE: Final = b"R"
ERROR: Final = b"X"

MAX_PACKET: Final = 128 * 1024  # bytes of a control message
MAX_HEADER: Final = 64 * 1024  # bytes of a call's header
MAX_DESCRIPTORS: Final = 250  # in one message; the kernel's own limit is 253
INLINE_REQUEST: Final = (
    32 * 1024
)  # a larger request travels as a memory file, so that one send is never partial
MAX_ERROR: Final = 16 * 1024  # bytes of an ERROR frame

# Kinds of an ERROR frame.
AGENT_RAISED: Final = "raised"
OUT_OF_MEMORY: Final = "memory"
BAD_ANSWER: Final = "answer"
ANSWER_TOO_LARGE: Final = "too-large"
NOT_SET_UP: Final = "setup"
