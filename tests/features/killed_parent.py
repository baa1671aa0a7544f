"""``latergator`` whose parent process is killed in the moment in which it is to end a child."""

import os
import signal
import sys

from alligator import latergator
from alligator.process import Process


def be_killed(child: Process) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Process.kill = be_killed  # type: ignore[method-assign] -- this is the fault that is to happen
    sys.exit(latergator.main())
