"""The syntax of a CEL expression, as far as checking its types needs it. The program that runs is the library's own;
what this can't read is not checked, and never refused for it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

MACROS: Final = ("map", "filter", "all", "exists", "exists_one")
MAX_DEPTH: Final = 60  # brackets within brackets; the library refuses what is not much deeper

MAX_KEPT: Final = 8192  # trees
MAX_TREE: Final = 150  # nodes below each other

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<text>[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
      |(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+|\d+[uU]?)
      |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
      |(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])
    )""",
    re.VERBOSE | re.DOTALL,
)
_STEP_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LEVELS: Final = (("||",), ("&&",), ("==", "!=", "<", "<=", ">", ">=", "in"), ("+", "-"), ("*", "/", "%"))
_LEVEL: Final = {sign: level for level, signs in enumerate(_LEVELS) for sign in signs}


@dataclass(frozen=True, slots=True)
class Node:
    """One node: `op` is `constant` (`value`), `name`, `field`, `index`, `call`, `method` (`value` is the name), `list`,
    `map` (keys and values in turn), `not`, `minus`, `?`, or the sign of what stands between two. `text` is its source.
    """

    op: str
    text: str
    args: "tuple[Node, ...]" = ()
    value: Any = None
    depth: int = 1


@lru_cache(maxsize=MAX_KEPT)
def parse(text: str) -> Node:
    """The syntax tree of an expression. Raises ValueError for what this does not read."""
    parser = _Parser(text)
    node = parser.expression()
    if parser.kind:
        raise ValueError(f"there is {parser.token!r} too much")
    return node


def nodes(tree: Node) -> Iterator[Node]:
    """A tree's node and all below it."""
    yield tree
    for arg in tree.args:
        yield from nodes(arg)


def nesting(tree: Node) -> int:
    """How many of the macros that go over a list stand in each other at most."""
    inner = [nesting(arg) for arg in tree.args]
    if tree.op == "method" and tree.value in MACROS and len(inner) > 2:
        return max(inner[0], 1 + max(inner[1:]))
    return max(inner, default=0)


class _Parser:
    """Reads one token ahead: `kind` ('' at the end), `token`, and where it began."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.kind, self.token, self.begins, self.ended = "", "", 0, 0
        self.go_on()

    def go_on(self) -> str:
        """The present token; the next one becomes present."""
        token, self.ended = self.token, self.at
        found = _TOKEN.match(self.text, self.at)
        if found is None:
            if self.text[self.at :].strip():
                raise ValueError(f"unreadable at character {self.at + 1}")
            self.kind = self.token = ""
            self.begins = self.at = len(self.text)
        else:
            self.kind = str(found.lastgroup)
            self.token = found[self.kind]
            self.begins, self.at = found.start(self.kind), found.end()
        return token

    def take(self, *signs: str) -> str:
        """The present token if it is one of these signs, which is then behind; else ''."""
        wanted = self.token in signs and (self.kind == "sign" or self.token == "in")
        return self.go_on() if wanted else ""

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise ValueError(f"{sign!r} is missing")

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError("nested too deeply")
        begins, node = self.begins, self.level(0)
        if self.take("?"):
            then = self.level(0)
            self.need(":")
            node = self.node("?", begins, node, then, self.expression())
        self.depth -= 1
        return node

    def level(self, least: int) -> Node:
        """What is bound by signs of at least this level."""
        begins, node = self.begins, self.unary()
        while (level := self.binds()) >= least:
            sign = self.go_on()
            node = self.node(sign, begins, node, self.level(level + 1))
        return node

    def binds(self) -> int:
        """How strongly the present token binds what is around it; -1 if it doesn't."""
        return _LEVEL.get(self.token, -1) if self.kind == "sign" or self.token == "in" else -1

    def unary(self) -> Node:
        begins, signs = self.begins, []
        while sign := self.take("!", "-"):
            signs.append(sign)
        node = self.member()
        for sign in reversed(signs):
            node = self.node("not" if sign == "!" else "minus", begins, node)
        return node

    def member(self) -> Node:
        begins, node = self.begins, self.primary()
        while True:
            if self.token == "." and self.kind == "sign":
                node = self.selected(begins, node)
            elif self.take("["):
                index = self.expression()
                self.need("]")
                node = self.node("index", begins, node, index)
            else:
                return node

    def selected(self, begins: int, node: Node) -> Node:
        """A field or a method; the names of steps may have hyphens."""
        found = _STEP_NAME.match(self.text, self.at) if node.op == "name" and node.value == "steps" else None
        self.go_on()
        if found is not None:
            self.at, name = found.end(), found[0]
            self.go_on()
        elif self.kind == "name":
            name = self.go_on()
        else:
            raise ValueError("a name is missing")
        if self.take("("):
            return self.node("method", begins, node, *self.several(")"), value=name)
        return self.node("field", begins, node, value=name)

    def primary(self) -> Node:
        begins = self.begins
        if self.take("("):
            node = self.expression()
            self.need(")")
            return node
        if self.take("["):
            return self.node("list", begins, *self.several("]"))
        if self.take("{"):
            return self.node("map", begins, *self.entries())
        if self.kind == "text":
            return self.constant(begins, _string(self.go_on()))
        if self.kind == "number":
            return self.constant(begins, _number(self.go_on()))
        if self.kind != "name":
            raise ValueError(f"{self.token!r} is not expected" if self.token else "it ends too early")
        name = self.go_on()
        if name in _WORDS:
            return self.constant(begins, _WORDS[name])
        if self.take("("):
            return self.node("call", begins, *self.several(")"), value=name)
        return self.node("name", begins, value=name)

    def constant(self, begins: int, value: Any) -> Node:
        return self.node("constant", begins, value=value)

    def several(self, closing: str) -> list[Node]:
        out: list[Node] = []
        while not self.take(closing):
            out.append(self.expression())
            if not self.take(","):
                self.need(closing)
                break
        return out

    def entries(self) -> list[Node]:
        out: list[Node] = []
        while not self.take("}"):
            out.append(self.expression())
            self.need(":")
            out.append(self.expression())
            if not self.take(","):
                self.need("}")
                break
        return out

    def node(self, op: str, begins: int, *args: Node, value: Any = None) -> Node:
        depth = 1 + max((arg.depth for arg in args), default=0)
        if depth > MAX_TREE:
            raise ValueError("too long a chain")
        return Node(op, self.text[begins : self.ended].strip(), args, value, depth)


_WORDS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class Unsigned(int):
    """A number that was written with a `u`."""


def _string(token: str) -> str | bytes:
    prefix = token[: min(token.find('"') % 1_000_000, token.find("'") % 1_000_000)].lower()
    body = token[len(prefix) :]
    quotes = 3 if body[:3] in ('"""', "'''") else 1
    body = body[quotes:-quotes]
    if "r" not in prefix:
        body = re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), body, flags=re.DOTALL)
    return body.encode(errors="replace") if "b" in prefix else body


_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r"}


def _number(token: str) -> int | float:
    if token[-1] in "uU":
        return Unsigned(int(token[:-1], 0))
    if token[:2].lower() == "0x":
        return int(token, 16)
    return float(token) if any(sign in token for sign in ".eE") else int(token)
