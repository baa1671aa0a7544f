"""Make a new post, as a web application's view would: quickly, for the mailing is queued.

python new_post.py "See you later, alligator."
"""

import os
import sys

import social
from alligator import Gator
from mailing import send_post_email

BILL = 1

gator = Gator(os.environ["ALLIGATOR_CONN"])


def new_post(user_id: int, message: str) -> social.Post:
    post = social.create_post(user_id, message)
    # Ids, not objects: the worker fetches what is in the database by then.
    with gator.options(retries=3) as opts:
        opts.task(send_post_email, user_id, post.id)
    return post


if __name__ == "__main__":
    social.make_if_absent()
    made = new_post(BILL, sys.argv[1])
    print(f"Post {made.id} is made; mailing it to Bill's followers is queued.")
