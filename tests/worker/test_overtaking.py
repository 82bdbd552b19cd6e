"""Who may overtake whom at the device: equal shares of pictures, no credit for having been away."""

from db.chunks import URGENT_CHUNK
from worker.overtaking import Overtaking


class Device:
    """A worker with a bulk chunk of account 1 in hand; at every picture, others may overtake with whole chunks."""

    def __init__(self) -> None:
        self.overtaking = Overtaking(0.0, lambda: 0.0)
        self.scored = {1: 0, 2: 0, 3: 0}

    def run(self, pictures: int, greedy: list[int], chunk: int = URGENT_CHUNK) -> None:
        """Score so many pictures of account 1, while these accounts always have an urgent chunk ready."""
        for _ in range(pictures):
            self.scored[1] += 1
            self.overtaking.scored(1)
            for account in greedy:
                if account not in self.overtaking.ahead(1):
                    self.scored[account] += chunk
                    self.overtaking.scored(account, chunk, overtook=True)


def test_calling_everything_urgent_gains_no_more_than_a_chunk_or_two() -> None:
    device = Device()
    device.run(5000, [2])
    assert 5000 <= device.scored[2] <= 5000 + 2 * URGENT_CHUNK


def test_each_of_several_gets_as_much_as_the_one_it_overtakes() -> None:
    device = Device()
    device.run(5000, [2, 3], chunk=1)
    assert all(5000 <= device.scored[account] <= 5000 + 2 * URGENT_CHUNK for account in (2, 3))


def test_who_comes_late_or_comes_back_has_no_credit() -> None:
    device = Device()
    device.run(1, [2])
    device.run(3000, [])
    before = device.scored[2]
    device.run(1, [2])
    device.run(1, [3])
    assert device.scored[2] - before <= 2 * URGENT_CHUNK
    assert device.scored[3] <= 2 * URGENT_CHUNK


def test_a_few_single_uploads_always_overtake() -> None:
    device = Device()
    for _ in range(100):
        assert 2 not in device.overtaking.ahead(1)
        device.run(1, [2], chunk=1)


def test_an_account_overtakes_itself_freely_and_pays_for_it() -> None:
    overtaking = Overtaking(0.0, lambda: 0.0)
    overtaking.scored(1)
    overtaking.scored(1, 1000, overtook=True)
    assert 1 not in overtaking.ahead(1)
    overtaking.scored(2, 1000, overtook=True)
    assert 2 not in overtaking.ahead(1), "what went ahead of account 1's chunk was account 1's too"


def test_it_looks_again_after_a_while_only() -> None:
    now = [10.0]
    overtaking = Overtaking(0.1, lambda: now[0])
    seen = []
    for _ in range(30):
        seen.append(overtaking.due())
        now[0] += 0.01
    assert sum(seen) == 3
    assert seen[0]
