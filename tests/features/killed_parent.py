"""``latergator`` whose parent process is killed in the moment in which it is to end a child."""

import os
import signal
import sys

from alligator import latergator
from alligator.processes.process import Process


def be_killed(child: Process) -> None:
    """What the parent does in place of ending a child."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    setattr(Process, "kill", be_killed)  # noqa: B010 -- no type of a method allows for this
    sys.exit(latergator.main())
