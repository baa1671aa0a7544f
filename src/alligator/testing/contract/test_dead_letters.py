"""What failed for good is kept, to be looked at, queued again or thrown away."""

import time

from alligator.backends.base import Ack, Backend, Bury, Counts, Message, Release
from alligator.testing.stores import (
    QUEUE,
    TICK,
    buried,
    drain,
    ids,
    lapsed,
    push,
    skip_if_it_names_tasks,
    skip_unless_it_picks,
    skip_unless_what_is_due_joins_the_end,
    take,
    take_ready,
)


def letter_ids(backend: Backend, task_id: str) -> list[str]:
    return [letter.letter_id for letter in backend.dead(QUEUE, task_id=task_id)]


def dead_tasks(backend: Backend, queue_name: str = QUEUE) -> list[str]:
    return [letter.task_id for letter in backend.dead(queue_name, limit=1000)]


def test_a_dead_letter_tells_all_about_its_task(backend: Backend) -> None:
    backend.push_many("mail", [Message("t1", b'{"to": "x"}')])
    before = time.time()

    backend.settle([Bury(take(backend, of="mail"), "It went wrong.")])

    [letter] = backend.dead("mail")
    assert (letter.queue_name, letter.task_id) == ("mail", "t1")
    assert (letter.body, letter.note) == (b'{"to": "x"}', "It went wrong.")
    assert before - TICK <= letter.buried_at <= time.time() + TICK
    assert letter.letter_id


def test_a_buried_task_is_out_of_its_queue(backend: Backend) -> None:
    skip_unless_it_picks(backend)
    buried(backend, "t1")

    assert backend.count(QUEUE) == Counts(dead=1)
    assert backend.len(QUEUE) == 0
    assert take_ready(backend) == []
    assert backend.cancel(QUEUE, "t1") is None
    assert backend.reserve_task(QUEUE, "t1", "w") is None


def test_a_queue_without_dead_letters_lists_none(backend: Backend) -> None:
    buried(backend, "t1", of="other")

    assert backend.dead(QUEUE) == []
    assert backend.dead("never-used") == []
    assert backend.dead(QUEUE, task_id="t1") == []


def test_dead_letters_are_listed_the_newest_first(backend: Backend) -> None:
    buried(backend, "t3", "t1", "t2")

    assert dead_tasks(backend) == ["t2", "t1", "t3"]


def test_dead_letters_buried_by_one_call_keep_its_order(backend: Backend) -> None:
    push(backend, "t1", "t2", "t3")
    one, two, three = take_ready(backend)

    backend.settle([Bury(two, ""), Bury(three, ""), Bury(one, "")])

    assert dead_tasks(backend) == ["t1", "t3", "t2"]


def test_dead_letters_are_listed_in_pages(backend: Backend) -> None:
    buried(backend, "t1", "t2", "t3", "t4", "t5")

    def page(limit: int, skip: int) -> list[str]:
        return [letter.task_id for letter in backend.dead(QUEUE, limit=limit, skip=skip)]

    assert page(2, 0) == ["t5", "t4"]
    assert page(2, 2) == ["t3", "t2"]
    assert page(2, 4) == ["t1"]
    assert page(2, 5) == []
    assert page(0, 0) == []
    assert page(100, 1) == ["t4", "t3", "t2", "t1"]


def test_one_task_may_have_several_dead_letters(backend: Backend) -> None:
    for note in ["first", "second"]:
        buried(backend, "t1", note=note)
    buried(backend, "t2")

    letters = backend.dead(QUEUE, task_id="t1")

    assert [letter.note for letter in letters] == ["second", "first"]
    assert len({letter.letter_id for letter in letters}) == 2
    assert backend.count(QUEUE) == Counts(dead=3)


def test_the_dead_letters_of_one_task_are_listed_in_pages(backend: Backend) -> None:
    for note in ["1", "2", "3"]:
        buried(backend, "t1", note=note)
        buried(backend, "other")

    def page(limit: int, skip: int) -> list[str]:
        letters = backend.dead(QUEUE, task_id="t1", limit=limit, skip=skip)
        return [letter.note for letter in letters]

    assert page(2, 0) == ["3", "2"]
    assert page(2, 1) == ["2", "1"]
    assert page(2, 3) == []


def test_a_letter_carries_the_body_of_the_last_attempt(backend: Backend) -> None:
    push(backend, "t1")
    backend.settle([Release(take(backend), body=b"second attempt")])

    backend.settle([Bury(take(backend), "note")])

    assert [letter.body for letter in backend.dead(QUEUE)] == [b"second attempt"]


def test_a_note_may_be_any_text(backend: Backend) -> None:
    notes = [
        "",
        "nul \0, bell \a, newline\r\n, escape \x1b[31m",
        "quotes ' \" ` \\ and %s {} $1 :name",
        "žluťoučký 🐊 \u2028",
        "long " * 50_000,
    ]
    for note in notes:
        buried(backend, "t1", note=note)

    assert [letter.note for letter in backend.dead(QUEUE)] == list(reversed(notes))


# Trying again.


def test_a_dead_letter_tried_again_joins_the_end_of_its_queue(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    [letter] = buried(backend, "t1")
    push(backend, "t2")

    assert backend.retry_dead(QUEUE, [letter]) == [letter]

    assert backend.count(QUEUE) == Counts(waiting=2)
    held = take_ready(backend)
    assert [(one.task_id, one.body, one.deliveries) for one in held] == [
        ("t2", b"t2", 1),
        ("t1", b"t1", 1),
    ]
    assert backend.settle([Ack(one) for one in held]) == []
    assert dead_tasks(backend) == []


def test_deliveries_are_counted_anew_after_a_burial(backend: Backend) -> None:
    _, fresh = lapsed(backend, "t1")
    backend.settle([Bury(fresh, "note")])

    backend.retry_dead(QUEUE, letter_ids(backend, "t1"))

    assert take(backend).deliveries == 1


def test_dead_letters_are_tried_again_in_the_order_asked_for(backend: Backend) -> None:
    skip_unless_what_is_due_joins_the_end(backend)
    one, two, three = buried(backend, "t1", "t2", "t3")

    assert backend.retry_dead(QUEUE, [two, one]) == [two, one]

    assert drain(backend) == ["t2", "t1"]
    assert [letter.letter_id for letter in backend.dead(QUEUE)] == [three]


def test_a_letter_stays_while_its_task_is_queued(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    [letter] = buried(backend, "t1")
    backend.push_many(QUEUE, [Message("t1", b"pushed meanwhile")])

    assert backend.retry_dead(QUEUE, [letter]) == []
    assert backend.count(QUEUE) == Counts(waiting=1, dead=1)

    held = take(backend)
    assert held.body == b"pushed meanwhile"
    assert backend.retry_dead(QUEUE, [letter]) == []
    assert backend.count(QUEUE) == Counts(running=1, dead=1)

    backend.settle([Ack(held)])
    assert backend.retry_dead(QUEUE, [letter]) == [letter]
    assert take(backend).body == b"t1"


def test_of_several_letters_of_one_task_one_is_tried_again(backend: Backend) -> None:
    skip_if_it_names_tasks(backend)
    [first] = buried(backend, "t1", note="first")
    [second] = buried(backend, "t1", note="second")

    assert backend.retry_dead(QUEUE, [second, first]) == [second]

    assert ids(take_ready(backend)) == ["t1"]
    assert [letter.note for letter in backend.dead(QUEUE)] == ["first"]


def test_a_letter_named_twice_is_tried_again_once(backend: Backend) -> None:
    [letter] = buried(backend, "t1")

    assert backend.retry_dead(QUEUE, [letter, letter]) == [letter]
    assert drain(backend) == ["t1"]


def test_a_task_may_fail_again_after_it_was_tried_again(backend: Backend) -> None:
    [first] = buried(backend, "t1", note="first")
    backend.retry_dead(QUEUE, [first])
    backend.settle([Bury(take(backend), "second")])

    [letter] = backend.dead(QUEUE)
    assert letter.note == "second"
    assert backend.retry_dead(QUEUE, [letter.letter_id]) == [letter.letter_id]
    assert drain(backend) == ["t1"]


# Throwing away.


def test_a_purged_letter_is_gone(backend: Backend) -> None:
    one, two = buried(backend, "t1", "t2")

    assert backend.purge_dead(QUEUE, [one]) == [one]

    assert dead_tasks(backend) == ["t2"]
    assert backend.count(QUEUE) == Counts(dead=1)
    assert backend.dead(QUEUE, task_id="t1") == []
    assert backend.retry_dead(QUEUE, [one]) == []
    assert backend.purge_dead(QUEUE, [one, two]) == [two]


def test_purging_a_letter_leaves_its_queued_task_alone(backend: Backend) -> None:
    [letter] = buried(backend, "t1")
    push(backend, "t1")

    backend.purge_dead(QUEUE, [letter])

    assert drain(backend) == ["t1"]


def test_a_letter_id_that_is_unknown_is_passed_over(backend: Backend) -> None:
    [letter] = buried(backend, "t1")
    # What a person may type.
    unknown = ["nope", "", "0", "-1", "99999999999999999999", "1.5", "t1", "' OR 1=1 --", "*", "ř"]

    assert backend.retry_dead(QUEUE, [*unknown, letter]) == [letter]
    assert backend.purge_dead(QUEUE, unknown) == []
    assert backend.retry_dead(QUEUE, []) == []
    assert backend.purge_dead(QUEUE, []) == []


def test_a_letter_of_another_queue_is_out_of_reach(backend: Backend) -> None:
    [letter] = buried(backend, "t1", of="other")

    assert backend.retry_dead(QUEUE, [letter]) == []
    assert backend.purge_dead(QUEUE, [letter]) == []

    assert dead_tasks(backend, "other") == ["t1"]
    assert take_ready(backend) == []


def test_a_thousand_letters_are_tried_again_and_purged_at_once(backend: Backend) -> None:
    names = [f"t{number}" for number in range(1000)]
    push(backend, *names)
    backend.settle([Bury(held, "note") for held in take_ready(backend)])
    assert dead_tasks(backend) == list(reversed(names))
    letters = [letter.letter_id for letter in reversed(backend.dead(QUEUE, limit=1000))]

    assert backend.retry_dead(QUEUE, letters) == letters
    held = take_ready(backend)
    assert ids(held) == names
    backend.settle([Bury(one, "note") for one in held])
    letters = [letter.letter_id for letter in backend.dead(QUEUE, limit=1000)]
    assert backend.purge_dead(QUEUE, letters) == letters
    assert backend.count(QUEUE) == Counts()
