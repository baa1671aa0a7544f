"""What the command says of counts, workers, dead letters and schedules, however odd what it has read."""

import json
import math

import pytest

from alligator.backends.base import Counts, DeadLetter
from alligator.commands import reports, schedule_reports
from alligator.registry import Presence
from alligator.schedules import Schedule

NOW = 1_700_000_000.0


@pytest.mark.parametrize("moment", [math.inf, -math.inf, math.nan, 1e15, 1e300, -1e300])
def test_no_moment_is_too_far_off_to_be_told(moment: float) -> None:
    worker = Presence("w1", "host", 17, ["mail"], moment)
    letter = DeadLetter("mail", "1", "t1", b"{}", "note", moment)
    schedule = Schedule("s", "mail", every=60.0, next_at=moment, last_at=moment)

    assert "host" in reports.workers_text([worker], NOW, None)
    assert "t1" in reports.letters_text([letter], NOW, None)
    assert "t1" in reports.letter_text(letter, NOW, with_payload=True)
    assert "mail" in schedule_reports.schedules_text([schedule], NOW, None)
    assert schedule_reports.late_text([schedule], NOW) in (
        "",
        "1 schedule is overdue: no worker with --schedule seems to be at work on 'mail'.",
    )
    told = [
        reports.status_json({"mail": Counts()}, [worker]),
        reports.letter_json(letter, in_full=True),
        *schedule_reports.schedules_json([schedule]),
    ]
    json.dumps(told, allow_nan=False)


def test_every_command_calls_a_queue_a_queue() -> None:
    letter = DeadLetter("mail", "1", "t1", b"{}", "note", NOW)
    told = [
        *reports.status_json({"mail": Counts()}, [])["queues"],
        reports.letter_json(letter),
        *schedule_reports.schedules_json([Schedule("s", "mail", every=60.0)]),
    ]
    assert [(one["queue"], "queue_name" in one) for one in told] == [("mail", False)] * 3
