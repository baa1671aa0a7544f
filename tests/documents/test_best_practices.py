"""Chapter 1.3, best practices."""

import json
import sys

import pytest

from alligator.constants import SUCCESS, WAITING
from tests.documents.project import Project, Thing
from tests.unit.steps import popped

GATOR = """
# Create a new file, like `myapp/gator.py`
from alligator import Gator

gator = Gator('redis://localhost:6379/0')
"""

JOBS = """
done = []

def expensive_cache_rebuild(user_id):
    done.append(('cache rebuilt', user_id))

def expensive_thing():
    done.append('thing')

def send_mass_mail(list_id):
    done.append(('mail sent', list_id))

def update_follow_counts(user_id):
    done.append(('counts updated', user_id))
"""


REQUEST = Thing(user=Thing(pk=7))


@pytest.fixture
def myapp(project: Project) -> Project:
    project.write("myapp/gator.py", GATOR)
    project.write("myapp/jobs.py", JOBS)
    return project


# 1.3.1 Configure One Gator


def test_one_gator_for_all_files(myapp: Project) -> None:
    myapp.write(
        "myapp/views.py",
        """
# `myapp/views.py`
from myapp.gator import gator
from myapp.jobs import expensive_cache_rebuild  # the documents leave this to the reader

# ...Later...
def previously_slow_view(request):
    gator.task(expensive_cache_rebuild, user_id=request.user.pk)
""",
    )

    myapp.module("myapp.views").previously_slow_view(REQUEST)

    gator = myapp.module("myapp.gator").gator
    assert popped(gator).func_kwargs == {"user_id": 7}
    assert myapp.module("myapp.jobs").done == [("cache rebuilt", 7)]


# 1.3.2 Use Environment Variables or Settings for the Gator DSN

FROM_ENVIRONMENT = """
import os

from alligator import Gator

# Lean on the ENV variable.
gator = Gator(os.environ['ALLIGATOR_CONN'])
"""


def test_the_dsn_from_the_environment_in_development(project: Project) -> None:
    project.write(
        "myapp.py", FROM_ENVIRONMENT + "gator.task(len, 'four')\nprint(gator.pop().result)\n"
    )

    # $ export ALLIGATOR_CONN=locmem://
    # $ python myapp.py
    assert project.run("myapp.py", ALLIGATOR_CONN="locmem://") == "4\n"


def test_the_dsn_from_the_environment_in_production(project: Project) -> None:
    project.write("myapp.py", FROM_ENVIRONMENT + "gator.task(len, 'four')\n")

    # $ export ALLIGATOR_CONN=redis://some.dns.name.com:6379/0
    # $ python myapp.py
    project.run("myapp.py", ALLIGATOR_CONN=project.dsn)

    assert popped(project.gator()).result == 4


def test_the_dsn_from_djangos_settings(project: Project) -> None:
    project.write(
        "django/conf.py",
        "import types\nsettings = types.SimpleNamespace(ALLIGATOR_CONN='locmem://')\n",
    )
    project.write(
        "configured.py",
        """
from alligator import Gator

from django.conf import settings

# Lean on the settings variable.
gator = Gator(settings.ALLIGATOR_CONN)
""",
    )

    gator = project.module("configured").gator

    gator.task(len, "four")
    assert popped(gator).result == 4


# 1.3.3 Use an Alternate Queue for Testing

PREFIXED = """
import os

from alligator import Gator

# Lean on the ENV variable for a queue prefix.
gator = Gator(
    'redis://localhost:6379/0',
    # If you `export ALLIGATOR_PREFIX=test`, your queue name
    # becomes `test_all`. If not set, it's just `all`.
    queue_name='_'.join(filter(None, [os.environ.get('ALLIGATOR_PREFIX', ''), 'all']))
)
"""
# The documents join ['', 'all'], which makes "_all" of a prefix that is not set.


@pytest.mark.parametrize(("prefix", "queue_name"), [("test", "test_all"), (None, "all")])
def test_a_prefix_for_the_queues_of_tests(
    project: Project, monkeypatch: pytest.MonkeyPatch, prefix: str | None, queue_name: str
) -> None:
    if prefix is None:
        monkeypatch.delenv("ALLIGATOR_PREFIX", raising=False)
    else:
        monkeypatch.setenv("ALLIGATOR_PREFIX", prefix)
    project.write("prefixed.py", PREFIXED)

    gator = project.module("prefixed").gator
    gator.task(len, "four")

    assert gator.queue_name == queue_name
    assert project.gator().len() == (1 if queue_name == "all" else 0)
    assert popped(gator).result == 4


# 1.3.4 Use Environment Variables or Settings for `Task.async`


@pytest.mark.parametrize("spelling", ["is_async=os.environ", "**{'async': os.environ"])
@pytest.mark.parametrize(
    ("word", "status"), [("False", SUCCESS), ("0", SUCCESS), ("True", WAITING), ("yes", WAITING)]
)
def test_whether_tasks_wait_from_the_environment(
    myapp: Project, monkeypatch: pytest.MonkeyPatch, word: str, status: int, spelling: str
) -> None:
    source = """
import os

# Using the above tip of a single import...
from myapp.gator import gator
from myapp.jobs import expensive_thing  # the documents leave this to the reader

def some_view(request):
    with gator.options(is_async=os.environ['ALLIGATOR_ASYNC']) as opts:
        opts.task(expensive_thing)
"""
    if spelling.startswith("**"):
        source = source.replace(
            "is_async=os.environ['ALLIGATOR_ASYNC']", "**{'async': os.environ['ALLIGATOR_ASYNC']}"
        )
    myapp.write("myapp/views.py", source)
    monkeypatch.setenv("ALLIGATOR_ASYNC", word)

    myapp.module("myapp.views").some_view(REQUEST)

    ran = status == SUCCESS
    assert myapp.module("myapp.jobs").done == (["thing"] if ran else [])
    assert myapp.gator().len() == (0 if ran else 1)


# 1.3.5 Simple Task Parameters


def test_a_rich_object_is_refused_with_the_advice_to_pass_an_identifier(myapp: Project) -> None:
    gator = myapp.module("myapp.gator").gator

    with pytest.raises(TypeError, match=r"of type Thing, .* Pass an identifier"):
        gator.task(myapp.module("myapp.jobs").expensive_cache_rebuild, REQUEST.__dict__["user"])

    assert gator.len() == 0


# 1.3.6 Re-use the `Gator.options` Context Manager

ONE_BY_ONE = """
with gator.options(retries=3) as opts:
    opts.task(send_mass_mail, list_id)

with gator.options(retries=3) as opts:
    opts.task(update_follow_counts, request.user.pk)
"""
REUSED = """
with gator.options(retries=3) as opts:
    opts.task(send_mass_mail, list_id)
    opts.task(update_follow_counts, request.user.pk)
"""


@pytest.mark.parametrize("source", [ONE_BY_ONE, REUSED], ids=["one by one", "reused"])
def test_options_can_be_used_for_several_tasks(myapp: Project, source: str) -> None:
    jobs, gator = myapp.module("myapp.jobs"), myapp.module("myapp.gator").gator

    exec(source, vars(jobs) | {"gator": gator, "list_id": 3, "request": REQUEST})

    tasks = [popped(gator), popped(gator)]
    assert jobs.done == [("mail sent", 3), ("counts updated", 7)]
    assert [task.retries for task in tasks] == [3, 3]
    assert tasks[0].task_id != tasks[1].task_id
    assert gator.len() == 0


def test_what_is_queued_is_small(myapp: Project) -> None:
    jobs, gator = myapp.module("myapp.jobs"), myapp.module("myapp.gator").gator

    data = gator.task(jobs.send_mass_mail, 3).serialize()

    assert json.loads(data)["args"] == [3]
    assert sys.getsizeof(data) < 300
