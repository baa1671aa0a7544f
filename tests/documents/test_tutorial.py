"""Chapter 1.2, the tutorial: the site that mails the followers of whoever has posted.

Django and the site's models are stand-ins, a few lines each, which keep posts and mails in files. The rest
is as the documents show it.
"""

import json
from typing import Any

import pytest

from alligator import Gator
from alligator.constants import RETRYING, SUCCESS, WAITING
from alligator.testing.stores import until
from tests.documents.project import LATERGATOR, Project, Thing, stopped, until_drained

STAND_INS = {
    "django/conf.py": """
import types

settings = types.SimpleNamespace(SERVER_EMAIL='server@example.com')
""",
    "django/http.py": """
class Http404(Exception):
    pass
""",
    "django/shortcuts.py": """
import json
import pathlib

MAILS = pathlib.Path(__file__).parents[1] / 'mails.txt'

def redirect(name):
    return 'redirect to ' + name

def send_email(subject, message, sender, recipient_list):
    with MAILS.open('a') as mails:
        mails.write(json.dumps([subject, message, sender, recipient_list]) + '\\n')
""",
    "django/contrib/auth/models.py": """
from types import SimpleNamespace

class Followers:
    def all(self):
        return [SimpleNamespace(email=name + '@example.com') for name in ('ann', 'bob')]

class User:
    class objects:
        def get(pk):
            return SimpleNamespace(pk=pk, username='daniel', followers=Followers())
""",
    "sosocial/models.py": """
import pathlib
from types import SimpleNamespace

POST = pathlib.Path(__file__).parents[1] / 'post.txt'

class Post:
    class objects:
        def create(message):
            POST.write_text(message)
            return SimpleNamespace(pk=1)

        def get(pk):
            if not POST.exists():
                raise ConnectionError('the database is down')
            return SimpleNamespace(pk=pk, message=POST.read_text())
""",
}

VIEWS = """
from alligator import Gator

from django.contrib.auth.models import User
from django.conf import settings
from django.http import Http404
from django.shortcuts import redirect, send_email

from sosocial.models import Post

# Please configure this once & import it elsewhere.
# Bonus points if you use a settings (e.g. 'settings.ALLIGATOR_DSN')
# instead of a hard-coded string.
gator = Gator('redis://localhost:6379/0')

def send_post_email(user_id, post_id):
    post = Post.objects.get(pk=post_id)
    user = User.objects.get(pk=user_id)

    subject = "A new post by {}".format(user.username)
    to_emails = [follow.email for follow in user.followers.all()]
    send_email(
        subject,
        post.message,
        settings.SERVER_EMAIL,
        recipient_list=to_emails
    )

def new_post(request):
    if not request.method == 'POST':
        raise Http404('Gotta use POST.')

    # Don't write code like this. Sanitize your data, kids.
    post = Post.objects.create(
        message=request.POST['message']
    )

    # The function call was here. Now we'll create a task then carry on.
    gator.task(send_post_email, request.user.pk, post.pk)

    # Redirect like a good webapp should.
    return redirect('activity_feed')
"""

RUN_TASKS = """
# Within something like 'run_tasks.py'...
from alligator import Gator, Worker

# Again, bonus points for an import and/or settings usage.
gator = Gator('redis://localhost:6379/0')

worker = Worker(gator)
worker.run_forever()
"""

RETRIES = """
# New code
with gator.options(retries=3) as opts:
    # Be careful to use 'opts.task', not 'gator.task' here!
    opts.task(send_post_email, request.user.pk, post.pk)
"""

AT_ONCE = """
# Bonus points for using 'settings.DEBUG' (or similar) instead of a
# hard-coded 'False'.
with gator.options(is_async=False) as opts:
    opts.task(send_post_email, request.user.pk, post.pk)
"""

MAIL = [
    "A new post by daniel",
    "See you later!",
    "server@example.com",
    ["ann@example.com", "bob@example.com"],
]


REQUEST = Thing(method="POST", POST={"message": "See you later!"}, user=Thing(pk=7))


@pytest.fixture
def site(project: Project) -> Project:
    for path, source in STAND_INS.items():
        project.write(path, source)
    project.write("views.py", VIEWS)
    return project


def mails(site: Project) -> list[Any]:
    file = site.folder / "mails.txt"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# 1.2.4 Create a Gator Instance


def test_a_gator_of_local_memory() -> None:
    names: dict[str, Any] = {}
    exec(
        """
from alligator import Gator

# Creates an in-memory/in-process queue.
# The same process must consume from the queue, or things will be thrown
# away when the process exits.
gator = Gator('locmem://')
""",
        names,
    )

    names["gator"].task(len, "four")
    assert names["gator"].pop().result == 4


def test_a_gator_of_redis(project: Project) -> None:
    project.write(
        "redis_gator.py",
        """
from alligator import Gator

# Connect to a locally-running Redis server & use DB 0.
gator = Gator('redis://localhost:6379/0')
""",
    )

    gator: Gator = project.module("redis_gator").gator

    gator.task(len, "four")
    task = gator.pop()
    assert task is not None
    assert task.result == 4


# 1.2.5 Put the Task on the Queue, 1.2.6 Running a Worker


def test_a_new_post_queues_its_mail_and_carries_on(site: Project) -> None:
    views = site.module("views")

    assert views.new_post(REQUEST) == "redirect to activity_feed"

    assert mails(site) == []
    assert views.gator.len() == 1
    task = views.gator.pop()
    assert (task.status, task.func) == (SUCCESS, views.send_post_email)
    assert mails(site) == [MAIL]


@pytest.mark.parametrize("runner", ["latergator.py", "run_tasks.py"])
def test_a_worker_in_another_process_sends_the_mail(site: Project, runner: str) -> None:
    site.write("run_tasks.py", RUN_TASKS)
    views = site.module("views")
    views.new_post(REQUEST)

    # $ latergator.py redis://localhost:6379/0
    command = ["run_tasks.py"] if runner == "run_tasks.py" else ["-c", LATERGATOR, site.dsn]
    with site.running(*command) as worker:
        until(lambda: mails(site) == [MAIL], "the mail is sent")
        views.new_post(REQUEST)  # it consumes tasks as they come
        until(lambda: mails(site) == [MAIL] * 2, "the second mail is sent")
        until_drained(views.gator)
        stopped(worker)

    assert views.gator.len() == 0
    assert views.gator.backend.dead("all") == []


# 1.2.7 Working Around Failsome Tasks


def run_example(source: str, views: Any) -> None:
    """Run lines of the view that stand alone in the documents."""
    names: dict[str, Any] = {**vars(views), "request": REQUEST, "post": Thing(pk=1)}
    exec(source, names)


def test_a_task_gets_three_retries(site: Project) -> None:
    views = site.module("views")

    run_example(RETRIES, views)

    tries = [views.gator.pop() for _ in range(3)]
    assert [(task.status, task.retries) for task in tries] == [
        (RETRYING, 2),
        (RETRYING, 1),
        (RETRYING, 0),
    ]
    with pytest.raises(ConnectionError, match="the database is down"):
        views.gator.pop()
    [letter] = views.gator.backend.dead("all")
    assert "the database is down" in letter.note


def test_a_task_with_retries_gets_over_a_failure(site: Project) -> None:
    views = site.module("views")
    run_example(RETRIES, views)
    assert views.gator.pop().status == RETRYING

    (site.folder / "post.txt").write_text("See you later!")  # the database is back

    assert views.gator.pop().status == SUCCESS
    assert mails(site) == [MAIL]


# 1.2.8 Testing Tasks


@pytest.mark.parametrize("spelling", ["is_async=False", "**{'async': False}"])
def test_a_task_that_is_not_async_runs_right_away(site: Project, spelling: str) -> None:
    views = site.module("views")
    (site.folder / "post.txt").write_text("See you later!")

    run_example(AT_ONCE.replace("is_async=False", spelling), views)

    assert mails(site) == [MAIL]
    assert views.gator.len() == 0


def test_a_task_function_can_be_tested_as_the_plain_function_it_is(site: Project) -> None:
    (site.folder / "post.txt").write_text("See you later!")

    site.module("views").send_post_email(7, 1)

    assert mails(site) == [MAIL]


def test_gator_task_inside_options_has_no_options(site: Project) -> None:
    # "Be careful to use 'opts.task', not 'gator.task' here!"
    views = site.module("views")
    with views.gator.options(retries=3):
        task = views.gator.task(views.send_post_email, 7, 1)

    assert (task.retries, task.status) == (0, WAITING)
