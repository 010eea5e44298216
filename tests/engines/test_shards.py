"""How often a shard may lose its worker, and errors on their way between processes."""

import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import shard_work
from pydantic import ValidationError

from soo_marl.engines.shards import LOSSES, Attempts, WorkerLostError, answer, packed_error, unpacked_error
from soo_marl.storage.files import RunDirectoryError


def lose(attempts: Attempts, *reports: float) -> None:
    """One attempt with these reports that loses its worker."""
    attempts.start()
    for done in reports:
        attempts.report(done)
    attempts.lose("SIGKILL")


@pytest.mark.parametrize("reports", [(), (0.0,), (0.0, 5.0, 9.0), (7.0, 8.0)])
def test_the_same_start_again_and_again_is_too_much(reports: tuple[float, ...]) -> None:
    attempts = Attempts()
    for _ in range(LOSSES - 1):
        lose(attempts, *reports)
    with pytest.raises(WorkerLostError, match=r"3 times without getting further \(SIGKILL\)"):
        lose(attempts, *reports)


def test_a_later_start_allows_as_many_losses_again() -> None:
    attempts = Attempts()
    for start in range(10):
        for _ in range(LOSSES - 1):
            lose(attempts, float(start), 100.0)
    with pytest.raises(WorkerLostError):
        lose(attempts, 9.0, 200.0)


def answered(function: Callable[..., Any], *arguments: Any) -> Any:
    """What arrives of a call in a worker."""
    call = pickle.dumps((function, arguments))
    return answer(call, report=lambda done: None, stop=lambda: False).get()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("value", ValueError, "the reason"),
        ("directory", RunDirectoryError, "the reason"),
        ("strange", shard_work.StrangeError, "code 7 at home"),
        ("validation", ValidationError, "number"),
        ("result", Exception, "pickle"),  # cannot be sent back
    ],
)
def test_errors_survive_the_way(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        answered(shard_work.fail, kind)
    assert kind == "result" or type(raised.value) is error


def test_results_survive_the_way() -> None:
    assert answered(shard_work.square, 3, 0.0) == (9, os.getpid())


def test_errors_that_cannot_travel_keep_their_message() -> None:
    class LocalError(Exception):
        pass

    arrived = unpacked_error(packed_error(LocalError("the reason")))
    assert str(arrived) == "LocalError: the reason"
