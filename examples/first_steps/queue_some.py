from alligator import Gator
from tasks import count_words

gator = Gator("sqlite:///tmp/first_steps.db")

gator.task(count_words, "tasks.py")
gator.task(count_words, path="queue_some.py")

# Options are for how a task is run; they never mix with the function's own arguments.
with gator.options(retries=2) as opts:
    opts.task(count_words, "no_such_file.txt")

print(f"{gator.len()} tasks are waiting.")
