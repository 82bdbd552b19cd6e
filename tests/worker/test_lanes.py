"""Two queues that read as one."""

from worker.lanes import Lanes


def test_the_urgent_first_and_each_in_its_order() -> None:
    lanes: Lanes[int] = Lanes()
    for number in range(6):
        lanes.put(number, urgent=number % 2 == 1)
    assert list(lanes) == [1, 3, 5, 0, 2, 4]
    assert lanes.remove(3)
    assert not lanes.remove(3)
    assert lanes.remove(2)
    assert (len(lanes), lanes.first()) == (4, 1)
    assert [lanes.take() for _ in range(len(lanes))] == [1, 5, 0, 4]
    assert not lanes
