"""The bell that wakes those who wait in a process."""

from alligator.bell import Bell, Woken


def test_an_interrupt_is_not_lost_behind_any_number_of_rings() -> None:
    bell = Bell()
    for _ in range(70_000):  # more than a pipe holds
        bell.ring()

    bell.interrupt()

    assert any(bell.wait(0.0) is Woken.BY_INTERRUPT for _ in range(200))
    bell.close()


def test_a_ring_ends_one_wait_and_interrupts_none() -> None:
    bell = Bell()
    bell.ring()

    assert bell.wait(60.0) is Woken.BY_RING
    assert bell.wait(0.0) is Woken.IN_TIME
    bell.close()
