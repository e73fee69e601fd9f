"""Timers, threads and ends of processes, with the real epoll and no waiting but for what is sure to come."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import pytest

from kernos.kernel.reactor import Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


def until(reactor: Reactor, done: list[object], count: int = 1) -> list[object]:
    while len(done) < count:
        reactor.turn(wait=True)
    return done


def test_timers_come_in_the_order_of_their_times_and_then_of_their_making(reactor: Reactor) -> None:
    done: list[object] = []
    for name, when in (("c", 0.0), ("a", -2.0), ("d", 0.0), ("b", -1.0)):
        reactor.at(reactor.now + when, partial(done.append, name))
    reactor.turn(wait=False)
    assert done == ["a", "b", "c", "d"]


def test_a_timer_of_the_future_and_a_cancelled_one_do_not_come(reactor: Reactor) -> None:
    done: list[object] = []
    reactor.at(reactor.now + 3_600.0, lambda: done.append("later"))
    reactor.at(reactor.now, lambda: done.append("cancelled")).cancel()
    reactor.turn(wait=False)
    assert done == []


def test_a_timer_wakes(reactor: Reactor) -> None:
    done: list[object] = []
    reactor.at(reactor.now + 0.002, lambda: done.append(reactor.now))
    before = reactor.now
    (at,) = until(reactor, done)
    assert isinstance(at, float)
    assert at >= before + 0.002


def test_results_and_errors_of_threads_come_back(reactor: Reactor) -> None:
    done: list[object] = []
    reactor.offload(lambda: 6 * 7, done.append)
    until(reactor, done)
    reactor.offload(lambda: 1 // 0, done.append)
    until(reactor, done, 2)
    assert done[0] == 42
    assert isinstance(done[1], ZeroDivisionError)


def test_the_end_of_a_process_is_told_once(reactor: Reactor) -> None:
    done: list[object] = []
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        reactor.watch_process(process.pid, lambda: done.append("end"))
        reactor.turn(wait=False)
        assert done == []
        process.kill()
        until(reactor, done)
    reactor.turn(wait=False)
    assert done == ["end"]


def test_a_process_that_has_ended_already(reactor: Reactor) -> None:
    done: list[object] = []
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        reactor.watch_process(process.pid, lambda: done.append("end"))
    assert until(reactor, done) == ["end"]


def test_a_descriptor_that_an_act_before_has_closed_is_left_out(reactor: Reactor) -> None:
    done: list[object] = []
    fds = [os.eventfd(1, os.EFD_NONBLOCK) for _ in range(2)]

    def close_all(own: int) -> None:
        done.append(own)
        for fd in fds:
            reactor._epoll.unregister(fd)
            del reactor._acts[fd]
            os.close(fd)

    for fd in fds:
        reactor.watch(fd, partial(close_all, fd))
    reactor.turn(wait=False)
    assert len(done) == 1


def broken() -> None:
    raise RuntimeError("a defect")


@pytest.mark.parametrize("how", ["timer", "thread", "descriptor"])
def test_an_act_that_fails_takes_nothing_with_it(reactor: Reactor, how: str) -> None:
    done: list[object] = []
    fd = os.eventfd(1, os.EFD_NONBLOCK)
    if how == "timer":
        reactor.at(reactor.now, broken)
    elif how == "thread":
        reactor.offload(lambda: None, lambda _: broken())
    else:
        reactor.watch(fd, broken)
    reactor.offload(lambda: None, lambda _: done.append("next"))
    try:
        assert until(reactor, done) == ["next"]
    finally:
        os.close(fd)


def test_a_process_that_cannot_be_watched(reactor: Reactor, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pidfd_open", none_left)
    reactor.watch_process(os.getpid(), broken)
    reactor.turn(wait=False)
