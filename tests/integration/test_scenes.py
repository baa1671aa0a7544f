"""What tests and the campaign do to programs."""

import os
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

from tests.integration.scenes import Scene


def test_who_holds_the_file_is_seen_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    scene = Scene(f"sqlite://{tmp_path}/store/queue.db?sync=normal", tmp_path)
    scene.push("t")

    lock = os.open(tmp_path / "store" / "queue.db-lock", os.O_RDWR)
    seen: list[bool] = []
    for operation in (LOCK_UN, LOCK_EX, LOCK_UN):
        flock(lock, operation)
        seen.append(scene.is_written_to)
    os.close(lock)
    scene.gator.backend.close()

    assert seen == [False, True, False]
