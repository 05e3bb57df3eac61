"""Every single change that an operator makes of one Solidity file, from its syntax tree.

Source offsets come from the compiler, so that no comment and no string is changed. Knows nothing of how a change is
noticed. What another value than the intended one can do only in a name, an event's declaration or a type is left out.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

Node = dict[str, Any]
# changes of an order by one, and to its opposite
COMPARISONS = {
    "<": ("<=", ">="), "<=": ("<", ">"), ">": (">=", "<="), ">=": (">", "<"), "==": ("!=",), "!=": ("==",),
}  # fmt: skip
ARITHMETIC = {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"}
LOGIC = {"&&": "||", "||": "&&"}
BITS = {"|": "&", "&": "|", "<<": ">>", ">>": "<<"}
ASSIGNED = {"+=": ("-=", "="), "-=": ("+=",), "|=": ("=",), ">>=": ("<<=",)}
EXTREMES = {"min": "max", "max": "min"}
LEFT_OUT = {
    "ImportDirective", "PragmaDirective", "EventDefinition", "ErrorDefinition", "StructDefinition", "EnumDefinition",
    "UsingForDirective", "InlineAssembly", "ElementaryTypeName", "UserDefinedTypeName", "Mapping", "ArrayTypeName",
    "StructuredDocumentation",
}  # fmt: skip
STATEMENTS = {"ExpressionStatement", "EmitStatement", "Return"}
VALUES = {
    ("IfStatement", "condition"), ("ForStatement", "condition"), ("VariableDeclarationStatement", "initialValue"),
}  # fmt: skip
CHECK = "check switched off"
CHECKING = re.compile(r"_?(check[A-Z]\w*|intime|isOf)")  # functions that only check
OPERATORS = (
    CHECK, "comparison", "constant", "condition negated", "statement removed", "arguments swapped", "arithmetic",
    "logic", "bits", "assignment", "state", "early return removed", "boolean", "unary", "least and most",
)  # fmt: skip


class Mutant(msgspec.Struct, frozen=True):
    """Bytes `start` to `end` of a file replaced by `text`."""

    file: str
    operator: str
    function: str
    line: int
    start: int
    end: int
    before: str
    text: str
    why: str = ""  # of a check: the error or the refusal
    # the condition, value or statement around it that can be chosen at run time; none where nothing can be asked
    around: tuple[int, int] | None = None
    is_statement: bool = False

    @property
    def id(self) -> str:
        """Stays while the file up to the change, and what is changed, stay."""
        told = f"{self.file} {self.operator} {self.start} {self.end} {self.before} {self.text}"
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def shown(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {_short(self.before)} -> {_short(self.text) or 'nothing'}"

    def applied(self, source: bytes) -> str:
        assert source[self.start : self.end].decode() == self.before, f"{self.file} changed: {self.shown}"
        return (source[: self.start] + self.text.encode() + source[self.end :]).decode()


def _short(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:110]


class Finder:
    """All changes of one file."""

    def __init__(self, file: str, tree: Node, source: bytes, enums: Mapping[str, Sequence[str]]) -> None:
        self._file = file
        self._tree = tree
        self._source = source
        self._enums = enums
        self._around: tuple[int, int] | None = None
        self._is_statement = False
        self._may_ask = False

    def all(self) -> Iterator[Mutant]:
        seen = set()
        for mutant in self._walk(self._tree, ""):
            if mutant.before != mutant.text and (mutant.start, mutant.end, mutant.text) not in seen:
                seen.add((mutant.start, mutant.end, mutant.text))
                yield mutant

    # ---- the tree

    def _walk(self, node: Any, function: str) -> Iterator[Mutant]:
        if isinstance(node, list):
            for each in node:
                yield from self._walk(each, function)
            return
        kind = node.get("nodeType") if isinstance(node, dict) else None
        if kind is None or kind in LEFT_OUT:
            return
        if kind in STATEMENTS and not (kind == "Return" and node.get("expression") is None):
            yield from self._within(self._whole(node), True, node, function)
        else:
            yield from self._inside(node, kind, function)

    def _within(self, span: tuple[int, int] | None, statement: bool, node: Node, function: str) -> Iterator[Mutant]:
        kept = self._around, self._is_statement
        self._around, self._is_statement = span, statement
        yield from self._inside(node, node["nodeType"], function)
        self._around, self._is_statement = kept

    def _inside(self, node: Node, kind: str, function: str) -> Iterator[Mutant]:
        if kind in ("FunctionDefinition", "ModifierDefinition"):
            function = node["name"] or node["kind"]
            asks = node.get("stateMutability") != "pure" and node.get("kind") != "constructor"
            self._may_ask = asks and "/" not in self._file and self._file != "Domain.sol"
        change = getattr(self, f"_{kind}", None)
        if change:
            yield from change(node, function)
        for key, value in node.items():
            if key in ("typeName", "overrides", "documentation", "baseContracts"):
                continue
            if kind == "FunctionDefinition" and key in ("modifiers", "parameters", "returnParameters"):
                continue
            if isinstance(value, dict) and (kind, key) in VALUES and "nodeType" in value:
                single = kind != "VariableDeclarationStatement" or len(node["declarations"]) == 1
                chosen = single and not value["typeDescriptions"].get("typeString", "").startswith("int_const")
                yield from self._within(self._span(value) if chosen else None, False, value, function)
            elif isinstance(value, list | dict):
                yield from self._walk(value, function)

    def _BinaryOperation(self, node: Node, function: str) -> Iterator[Mutant]:
        left, right = node["leftExpression"], node["rightExpression"]
        start, end = self._span(left)[1], self._span(right)[0]
        operator = node["operator"]
        between = self._source[start:end].decode()
        at = start + len(between[: between.index(operator)].encode())
        place = at, at + len(operator)
        for new in COMPARISONS.get(operator, ()):
            yield self._mutant("comparison", function, place, new)
        for name, table in (("arithmetic", ARITHMETIC), ("logic", LOGIC), ("bits", BITS)):
            if operator in table:
                yield self._mutant(name, function, place, table[operator])

    def _Literal(self, node: Node, function: str) -> Iterator[Mutant]:
        if node.get("kind") == "bool":
            yield self._mutant("boolean", function, self._span(node), {"true": "false", "false": "true"}[node["value"]])
        if node.get("kind") != "number" or node.get("subdenomination"):
            return
        digits = node["value"].replace("_", "")
        if digits.isdigit():
            yield self._mutant("constant", function, self._span(node), str(int(digits) + 1))
            if int(digits) > 1:
                yield self._mutant("constant", function, self._span(node), str(int(digits) - 1))

    def _IfStatement(self, node: Node, function: str) -> Iterator[Mutant]:
        condition = node["condition"]
        why = self._why(node["trueBody"])
        kept = self._around, self._is_statement
        self._around, self._is_statement = self._span(condition), False
        if why:
            for part in self._alternatives(condition):
                yield self._mutant(CHECK, function, self._span(part), "false", why)
        else:
            yield self._negated(condition, function)
            if node["trueBody"]["nodeType"] == "Return":
                yield self._mutant("early return removed", function, self._span(condition), "false")
        self._around, self._is_statement = kept

    def _Conditional(self, node: Node, function: str) -> Iterator[Mutant]:
        whys = [self._refusal(node[key]) for key in ("trueExpression", "falseExpression")]
        if any(whys):
            yield self._mutant(
                CHECK, function, self._span(node["condition"]), "false" if whys[0] else "true", whys[0] or whys[1]
            )
        else:
            yield self._negated(node["condition"], function)

    def _WhileStatement(self, node: Node, function: str) -> Iterator[Mutant]:
        yield self._negated(node["condition"], function)

    def _ExpressionStatement(self, node: Node, function: str) -> Iterator[Mutant]:
        called = node["expression"].get("expression", {})
        name = called.get("memberName") or called.get("name") or ""
        checks = node["expression"]["nodeType"] == "FunctionCall" and CHECKING.fullmatch(name)
        yield self._removed(node, function, CHECK if checks else "statement removed", name if checks else "")

    def _EmitStatement(self, node: Node, function: str) -> Iterator[Mutant]:
        yield self._removed(node, function)

    def _FunctionDefinition(self, node: Node, function: str) -> Iterator[Mutant]:
        for modifier in node["modifiers"]:
            if modifier.get("kind") == "modifierInvocation":
                yield self._mutant(CHECK, function, self._span(modifier), "", self._text(modifier))

    def _FunctionCall(self, node: Node, function: str) -> Iterator[Mutant]:
        given = node["arguments"]
        for one, other in itertools.pairwise(given):
            kinds = [each["typeDescriptions"].get("typeString", "").partition(" ")[0] for each in (one, other)]
            if kinds[0] != kinds[1] or self._text(one) == self._text(other) or node.get("names"):
                continue
            start, end = self._span(one)[0], self._span(other)[1]
            between = self._source[self._span(one)[1] : self._span(other)[0]].decode()
            yield self._mutant(
                "arguments swapped", function, (start, end), self._text(other) + between + self._text(one)
            )

    def _Assignment(self, node: Node, function: str) -> Iterator[Mutant]:
        operator = node["operator"]
        at = self._source.index(operator.encode(), self._span(node["leftHandSide"])[1])
        for new in ASSIGNED.get(operator, ()):
            yield self._mutant("assignment", function, (at, at + len(operator)), new)

    def _MemberAccess(self, node: Node, function: str) -> Iterator[Mutant]:
        kind = node["expression"]["typeDescriptions"].get("typeString", "")
        place = self._member(node)
        if kind.startswith("type(enum "):
            members = self._enums[kind.removeprefix("type(enum ").rstrip(")")]
            following = members[(members.index(node["memberName"]) + 1) % len(members)]
            yield self._mutant("state", function, place, following)
        elif node["memberName"] in EXTREMES and kind.startswith("type(library"):
            yield self._mutant("least and most", function, place, EXTREMES[node["memberName"]])

    def _UnaryOperation(self, node: Node, function: str) -> Iterator[Mutant]:
        start, end = self._span(node)
        inner = self._span(node["subExpression"])
        if node["operator"] == "!":
            yield self._mutant("unary", function, (start, end), self._source[inner[0] : inner[1]].decode())
        elif node["operator"] in ("++", "--"):
            text = self._text(node)
            yield self._mutant("unary", function, (start, end), text.translate(str.maketrans("+-", "-+")))

    # ---- pieces

    def _why(self, body: Node) -> str:
        """The error or the refusal with which a check ends a call; empty where the body is something else."""
        if body["nodeType"] == "Block":
            kinds = [each["nodeType"] for each in body["statements"]]
            if len(kinds) == 1:
                return self._why(body["statements"][0])
            if kinds == ["EmitStatement", "Return"]:
                arguments = body["statements"][0]["eventCall"]["arguments"]
                return next(filter(None, map(self._refusal, arguments)), "")
            return ""
        if body["nodeType"] == "RevertStatement":
            called = body["errorCall"]["expression"]
            return str(called.get("memberName") or called["name"])
        if body["nodeType"] == "Return" and body.get("expression"):
            return self._refusal(body["expression"]) or self._nothing(body["expression"])
        return ""

    def _refusal(self, node: Node) -> str:
        kind = node["typeDescriptions"].get("typeString", "")
        if node["nodeType"] == "MemberAccess" and kind.endswith(".Refusal") and node["memberName"] != "None":
            return f"Refusal.{node['memberName']}"
        return ""

    def _nothing(self, node: Node) -> str:
        """`false`, the zero address, or a tuple that begins with one: what a function says of what does not hold."""
        text = self._text(node)
        return "false" if re.match(r"\(?(false|address\(0\))\b|\(?address\(0\)", text) else ""

    def _alternatives(self, condition: Node) -> Iterator[Node]:
        if condition["nodeType"] == "BinaryOperation" and condition["operator"] == "||":
            yield from self._alternatives(condition["leftExpression"])
            yield from self._alternatives(condition["rightExpression"])
        else:
            yield condition

    def _negated(self, condition: Node, function: str) -> Mutant:
        return self._mutant("condition negated", function, self._span(condition), f"!({self._text(condition)})")

    def _removed(self, node: Node, function: str, operator: str = "statement removed", why: str = "") -> Mutant:
        start, end = self._span(node)
        tail = re.match(rb"\s*;", self._source[end:])
        end += tail.end() if tail else 0
        return self._mutant(operator, function, (start, end), "{}", why)

    def _whole(self, node: Node) -> tuple[int, int] | None:
        """A statement with its semicolon; none in the head of a loop."""
        start, end = self._span(node)
        tail = re.match(rb"\s*;", self._source[end:])
        return (start, end + tail.end()) if tail else None

    def _member(self, node: Node) -> tuple[int, int]:
        end = self._span(node)[1]
        return end - len(node["memberName"]), end

    def _span(self, node: Node) -> tuple[int, int]:
        start, length, _ = map(int, node["src"].split(":"))
        return start, start + length

    def _text(self, node: Node) -> str:
        start, end = self._span(node)
        return self._source[start:end].decode()

    def _mutant(self, operator: str, function: str, place: tuple[int, int], text: str, why: str = "") -> Mutant:
        start, end = place
        line = self._source.count(b"\n", 0, start) + 1
        before = self._source[start:end].decode()
        around = (
            self._around
            if self._may_ask and self._around and self._around[0] <= start and end <= self._around[1]
            else None
        )
        return Mutant(
            self._file,
            operator,
            function,
            line,
            start,
            end,
            before,
            text,
            why,
            around,
            bool(around) and self._is_statement,
        )
