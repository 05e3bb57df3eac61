"""Source archives: what travels, what is refused and how, and what hostile archives can do (nothing)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallymesh import program
from tallymesh.capture import Program, capture
from tallymesh.errors import CallerError, RemoteError

Folder = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Writes modules into a folder from which they can be imported; they vanish afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(**files: str) -> Path:
        for name, source in files.items():
            path = tmp_path / (name.replace("__init__", "\0").replace("__", "/").replace("\0", "__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))
        return tmp_path

    yield write  # type: ignore[misc] # pytest runs the rest as the end of the fixture
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def run_script(path: Path, *lines: str) -> Program:
    """Run a script to its end; its last lines capture objects and leave the program in a file."""
    out = path.with_suffix(".out")
    tail = f"""
    import msgspec as _m
    from pathlib import Path as _P
    from tallymesh.capture import capture as _c
    _p = _c({", ".join(lines)})
    _P({str(out)!r}).write_bytes(_m.msgpack.encode((_p.archive, _p.entries)))
    """
    path.write_text(path.read_text() + textwrap.dedent(tail))
    ran = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=60)
    if ran.returncode:
        raise AssertionError(ran.stderr)
    archive, entries = msgspec.msgpack.decode(out.read_bytes())
    return Program(archive, tuple(entries))


def files_of(captured: Program) -> dict[str, bytes]:
    return program.unpack(captured.archive)


def test_a_module_travels_with_the_local_modules_it_imports(folder: Folder) -> None:
    folder(
        alpha="import math\nfrom pack import beta\nfrom pack.deep import gamma as g\n"
        "def f(x): return beta.twice(g.one(x))",
        pack____init__="from . import beta",
        pack__beta="from .deep.gamma import one\ndef twice(x): return 2 * one(x)",
        pack__deep____init__="",
        pack__deep__gamma="def one(x): return x + 1",
        unrelated="raise SystemExit",
    )
    import alpha  # type: ignore[import-not-found]

    captured = capture(alpha.f)
    assert captured.entries == ("alpha:f",)
    assert sorted(files_of(captured)) == [
        "alpha.py",
        "pack/__init__.py",
        "pack/beta.py",
        "pack/deep/__init__.py",
        "pack/deep/gamma.py",
    ]
    wanted = alpha.f(3)
    for name in [name for name in sys.modules if name.split(".")[0] in ("alpha", "pack")]:
        del sys.modules[name]
    sys.path.remove(str(Path(alpha.__file__).parent))
    with program.importable(files_of(captured)):
        assert program.resolve("alpha:f")(3) == wanted
    assert "alpha" not in sys.modules
    with pytest.raises(ImportError):
        program.resolve("alpha:f")


def test_nothing_is_written_when_a_program_is_imported(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(plain="def f(): return 1")
    import plain  # type: ignore[import-not-found]

    captured = capture(plain.f)
    del sys.modules["plain"]
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    with program.importable(files_of(captured)):
        assert program.resolve("plain:f")() == 1
    assert not list(empty.rglob("*"))


def test_the_same_source_gives_the_same_archive_whatever_is_imported_first(folder: Folder) -> None:
    folder(one="import two\ndef f(): return 1", two="def g(): return 2")
    import one  # type: ignore[import-not-found]
    import two  # type: ignore[import-not-found]

    assert capture(one.f, two.g).archive == capture(two.g, one.f).archive


def test_imports_inside_functions_and_under_try_are_followed(folder: Folder) -> None:
    folder(
        late="""
        from typing import TYPE_CHECKING
        try:
            import not_installed_anywhere
        except ImportError:
            import fallback
        if TYPE_CHECKING:
            import sklearn
        def f():
            from helper import h
            return h()
        def data():
            import sklearn.datasets
        """,
        fallback="",
        helper="def h(): return 5",
    )
    import late  # type: ignore[import-not-found]

    assert sorted(files_of(capture(late.f))) == ["fallback.py", "helper.py", "late.py"]


@pytest.mark.slow
def test_a_package_that_workers_do_not_have_is_refused_with_line_and_remedy(folder: Folder) -> None:
    folder(
        top="import os\nimport sklearn\ndef f(): pass", inner="def f():\n    import sklearn\n", typo="import helpr\n"
    )
    (Path(sys.path[0]) / "typo.py").write_text("try:\n    import helpr\nexcept ValueError:\n    pass\ndef f(): pass\n")
    (Path(sys.path[0]) / "helpr.py").write_text("")
    import inner  # type: ignore[import-not-found]
    import top  # type: ignore[import-not-found]
    import typo  # type: ignore[import-not-found]

    for function, line in ((top.f, "top.py:2"), (inner.f, "inner.py:2")):
        with pytest.raises(CallerError) as caught:
            capture(function)
        assert caught.value.code == "not_in_base_set"
        assert line in caught.value.sentence
        assert 'requires=["scikit-learn"]' in caught.value.remedy
        assert "use sklearn on your side" in caught.value.remedy
        assert capture(function, packages={"sklearn"}).entries == (f"{line.split('.')[0]}:f",)
    (Path(sys.path[0]) / "helpr.py").unlink()
    del sys.modules["helpr"]
    with pytest.raises(CallerError, match=r"typo\.py:2: the module helpr cannot be found.*numpy, torch"):
        capture(typo.f)


SCRIPT = """
import math, sys
import sklearn, reading
from helper import triple
import tallymesh

sizes = (64, 32)
scale = 2
scale += 1
table = {}
for number in range(3):
    table[number] = number * 10
data = reading.load()          # not needed: must not be run, nor sent

class Base:
    size = sizes[0]

def area(x):
    "uses scale, table, Base, triple"
    if x < 0:
        raise ValueError("negative")
    return math.sqrt(x) * scale + table[2] + Base.size + triple(1)

job = print("submitted")
if __name__ == "__main__":
    print("started")
"""


@pytest.mark.slow
def test_a_script_is_cut_down_to_what_its_function_needs(folder: Folder) -> None:
    path = folder(
        train=SCRIPT, helper="def triple(x): return 3 * x", reading="import sklearn\ndef load(): return open(__file__)"
    )
    captured = run_script(path / "train.py", "area")
    assert captured.entries == ("main_train:area",)
    files = files_of(captured)
    assert sorted(files) == ["helper.py", "main_train.captured", "main_train.py"]
    source = files["main_train.py"].decode()
    for gone in ("sklearn", "reading", "job", "print", "__main__"):
        assert gone not in source
    for line in ("class Base:", '        raise ValueError("negative")'):
        assert source.splitlines().index(line) == SCRIPT.splitlines().index(line), "lines stay where they were"
    with program.importable(files):
        area = program.resolve("main_train:area")
        assert area(4.0) == 2 * 3 + 20 + 64 + 3
        with pytest.raises(ValueError, match="negative") as caught:
            area(-1)
    trace = "".join(traceback.format_exception(caught.value))
    raised = SCRIPT.splitlines().index('        raise ValueError("negative")') + 1
    assert f'"{program.PREFIX}main_train.py", line {raised}, in area\n    raise ValueError("negative")' in trace


@pytest.mark.slow
def test_values_a_script_holds_travel_as_they_are_when_it_submits(folder: Folder) -> None:
    path = folder(
        script="""
        import numpy
        weights = numpy.arange(3.0)
        weights[0] = 7
        names = ["a"]
        names.append("b")
        def f(): return [float(weights.sum()), names]
        """
    )
    captured = run_script(path / "script.py", "f")
    with program.importable(files_of(captured)):
        assert program.resolve("main_script:f")() == [10.0, ["a", "b"]]


def test_what_changes_an_object_of_a_script_travels_with_it(folder: Folder) -> None:
    path = folder(
        script="""
        import functools
        class Registry:
            def __init__(self): self.known = {}
            def add(self, function):
                self.known[function.__name__] = function
                return function
        registry = Registry()
        @registry.add
        def one(x): return x + 1
        @functools.lru_cache
        def cached(x): return x
        def f(x): return registry.known["one"](cached(x))
        f.note = "kept"
        """
    )
    captured = run_script(path / "script.py", "f")
    with program.importable(files_of(captured)):
        found = program.resolve("main_script:f")
        assert found(1) == 2
        assert found.note == "kept"


def test_star_imports_and_names_on_one_line_are_resolved(folder: Folder) -> None:
    path = folder(
        script="from __future__ import annotations; import os; from helper import *; import json\n"
        "def f(x: Missing): return json.dumps(triple(x)); \n",
        helper="def triple(x): return 3 * x",
    )
    captured = run_script(path / "script.py", "f")
    with program.importable(files_of(captured)):
        assert program.resolve("main_script:f")(2) == "6"


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("handle = open(__file__)\ndef f(): return handle\nhandle2 = handle", None),
        ("if __name__ == '__main__':\n    def g(): pass\ndef f(): return g()", "g, which the program uses"),
    ],
    ids=["object", "guarded"],
)
def test_a_script_that_needs_what_cannot_travel(folder: Folder, source: str, what: str | None) -> None:
    path = folder(script=source)
    if what is None:  # kept by its source: it is made again where the program runs
        captured = run_script(path / "script.py", "f")
        assert b"open(__file__)" in files_of(captured)["main_script.py"]
        return
    with pytest.raises(AssertionError) as caught:
        run_script(path / "script.py", "f")
    assert what in str(caught.value)
    assert "script.py:2" in str(caught.value) or "script.py:1" in str(caught.value)


def test_a_script_run_as_a_module_keeps_its_package(folder: Folder) -> None:
    path = folder(
        app____init__="",
        app__tool="""
        from . import part
        def f(): return part.VALUE
        if __name__ == "__main__":
            import sys, msgspec
            from tallymesh.capture import capture
            p = capture(f)
            sys.stdout.buffer.write(msgspec.msgpack.encode((p.archive, p.entries)))
        """,
        app__part="VALUE = 5",
    )
    out = subprocess.check_output([sys.executable, "-m", "app.tool"], cwd=path, timeout=60)
    archive, entries = msgspec.msgpack.decode(out)
    assert entries == ["app.main_tool:f"]
    with program.importable(program.unpack(archive)):
        assert program.resolve(entries[0])() == 5


def test_notebook_cells_travel_by_their_source() -> None:
    cells = [
        "import math\nimport os\nrate = 0.5",
        "def helper(x):\n    return x * rate",
        "!ls",
        "def f(x):\n    return helper(x) + 1",
        "rate = 0.25\nprint(f(1))",
        "def helper(x):\n    return math.floor(x * rate * 8)",
    ]
    code = f"""
import linecache, sys, types, msgspec
namespace = {{"__name__": "__main__"}}
import __main__
for number, text in enumerate({cells!r}):
    name = f"<ipython-input-{{number}}-abc>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    if not text.startswith("!"):
        exec(compile(text, name, "exec"), namespace)
from tallymesh.capture import capture
p = capture(namespace["f"])
sys.stdout.flush()
sys.stdout.buffer.write(b"@@" + msgspec.msgpack.encode((p.archive, p.entries)))
"""
    out = subprocess.check_output([sys.executable, "-c", code], timeout=60).partition(b"@@")[2]
    archive, entries = msgspec.msgpack.decode(out)
    assert entries == ["main_notebook:f"]
    files = program.unpack(archive)
    assert b"print" not in files["main_notebook.py"]
    assert b"import os" not in files["main_notebook.py"]
    with program.importable(files):
        assert program.resolve(entries[0])(1) == 3


def test_a_closure_over_data_travels_and_over_anything_else_is_refused(folder: Folder) -> None:
    folder(
        makers="""
        import math
        OFFSET = 100
        def make(scale, table):
            def area(x, n=2):
                return table[0] * scale * x + OFFSET + (area(x, n - 1) if n else 0)
            return area
        def counter():
            count = 0
            def step():
                nonlocal count
                count += 1
            return step
        """
    )
    import makers  # type: ignore[import-not-found]

    original = makers.make((1.5, 2)[0], numpy.array([2.0]))
    captured = capture(original)
    with program.importable(files_of(captured)):
        assert program.resolve(captured.entries[0])(3.0) == original(3.0)
    for bad, why in (
        (makers.make(object(), [1]), "closes over scale, a builtins.object"),
        (makers.counter(), "changes"),
    ):
        with pytest.raises(CallerError, match=why) as caught:
            capture(bad)
        assert "makers.py:" in caught.value.sentence
        assert caught.value.remedy


def test_objects_without_a_name_or_source_are_refused_with_a_remedy(folder: Folder) -> None:
    folder(
        odd="""
        class Thing:
            def method(self): pass
            def __call__(self): pass
        def wrong(function):
            def inner(): return function()
            return inner
        @wrong
        def hidden(): pass
        def twice(): pass
        first = twice
        def twice(): pass
        square = lambda x: x * x
        """
    )
    import odd  # type: ignore[import-not-found]

    cases: list[tuple[Any, str]] = [
        (odd.square, "a lambda has no name"),
        (odd.Thing(), "an object"),
        (odd.Thing().method, "bound method"),
        (odd.hidden, "closes over function"),
        (odd.first, "another object"),
        (len, "not a module of yours"),
        (5, "not a function"),
        (_without_source(), "source cannot be found"),
    ]
    for bad, why in cases:
        with pytest.raises(CallerError, match=why) as caught:
            capture(bad)
        assert caught.value.code == "cannot_capture"
        assert caught.value.remedy


def _without_source() -> Any:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def f(): pass", "<nowhere>", "exec"), namespace)
    return namespace["f"]


def test_a_class_travels(folder: Folder) -> None:
    folder(travelling_shapes="class Base:\n    pass\nclass Net(Base):\n    def go(self): return 4")
    import travelling_shapes  # type: ignore[import-not-found]

    captured = capture(travelling_shapes.Net)
    with program.importable(files_of(captured)):
        assert program.resolve(captured.entries[0])().go() == 4


# Archives of strangers


@given(st.binary(max_size=300))
def test_any_bytes_are_a_program_or_a_remote_error(data: bytes) -> None:
    try:
        found = program.unpack(data, peer="p2")
    except RemoteError as error:
        peer = error.peer
    else:
        peer = "p2" if program.pack(found) == data else "another archive"
    assert peer == "p2"


@given(st.dictionaries(st.text(max_size=12), st.binary(max_size=20), max_size=4))
def test_an_archive_with_a_strange_path_is_refused_both_ways(files: dict[str, bytes]) -> None:
    data = msgspec.msgpack.encode(sorted(files.items()))
    try:
        found = program.unpack(data)
    except RemoteError:
        with pytest.raises((RemoteError, CallerError)):
            program.pack(files)
        return
    assert found == files
    assert all(path.endswith((".py", ".captured")) for path in files)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd.py",
        "../up.py",
        "a/../b.py",
        "a//b.py",
        ".py",
        "a.txt",
        "a b.py",
        "a\\b.py",
        "a.b/c.py",
        "os.py",
        "torch/__init__.py",
        "tallymesh/errors.py",
        "x" * 300 + ".py",
    ],
)
def test_a_path_that_is_not_a_module_of_ones_own_is_refused(path: str) -> None:
    with pytest.raises(RemoteError, match="Not a program"):
        program.unpack(msgspec.msgpack.encode([(path, b"")]))


def test_unsorted_repeated_and_undecodable_files_are_refused() -> None:
    for rows in (
        [("b.py", b""), ("a.py", b"")],
        [("a.py", b""), ("a.py", b"")],
        [("a.py", b"\xff")],
    ):
        with pytest.raises(RemoteError):
            program.unpack(msgspec.msgpack.encode(rows))


def test_a_program_over_the_limits_is_refused() -> None:
    with pytest.raises(CallerError, match="16777216"):
        program.pack({"a.captured": bytes(program.MAX_PROGRAM_BYTES)})
    with pytest.raises(RemoteError):
        program.unpack(bytes(program.MAX_PROGRAM_BYTES + 1))
    with pytest.raises(CallerError):
        program.pack({f"m{i}.py": b"" for i in range(program.MAX_FILES + 1)})


@pytest.mark.parametrize("entry", ["f", ":f", "a:", "a:b:c", "a.:f", "a:f()", "a:<locals>", "a b:f", ""])
def test_an_entry_that_is_not_module_and_name_is_refused(entry: str) -> None:
    with pytest.raises(RemoteError):
        program.resolve(entry)


@given(st.binary(max_size=80))
def test_captured_values_of_a_stranger_are_values_or_a_remote_error(data: bytes) -> None:
    try:
        program.read_captured(data)
    except RemoteError:
        pass


def test_captured_literals_cannot_run_anything() -> None:
    from tallymesh import values

    for text in ("__import__('os').getcwd()", "(" * 5000, "lambda: 0"):
        with pytest.raises(RemoteError):
            program.read_captured(values.encode({"data": {}, "literals": {"x": text}}))
