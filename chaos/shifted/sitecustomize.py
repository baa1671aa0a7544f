"""Python reads this at its start, where this folder is on its path: its clock is then some seconds off."""

import os
import time

_SECONDS = float(os.environ.get("CHAOS_CLOCK", "0"))
_right, _right_ns = time.time, time.time_ns

time.time = lambda: _right() + _SECONDS
time.time_ns = lambda: _right_ns() + round(_SECONDS * 1e9)
