"""Ray as `RayPool` uses it, in this process: tasks are generators of the test's that run when they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any


class RayError(Exception):
    """As ray.exceptions.RayError: a worker, an object or a machine of the cluster is lost."""


class FakeRay:
    """`run` is what a task does in the place of the function that it was made of; what it raises, a Ray worker did."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, run: Callable[..., Iterator[Any]], cpus: int = 2) -> None:
        self.run = run
        self.cpus = cpus
        self.given: list[tuple[Any, ...]] = []  # what each task was given, as it was passed
        self.stored: list[bytes] = []
        self.options: dict[str, Any] = {}
        self.cancelled = 0
        self.is_shut = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)}

    def put(self, data: bytes) -> Ref:
        self.stored.append(data)
        return Ref(data)

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=self._start)

    def _start(self, *given: Any) -> Stream:
        self.given.append(given)
        return Stream(self.run(*(each.value if isinstance(each, Ref) else each for each in given)))

    def wait(
        self, streams: list[Stream], *, num_returns: int, timeout: float | None
    ) -> tuple[list[Stream], list[Stream]]:
        return streams[:num_returns], streams[num_returns:]

    def get(self, ref: Ref) -> Any:
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value

    def cancel(self, stream: Stream, *, force: bool) -> None:
        assert force
        self.cancelled += 1

    def shutdown(self) -> None:
        self.is_shut = True


class Ref:
    def __init__(self, value: Any) -> None:
        self.value = value


class Stream:
    """A task's events, one reference each."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events

    def __next__(self) -> Ref:
        try:
            return Ref(next(self._events))
        except RayError as error:
            return Ref(error)
