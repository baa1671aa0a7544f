"""What is secret in a DSN shows nowhere, whatever fails."""

import logging
import traceback
from pathlib import Path

import pytest

from alligator import Gator
from tests.unit import jobs

SECRET = "s3cr3t-pw"
NOBODY = "127.0.0.1:1"
"""Where nobody listens."""
DSNS = [
    f"redis://me:{SECRET}@{NOBODY}/0",
    f"rediss://me:{SECRET}@{NOBODY}/0",
    f"redis://{NOBODY}/0?password={SECRET}",
    f"redis+sentinel://me:{SECRET}@{NOBODY}/mymaster/0?sentinel_password={SECRET}",
    f"redis+cluster://me:{SECRET}@{NOBODY}/",
    f"postgres://me:{SECRET}@{NOBODY}/shop",
    f"postgresql://{NOBODY}/shop?user=me&password={SECRET}",
    f"postgres://me:{SECRET}%zz@{NOBODY}/shop",
    f"beanstalk://me:{SECRET}@{NOBODY}/",
    f"sqs://us-west-2/?endpoint=http://{NOBODY}&access_key=id&secret_key={SECRET}",
    # Written wrongly:
    f"redis://me:{SECRET}@host:port/0",
    f"redis:/me:{SECRET}@host",
    f"mysql://me:{SECRET}@host/db",
    f"sqlite://me:{SECRET}@host",
]


@pytest.mark.parametrize("dsn", DSNS, ids=lambda dsn: dsn.replace(SECRET, "-"))
def test_no_error_and_no_log_shows_a_password(
    dsn: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    caplog.set_level(logging.DEBUG, "alligator")
    shown: list[str] = []
    try:
        gator = Gator(dsn)
        shown += [repr(gator), str(gator.dsn), repr(vars(gator))]
        gator.task(jobs.add, 1, 2)
    except Exception:
        shown.append(traceback.format_exc())  # with all that it was raised from

    assert shown
    assert SECRET not in "\n".join([*shown, caplog.text])
