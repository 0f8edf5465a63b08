"""Processes that agree to stop: all at the same step, soon after one was asked, and seldom waiting for each other."""

import threading

import pytest
import torch

from bixt3d import agreement
from bixt3d.agreement import Agreement


class Fabric:
    """One of several processes, each a thread here."""

    def __init__(self, rank, world):
        self.rank, self.world, self.world_size = rank, world, len(world["notes"])
        self.device = torch.device("cpu")

    def all_reduce(self, tensor, reduce_op):
        assert reduce_op == "max"
        self.world["notes"][self.rank] = tensor
        self.world["barrier"].wait(10)
        most = torch.stack(self.world["notes"]).amax(0)
        self.world["barrier"].wait(10)
        self.world["calls"][self.rank] += 1
        return most


def ask(seconds, asked, steps=1000):
    """Let ranks of these seconds a step ask after each; returns the step each stopped at, its answer, and the waits."""
    world = {
        "notes": [None] * len(seconds),
        "barrier": threading.Barrier(len(seconds)),
        "calls": [0] * len(seconds),
    }
    ended, clock = [None] * len(seconds), threading.local()

    def run(rank):
        clock.now = 0.0
        agreed = Agreement(Fabric(rank, world))
        for step in range(1, steps + 1):
            clock.now += seconds[rank]
            rank_asked, at, number = asked
            said = agreed.on(step, number if rank == rank_asked and step >= at else None)
            if said is not None:
                ended[rank] = (step, said)
                return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement.time, "perf_counter", lambda: clock.now)
        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(seconds))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    return ended, world["calls"][0]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_is_asked_and_all_stop_at_the_same_step_with_its_signal(rank):
    ended, _ = ask([3.0, 3.0], (rank, 7, 15))
    assert ended == [(7, 15), (7, 15)], "steps of seconds are agreed on one by one"


def test_short_steps_are_agreed_on_about_once_a_second_of_the_slowest():
    ended, waits = ask([0.005, 0.01, 0.002], (2, 500, 10))
    (step, number) = ended[0]
    assert ended == [(step, number)] * 3
    assert number == 10
    assert 500 <= step <= 610
    assert waits <= 10


def test_who_is_alone_asks_nobody():
    alone = Agreement(Fabric(0, {"notes": [None]}))
    assert [alone.on(1, None), alone.on(2, 15)] == [None, 15]
