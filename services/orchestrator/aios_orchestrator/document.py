"""Resource documents: YAML to plain data, with the place of every field, bounded in size, depth and number of nodes."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

import yaml

from aios_core.errors import TerminalError
from aios_core.hashing import content_hash
from aios_core.ids import check_name
from aios_core.json_values import dumps
from aios_core.values import MAX_DECIMAL_DIGITS, checked_decimal
from aios_orchestrator.problems import Problems

MAX_DOCUMENT_BYTES: Final = 256 * 1024
MAX_DOCUMENTS: Final = 100
MAX_DEPTH: Final = 32
MAX_NODES: Final = 65_536  # enough for a workflow of as many steps as one may have
API_VERSION: Final = "aios/v1"
KINDS: Final = ("Workflow", "Intent", "Schedule", "Limit", "Budget")


def kind_named(text: str) -> str:
    """The kind of that name, whatever its case. Raises NOT_FOUND, naming the kinds."""
    for kind in KINDS:
        if kind.lower() == text.lower():
            return kind
    raise TerminalError(
        "NOT_FOUND", f"There is no kind {text[:80]!r}; the kinds are {', '.join(KINDS)}.", field="kind"
    )


@dataclass(slots=True)
class Document:
    """One document. `places` has line and column (from 1) of each field by its path, such as `spec.steps[0].input`."""

    file: str
    data: dict[str, Any]
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def error(self, code: str, path: str, message: str) -> TerminalError:
        """An error that says where in the file: `file:line:column: path: message`."""
        at = path
        while at and at not in self.places:
            at = at.rpartition(".")[0] if at.rpartition(".")[0] != at else ""
        line, column = self.places.get(at, (1, 1))
        where = f"{self.file}:{line}:{column}"
        return TerminalError(
            code,
            printable(f"{where}: {path}: {message}"),
            field=path,
            file=self.file,
            line=str(line),
            column=str(column),
        )

    @property
    def kind(self) -> str:
        return str(self.data["kind"])

    @property
    def name(self) -> str:
        return str(self.data["metadata"]["name"])

    @property
    def spec(self) -> dict[str, Any]:
        spec = self.data["spec"]
        assert isinstance(spec, dict)
        return spec

    def version(self) -> str:
        """The content hash of the document: the same text in another layout is the same version."""
        return content_hash(self.canonical())[:16]

    def canonical(self) -> bytes:
        """Canonical JSON of the whole document."""
        return dumps(self.data)

    def known(self, path: str, data: Any, names: Iterable[str]) -> Mapping[str, Any]:
        """Check that `data` is a map with no other fields than `names`; the error names the nearest right one."""
        if not isinstance(data, dict):
            raise self.error("BAD_RESOURCE", path, "must be a map of fields.")
        allowed = list(names)
        for key in data:
            if key not in allowed:
                near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"it may have: {', '.join(allowed)}."
                raise self.error(
                    "UNKNOWN_FIELD", f"{path}.{key}" if path else str(key), f"there is no such field; {hint}"
                )
        return data


def parse_documents(text: bytes, file: str) -> list[Document]:
    """Every document of a YAML file, its head checked.

    Raises BAD_YAML, TOO_LARGE, TOO_DEEP, UNKNOWN_FIELD, BAD_RESOURCE.
    """
    nodes = _nodes(text, file)
    if not nodes:
        raise TerminalError("BAD_YAML", f"{file} has no document.", file=file)
    if len(nodes) > MAX_DOCUMENTS:
        raise TerminalError(
            "TOO_LARGE", f"{file} has {len(nodes)} documents; at most {MAX_DOCUMENTS} are read."
        )
    documents: list[Document] = []
    problems = Problems()
    for node in nodes:
        with problems.noting():
            documents.append(_head(_Reader(file).document(node)))
    problems.check()
    return documents


def printable(text: str) -> str:
    """Text without what moves or hides other text on a screen."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def _at(code: str, file: str, place: tuple[int, int], message: str) -> TerminalError:
    """An error that says where in a file that is no document: line and column count from 0."""
    line, column = str(place[0] + 1), str(place[1] + 1)
    return TerminalError(
        code, printable(f"{file}:{line}:{column}: {message}"), file=file, line=line, column=column
    )


def parse_plain(text: bytes, file: str) -> Any:
    """The data of a YAML file that is no resource, under the same bounds. Raises BAD_YAML, TOO_LARGE, TOO_DEEP."""
    nodes = _nodes(text, file)
    if len(nodes) != 1:
        raise TerminalError("BAD_YAML", f"{file} has {len(nodes)} documents; it needs one.", file=file)
    return _Reader(file).plain(nodes[0])


def _nodes(text: bytes, file: str) -> list[yaml.Node]:
    """The composed documents of a file."""
    if len(text) > MAX_DOCUMENT_BYTES:
        raise TerminalError(
            "TOO_LARGE", f"{file} has {len(text)} bytes; at most {MAX_DOCUMENT_BYTES} are read."
        )
    try:
        read = text.decode("utf-8")
        _refuse_aliases(read, file)
        return [node for node in yaml.compose_all(read, Loader=yaml.CSafeLoader) if node is not None]
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line, column = before.count(b"\n"), error.start - before.rfind(b"\n") - 1
        raise _at("BAD_YAML", file, (line, column), "this is not UTF-8 text.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line, mark.column) if mark else (0, 0)
        raise _at("BAD_YAML", file, place, f"{_words(error, read, place)}.") from None
    except yaml.reader.ReaderError as error:
        until = read[: error.position]
        place = until.count("\n"), len(until) - until.rfind("\n") - 1
        raise _at(
            "BAD_YAML", file, place, f"the character U+{ord(read[error.position]):04X} is not allowed."
        ) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise TerminalError("BAD_YAML", f"{file}: {str(error)[:200]}.", file=file) from None


def _words(error: yaml.MarkedYAMLError, text: str, place: tuple[int, int]) -> str:
    """What the parser says, in words for a person."""
    problem = str(error.problem or error.context)
    if "cannot start any token" in problem:
        lines = text.split("\n")
        sign = lines[place[0]][place[1] : place[1] + 1] if place[0] < len(lines) else ""
        return (
            "a tab can't indent; use spaces"
            if sign == "\t"
            else f"{sign!r} can't begin a value; put the value in quotes"
        )
    return next((words for part, words in _PROBLEMS.items() if part in problem), problem)


_PROBLEMS: Final = {
    "expected node content": "a value is missing here, or a bracket is not closed",
    "end of stream": "a quote is not closed",
    "expected '-' indicator": "this line is not indented as the others of its list are",
    "expected key": "this line is not indented as those around it are, or has no key",
    "expected <document start>": "this line is not indented as those around it are, or a --- is missing",
    "mapping values are not allowed": "a second ': ' in one value; put the value in quotes, or begin a new line",
    "expected ':'": "a ':' is missing after a key, or the text above is not indented enough",
    "expected ',' or": "a ',' is missing, or a bracket is not closed",
    "incompatible YAML": "this is YAML of another version; leave the %YAML line out",
    "undefined tag handle": "tags (!name) are not allowed; leave it out",
}


def _refuse_aliases(text: str, file: str) -> None:
    """Aliases multiply a small text into a huge one and nesting costs stack: look at events before building a tree."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        place = (event.start_mark.line, event.start_mark.column) if event.start_mark else (0, 0)
        if isinstance(event, yaml.AliasEvent):
            raise _at("BAD_YAML", file, place, "aliases (*name) are not allowed; repeat the text.")
        if getattr(event, "tag", None) not in (None, "tag:yaml.org,2002:str"):
            raise _at("BAD_YAML", file, place, "tags (!name) are not allowed; leave it out.")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise _at("TOO_DEEP", file, place, f"nested deeper than {MAX_DEPTH} levels.")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        if nodes > MAX_NODES:
            raise TerminalError("TOO_LARGE", f"{file} has more than {MAX_NODES} parts.", file=file)


class _Reader:
    """Composed YAML nodes to plain data, keeping each field's place."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[str, tuple[int, int]] = {}

    def document(self, node: yaml.Node) -> Document:
        data = self._data(node, "")
        if not isinstance(data, dict):
            place = (node.start_mark.line, node.start_mark.column)
            message = "a document is a map with apiVersion, kind, metadata, spec."
            raise _at("BAD_RESOURCE", self.file, place, message)
        return Document(self.file, data, self.places)

    def plain(self, node: yaml.Node) -> Any:
        """The data of a node."""
        return self._data(node, "")

    def _data(self, node: yaml.Node, path: str) -> Any:
        self.places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            return self._map(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._data(item, f"{path}[{at}]") for at, item in enumerate(node.value)]
        return self._scalar(node)

    def _map(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = (key_node.start_mark.line, key_node.start_mark.column)
            if not isinstance(key_node, yaml.ScalarNode):
                raise _at("BAD_YAML", self.file, place, "a key is text, not a list or a map.")
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _at("BAD_YAML", self.file, place, "merge keys (<<) are not allowed; repeat the text.")
            key = str(key_node.value)
            inner = f"{path}.{key}" if path else key
            if key in out:
                raise _at("BAD_YAML", self.file, place, f"{inner} stands twice.")
            out[key] = self._data(value_node, inner)
            self.places[inner] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        return out

    def _scalar(self, node: yaml.Node) -> Any:
        """JSON's types only: a date stays text, a fraction is exact."""
        tag, text = node.tag, node.value
        if tag == "tag:yaml.org,2002:null":
            return None
        if tag == "tag:yaml.org,2002:bool":
            return str(text).lower() in ("true", "yes", "on")
        place = (node.start_mark.line, node.start_mark.column)
        if tag == "tag:yaml.org,2002:int" and str(text).lstrip("+-").isdigit():
            if len(text) > MAX_DECIMAL_DIGITS:
                message = f"a number has at most {MAX_DECIMAL_DIGITS} digits."
                raise _at("BAD_RESOURCE", self.file, place, message)
            return int(text)
        if tag == "tag:yaml.org,2002:float":
            try:
                return checked_decimal(Decimal(str(text)))
            except ArithmeticError:
                return str(text)
            except TerminalError as error:
                raise _at("BAD_RESOURCE", self.file, place, error.message) from None
        return str(text)


def _head(document: Document) -> Document:
    data = document.known("", document.data, ("apiVersion", "kind", "metadata", "spec"))
    for name in ("apiVersion", "kind", "metadata", "spec"):
        if name not in data:
            raise document.error("BAD_RESOURCE", name, "is missing.")
    if data["apiVersion"] != API_VERSION:
        raise document.error(
            "BAD_RESOURCE", "apiVersion", f"must be {API_VERSION}, not {data['apiVersion']!r}."
        )
    if data["kind"] not in KINDS:
        near = difflib.get_close_matches(str(data["kind"]), KINDS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(KINDS)}."
        raise document.error("BAD_RESOURCE", "kind", f"there is no kind {data['kind']!r}; {hint}")
    metadata = document.known("metadata", data["metadata"], ("name", "title", "description"))
    if "name" not in metadata:
        raise document.error("BAD_RESOURCE", "metadata.name", "is missing.")
    try:
        check_name(str(metadata["name"] or ""), "metadata.name")
    except TerminalError as error:
        raise document.error(
            "BAD_RESOURCE", "metadata.name", "is " + error.message.partition(" is ")[2]
        ) from None
    if not isinstance(data["spec"], dict):
        raise document.error("BAD_RESOURCE", "spec", "must be a map of fields, such as steps.")
    size = len(document.canonical())
    if size > MAX_DOCUMENT_BYTES:
        raise document.error(
            "TOO_LARGE", "spec", f"takes {size} bytes as it is stored; at most {MAX_DOCUMENT_BYTES} fit."
        )
    return document
