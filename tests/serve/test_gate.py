"""What is under way is counted, from any thread, and never more than allowed."""

import threading

import pytest

from mxa.serve.gate import Gate
from mxa.serve.refusal import Refusal


def test_requests() -> None:
    gate = Gate(2, 100)
    first, _ = gate.enter(), gate.enter()
    with pytest.raises(Refusal) as refused:
        gate.enter()
    assert refused.value.status == 503
    first.give_back()
    first.give_back()
    assert gate.requests == 1
    gate.enter()


def test_bytes() -> None:
    gate = Gate(2, 100)
    first, second = gate.enter(), gate.enter()
    first.hold(60)
    second.hold(40)
    with pytest.raises(Refusal):
        second.hold(1)
    first.give_back()
    assert (gate.requests, gate.held) == (1, 40)
    second.hold(60)
    second.give_back()
    assert (gate.requests, gate.held) == (0, 0)


def test_the_reason_is_not_in_the_error_s_text() -> None:
    assert "SECRET" not in repr(Refusal(400, "SECRET")) + str(Refusal(400, "SECRET"))


def test_from_many_threads() -> None:
    gate = Gate(8, 8000)

    def work() -> None:
        for _ in range(500):
            ticket = gate.enter()
            ticket.hold(1000)
            ticket.give_back()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (gate.requests, gate.held) == (0, 0)
