"""The guards of the Python side of the money path, module by module, with the tests that are asked about each.

A guard is an `if` that ends in a refusal (raised, or returned with its reason), or a call that only checks. What bounds
a queue is one, too: it is listed where a test misses it, and not looked for elsewhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import msgspec

from mutation import guards

NODE = "tests/node"
GUARDS = "tests/ledger/test_guards.py"
# module -> tests that may notice, the likeliest first
MODULES: dict[str, tuple[str, ...]] = {
    "tallymesh_ledger.keys": (
        "tests/ledger/test_signatures.py", "tests/ledger/test_golden.py", f"{NODE}/auditor",
    ),
    "tallymesh_ledger.seat": ("tests/ledger/test_seat.py", GUARDS),
    "tallymesh_ledger.audit": ("tests/ledger/test_audit.py", GUARDS),
    "tallymesh_ledger.proofs": ("tests/ledger/test_proofs.py", GUARDS),
    "tallymesh_ledger.merkle": ("tests/ledger/test_commitments.py", GUARDS),
    "tallymesh_ledger.deploy": ("tests/ledger/chain/test_guards.py",),
    "tallymesh_ledger.chain.rpc": (
        "tests/ledger/chain/test_endpoints.py", "tests/ledger/chain/test_guards.py", "tests/ledger/chain/test_rpc.py",
    ),
    "tallymesh_ledger.chain.fees": (
        "tests/ledger/chain/test_fees.py", "tests/ledger/chain/test_redeeming.py", "tests/ledger/chain/test_stuck.py",
    ),
    "tallymesh_ledger.chain.transactions": (
        "tests/ledger/chain/test_guards.py", "tests/ledger/chain/test_transactions.py",
        "tests/ledger/chain/test_stuck.py",
    ),
    "tallymesh_ledger.chain.abi": ("tests/ledger/chain/test_abi.py", "tests/ledger/chain/test_guards.py"),
    "tallymesh.schema": (GUARDS, "tests/ledger/test_golden.py", "tests/ledger/chain/test_abi.py"),
    "tallymesh_node.payer.ordering": (f"{NODE}/payer/test_guards.py", f"{NODE}/payer/test_terms.py"),
    "tallymesh_node.payer.leasing": (f"{NODE}/payer/test_doors.py", f"{NODE}/payer/test_guards.py"),
    "tallymesh_node.payer.receiving": (f"{NODE}/payer/test_doors.py", f"{NODE}/payer/test_guards.py"),
    "tallymesh_node.payer.calling": (
        f"{NODE}/payer/test_doors.py", f"{NODE}/payer/test_auditors.py", f"{NODE}/payer/test_guards.py",
    ),
    "tallymesh_node.payer.auditing": (f"{NODE}/payer/test_doors.py", f"{NODE}/payer/test_guards.py"),
    "tallymesh_node.worker.admission": (f"{NODE}/worker/test_admission.py", f"{NODE}/worker/test_doors.py"),
    "tallymesh_node.worker.record": (f"{NODE}/worker/test_guards.py", f"{NODE}/worker/test_doors.py"),
    "tallymesh_node.worker.doors": (
        f"{NODE}/worker/test_doors.py", f"{NODE}/worker/test_signing.py", f"{NODE}/worker/test_restored.py",
    ),
    "tallymesh_node.auditor.calls": (f"{NODE}/auditor/test_calls.py", f"{NODE}/auditor/test_guards.py"),
    "tallymesh_node.auditor.openings": (f"{NODE}/auditor",),
    "tallymesh_node.auditor.service": (f"{NODE}/auditor",),
    "tallymesh_node.auditor.work": (f"{NODE}/auditor",),
    "tallymesh_ledger.phases": ("tests/ledger/test_seat.py",),
    "tallymesh_ledger.eip712": ("tests/ledger/test_golden.py", "tests/ledger/test_signatures.py", GUARDS),
    "tallymesh_ledger.chain.endpoint": (
        "tests/ledger/chain/test_endpoints.py", "tests/ledger/chain/test_guards.py", "tests/ledger/chain/test_rpc.py",
    ),
    "tallymesh_ledger.chain.http": ("tests/ledger/chain/test_guards.py", "tests/ledger/chain/test_http.py"),
    "tallymesh_ledger.chain.contract": ("tests/ledger/chain/test_abi.py", "tests/ledger/chain/test_guards.py"),
    "tallymesh_ledger.chain.registry_view": ("tests/ledger/chain/test_registry_view.py",),
    "tallymesh_ledger.chain.courier": ("tests/ledger/chain/test_guards.py", "tests/ledger/chain/test_stuck.py"),
    "tallymesh_node.worker.units": (f"{NODE}/worker/test_guards.py", f"{NODE}/worker/test_seat_life.py"),
    "tallymesh_node.payer.doors": (f"{NODE}/payer/test_guards.py", f"{NODE}/payer/test_doors.py"),
    "tallymesh_node.payer.applying": (f"{NODE}/payer/test_guards.py", f"{NODE}/payer/test_doors.py"),
    "tallymesh_node.payer.driver": (
        f"{NODE}/payer/test_guards.py", f"{NODE}/payer/test_doors.py", f"{NODE}/payer/test_failures.py",
    ),
    "tallymesh_node.payer.service": (f"{NODE}/payer/test_guards.py", f"{NODE}/payer/test_jobs.py"),
    "tallymesh_node.claims.calls": (f"{NODE}/claims/test_serving.py", f"{NODE}/court/test_disputed.py"),
    "tallymesh_node.claims.serving": (f"{NODE}/claims/test_serving.py",),
    "tallymesh_node.claims.finding": (f"{NODE}/claims/test_serving.py", f"{NODE}/claims/test_quarrels.py"),
    "tallymesh_node.claims.pursuing": (f"{NODE}/claims/test_claims.py",),
    "tallymesh_node.quarrels.disputed": (f"{NODE}/court/test_disputed.py", f"{NODE}/court/test_members.py"),
    "tallymesh_node.quarrels.serving": (f"{NODE}/court/test_serving.py",),
    "tallymesh_node.quarrels.whereabouts": (f"{NODE}/quarrels/test_whereabouts.py",),
    "tallymesh_node.carriers.terms": (f"{NODE}/carriers/test_carriers.py",),
    "tallymesh_node.carriers.serving": (f"{NODE}/carriers/test_carriers.py",),
    "tallymesh_node.carriers.asking": (f"{NODE}/carriers/test_carriers.py",),
}  # fmt: skip
CHECKING = ("check", "require", "open_signed")


class Guard(msgspec.Struct, frozen=True):
    """`why`: what it says."""

    module: str
    function: str
    check: str
    why: str

    @property
    def where(self) -> str:
        return f"{self.module}:{self.function}"


def all_guards() -> list[Guard]:
    found = []
    for module in MODULES:
        tree = ast.parse(guards.source_of(module))
        found += [Guard(module, ".".join(names), *told) for names, told in _walk(tree, ())]
    return found


def _walk(node: ast.AST, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[str, str]]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _walk(child, (*names, child.name))
            continue
        if isinstance(child, ast.If) and (why := _refusal(child.body)):
            yield names, (ast.unparse(child.test), why)
        elif isinstance(child, ast.Expr) and (why := _checking(child.value)):
            yield names, (ast.unparse(child.value), why)
        yield from _walk(child, names)


def _refusal(body: list[ast.stmt]) -> str:
    """The code (or else the kind) of what the body ends in; empty where it refuses nothing."""
    last = body[-1]
    if isinstance(last, ast.Raise) and isinstance(last.exc, ast.Call):
        return _code(last.exc)
    if isinstance(last, ast.Return) and isinstance(last.value, ast.Call) and ast.unparse(last.value.func) == "Refusal":
        return _code(last.value)
    if isinstance(last, ast.Return) and isinstance(last.value, ast.Constant) and isinstance(last.value.value, str):
        return last.value.value
    return ""


def _checking(value: ast.expr) -> str:
    if not isinstance(value, ast.Call):
        return ""
    name = ast.unparse(value.func).rpartition(".")[2]
    return name if name.lstrip("_").partition("_")[0] in CHECKING or name in CHECKING else ""


def _code(call: ast.Call) -> str:
    first = call.args[0] if call.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    return text if isinstance(text, str) and " " not in text else ast.unparse(call.func)
