"""A configured Gator, for ``latergator module:gator``. The test names the store in the environment."""

import os

from alligator import Gator
from tests.features import coroutine_work as coroutine_work  # so that no task waits for its import

gator = Gator(os.environ["SCENE_DSN"])
