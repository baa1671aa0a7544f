"""Chapter 1.4, extending Alligator: hooks, task classes, several queues, a store and a worker of one's own."""

import bz2
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alligator import ALL, Task, Worker
from alligator.constants import CANCELED, RETRYING, SUCCESS
from alligator.testing.stores import until
from tests.documents.project import Project, stopped, until_drained
from tests.unit.steps import popped

# 1.4.1 Hook Methods

FEEDS = """
import logging

from alligator import Gator
import requests

from myapp.exceptions import FeedUnavailable, FeedNotFound
from myapp.utils import cache

log = logging.getLogger(__file__)

gator = Gator('redis://localhost:6379/0')  # the documents leave this to the reader

# This is the main task function.
def fetch_feeds(feeds):
    for feed_url in feeds:
        resp = requests.get(feed_url)

        if resp.status_code == 503:
            raise FeedUnavailable(feed_url)
        elif resp.status_code != 200:
            raise FeedNotFound(feed_url)

        # Some other processing of the feed data

    return len(feeds)

# Hook functions
def log_start(task):
    log.info('Starting to import feeds via task {}'.format(task.task_id))

def log_success(task, result):
    log.info('Finished importing {} feeds via task {}'.format(
        result,
        task.task_id
    ))
    cache.incr('feeds_imported', incr_by=result)

def maybe_retry_error(task, err):
    if isinstance(err, FeedUnavailable):
        # Try again soon.
        task.retries += 1
    else:
        log.error('Importing feed url {} failed.'.format(str(err)))

# Now we can use those hooks.
with gator.options(on_start=log_start, on_success=log_success, on_error=maybe_retry_error) as opts:
    opts.task(fetch_feeds, [
        'http://daringfireball.net/feeds/main',
        'http://xkcd.com/rss.xml',
        'http://www.reddit.com/r/DotA2/.rss',
    ])
"""
HOSTS = "daringfireball.net", "xkcd.com", "www.reddit.com"

FEED_STAND_INS = {
    "requests.py": """
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import urlopen

def get(url):
    try:
        with urlopen(url) as answer:
            return SimpleNamespace(status_code=answer.status)
    except HTTPError as err:
        with err:
            return SimpleNamespace(status_code=err.code)
""",
    "myapp/exceptions.py": """
class FeedUnavailable(Exception):
    pass

class FeedNotFound(Exception):
    pass
""",
    "myapp/utils.py": """
class cache:
    values = {}

    def incr(key, incr_by):
        cache.values[key] = cache.values.get(key, 0) + incr_by
""",
}


class FeedServer:
    """The three sites, on this machine. Each answer is the next of ``statuses``, and 200 thereafter."""

    def __init__(self) -> None:
        statuses: list[int] = []
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(self.path)
                self.send_response(statuses.pop(0) if statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.statuses = statuses
        self.paths = paths
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def sites() -> Iterator[FeedServer]:
    feeds = FeedServer()
    thread = threading.Thread(target=feeds.server.serve_forever)
    thread.start()
    yield feeds
    feeds.server.shutdown()
    thread.join()
    feeds.server.server_close()


@pytest.fixture
def feeds(project: Project, sites: FeedServer) -> Any:
    """The module of the example, which queues its task when it is imported."""
    for path, source in FEED_STAND_INS.items():
        project.write(path, source)
    source = FEEDS
    for host in HOSTS:
        source = source.replace(host, sites.address)
    project.write("myapp/feeds.py", source)
    return project.module("myapp.feeds")


def test_hooks_log_the_start_and_count_the_success(
    feeds: Any, project: Project, sites: FeedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    task = popped(feeds.gator)

    assert (task.status, task.result) == (SUCCESS, 3)
    assert sites.paths == ["/feeds/main", "/rss.xml", "/r/DotA2/.rss"]
    assert project.module("myapp.utils").cache.values == {"feeds_imported": 3}
    said = [record.message for record in caplog.records if record.name == feeds.__file__]
    assert said == [
        f"Starting to import feeds via task {task.task_id}",
        f"Finished importing 3 feeds via task {task.task_id}",
    ]


def test_a_hook_has_the_task_tried_again_as_often_as_it_takes(
    feeds: Any, project: Project, sites: FeedServer
) -> None:
    sites.statuses += [503, 200, 503, 503]

    assert [popped(feeds.gator).status for _ in range(3)] == [RETRYING] * 3
    assert popped(feeds.gator).status == SUCCESS
    assert project.module("myapp.utils").cache.values == {"feeds_imported": 3}


def test_a_hook_logs_what_is_not_to_be_tried_again(
    feeds: Any, sites: FeedServer, caplog: pytest.LogCaptureFixture
) -> None:
    sites.statuses += [200, 404]

    with pytest.raises(feeds.FeedNotFound, match=r"rss\.xml"):
        feeds.gator.pop()

    assert f"Importing feed url http://{sites.address}/rss.xml failed." in caplog.text
    assert feeds.gator.len() == 0


# 1.4.2 Custom Task Classes

SKINNY_TASK = """
# myapp/skinnytask.py
import bz2
import json

from alligator import Task
from alligator.utils import determine_module, determine_name, import_attr

class SkinnyTask(Task):
    # We're both going to ignore some keys (async, options) we don't care
    # about, as well as compress/decompress the payload.
    def serialize(self):
        data = {
            'task_id': self.task_id,
            'retries': self.retries,
            'module': determine_module(self.func),
            'callable': determine_name(self.func),
            'args': self.func_args,
            'kwargs': self.func_kwargs,
        }
        raw_json = json.dumps(data)
        return bz2.compress(raw_json.encode())

    @classmethod
    def deserialize(cls, data):
        raw_json = bz2.decompress(data)
        data = json.loads(raw_json)

        task = cls(
            task_id=data['task_id'],
            retries=data['retries'],
        )

        func = import_attr(data['module'], data['callable'])
        task.to_call(func, *data.get('args', []), **data.get('kwargs', {}))
        return task
"""
# The documents import neither json nor the helpers, hand text to bz2 and the compressed data to json, and
# read a key "async" that they have just left out.

SKINNY_GATOR = """
from alligator import Gator

from myapp.skinnytask import SkinnyTask

gator = Gator('redis://localhost:6379/0', task_class=SkinnyTask)
"""

SKINNY_LATERGATOR = """
# myapp/skinnylatergator.py
from alligator import Gator, Worker

from myapp.skinnytask import SkinnyTask

gator = Gator('redis://localhost:6379/0', task_class=SkinnyTask)
# Now the worker will pick up the class as well.

worker = Worker(gator)
worker.run_forever()
"""

JOBS = """
import pathlib

FILE = pathlib.Path(__file__).parents[1] / 'done.txt'

def note(*words, ending='.'):
    with FILE.open('a') as file:
        file.write(' '.join(words) + ending + '\\n')
    return len(words)

def fail_once():
    if not FILE.exists():
        FILE.touch()
        raise ConnectionError('not yet')
    return 'at last'
"""


@pytest.fixture
def skinny(project: Project) -> Project:
    project.write("myapp/skinnytask.py", SKINNY_TASK)
    project.write("myapp/skinnygator.py", SKINNY_GATOR)
    project.write("myapp/skinnylatergator.py", SKINNY_LATERGATOR)
    project.write("myapp/jobs.py", JOBS)
    return project


def noted(project: Project) -> list[str]:
    file = project.folder / "done.txt"
    return file.read_text().splitlines() if file.exists() else []


def test_a_skinny_task_makes_a_smaller_payload(skinny: Project) -> None:
    gator, jobs = skinny.module("myapp.skinnygator").gator, skinny.module("myapp.jobs")

    task = gator.task(jobs.note, *["see", "you", "later"] * 100)

    [held] = gator.backend.reserve([ALL], "worker").reservations
    assert held.body == task.serialize()
    assert len(held.body) < len(Task.serialize(task)) / 4
    assert "async" not in json.loads(bz2.decompress(held.body))


def test_a_skinny_task_is_run_retried_and_canceled_as_any_other(skinny: Project) -> None:
    gator, jobs = skinny.module("myapp.skinnygator").gator, skinny.module("myapp.jobs")
    with gator.options(retries=1, task_id="t1") as opts:
        task = opts.task(jobs.fail_once)
    assert type(task) is skinny.module("myapp.skinnytask").SkinnyTask

    assert (popped(gator).status, gator.len()) == (RETRYING, 1)
    again = gator.get("t1")
    assert (again.status, again.result, type(again)) == (SUCCESS, "at last", type(task))

    gator.task(jobs.note, "never")
    canceled = gator.cancel(gator.task(jobs.note, "not this").task_id)
    assert (canceled.status, canceled.func_args) == (CANCELED, ("not this",))
    assert gator.len() == 1


def test_a_worker_in_another_process_runs_skinny_tasks(skinny: Project) -> None:
    gator, jobs = skinny.module("myapp.skinnygator").gator, skinny.module("myapp.jobs")
    gator.task(jobs.note, "see", "you", ending="!")

    with skinny.running("myapp/skinnylatergator.py") as worker:
        until(lambda: noted(skinny) == ["see you!"], "the task has run")
        until_drained(gator)
        output, errors = stopped(worker)

    assert output.splitlines()[1] == "2"
    assert errors == ""


# 1.4.3 Multiple Queues

QUEUES = """
from alligator import Gator

redis_dsn = 'redis://localhost:'
email_gator = Gator(redis_dsn, queue_name='notifications')
image_gator = Gator(redis_dsn, queue_name='images')
"""


def test_a_gator_for_each_kind_of_task(project: Project) -> None:
    project.write("queues.py", QUEUES.replace("redis://localhost:", project.dsn))
    project.write("myapp/jobs.py", JOBS)
    queues, jobs = project.module("queues"), project.module("myapp.jobs")

    # email_gator.task(send_welcome_email, request.user.pk)
    queues.email_gator.task(jobs.note, "welcome")
    # image_gator.task(create_thumbnail, photo_path)
    for photo in ("one", "two", "three"):
        queues.image_gator.task(jobs.note, photo)

    assert (queues.email_gator.len(), queues.image_gator.len()) == (1, 3)
    Worker(queues.email_gator, max_tasks=1).run_forever()
    assert noted(project) == ["welcome."]
    Worker(queues.image_gator, max_tasks=3).run_forever()
    assert noted(project)[1:] == ["one.", "two.", "three."]
    assert project.gator().len() == 0


def test_the_documents_short_dsn_is_understood(project: Project) -> None:
    project.write("queues.py", QUEUES)

    queues = project.module("queues")

    assert queues.email_gator.queue_name == "notifications"
    assert queues.image_gator.queue_name == "images"


# 1.4.4 Custom Backend Clients

SQLITE_BACKEND = """
# myapp/sqlite_backend.py
import sqlite3


class Client(object):
    def __init__(self, conn_string):
        # This is actually the filepath to the DB file.
        self.conn_string = conn_string
        # Kill the 'sqlite:/' portion.
        path = self.conn_string.split('://', 1)[1]
        self.conn = sqlite3.connect(path)

    def _run_query(self, queue_name, query, args):
        cur = self.conn.cursor()
        cur.execute('CREATE TABLE IF NOT EXISTS "{}" (task_id, data)'.format(queue_name))
        cur.execute(query.format(queue_name), args)
        return cur

    def len(self, queue_name):
        query = 'SELECT COUNT(task_id) FROM "{}"'
        cur = self._run_query(queue_name, query, [])
        res = cur.fetchone()
        return res[0]

    def drop_all(self, queue_name):
        query = 'DELETE FROM "{}"'
        self._run_query(queue_name, query, [])
        self.conn.commit()

    def push(self, queue_name, task_id, data):
        query = 'INSERT INTO "{}" (task_id, data) VALUES (?, ?)'
        self._run_query(queue_name, query, [task_id, data])
        self.conn.commit()
        return task_id

    def pop(self, queue_name):
        query = 'SELECT task_id, data FROM "{}" ORDER BY rowid LIMIT 1'
        cur = self._run_query(queue_name, query, [])
        res = cur.fetchone()
        if res is None:
            return None

        query = 'DELETE FROM "{}" WHERE task_id = ?'
        self._run_query(queue_name, query, [res[0]])
        self.conn.commit()

        return res[1]

    def get(self, queue_name, task_id):
        query = 'SELECT task_id, data FROM "{}" WHERE task_id = ?'
        cur = self._run_query(queue_name, query, [task_id])
        res = cur.fetchone()
        if res is None:
            return None

        query = 'DELETE FROM "{}" WHERE task_id = ?'
        self._run_query(queue_name, query, [task_id])
        self.conn.commit()

        return res[1]

    def close(self):
        self.conn.close()
"""
# Made valid: the documents split at "/:/", make no table ("all" is a word of SQL, too), commit nothing, put
# ids into the text of a query beside its arguments, and take the first of nothing.

SQLITE_GATOR = """
from alligator import Gator

from myapp.sqlite_backend import Client as SQLiteClient

gator = Gator('sqlite:///tmp/myapp_queue.db', backend_class=SQLiteClient)
"""


@pytest.fixture
def sqlite(project: Project) -> Project:
    project.write("myapp/sqlite_backend.py", SQLITE_BACKEND)
    source = SQLITE_GATOR.replace("/tmp/myapp_queue.db", f"{project.folder}/myapp_queue.db")
    project.write("myapp/sqlitegator.py", source)
    project.write("myapp/jobs.py", JOBS)
    return project


def test_a_store_of_ones_own_is_used_as_normal(sqlite: Project) -> None:
    gator, jobs = sqlite.module("myapp.sqlitegator").gator, sqlite.module("myapp.jobs")
    assert gator.pop() is None
    tasks = [gator.task(jobs.note, word) for word in ("one", "two", "three", "four")]

    assert gator.len() == 4
    assert popped(gator).result == 1
    assert gator.get(tasks[2].task_id).status == SUCCESS
    assert gator.cancel(tasks[1].task_id).status == CANCELED
    assert (gator.get("unknown"), gator.cancel("unknown")) == (None, None)
    assert noted(sqlite) == ["one.", "three."]
    gator.backend.drop_all(ALL)
    assert gator.len() == 0


def test_a_store_of_ones_own_has_retries_hooks_and_tasks_at_once(sqlite: Project) -> None:
    gator, jobs = sqlite.module("myapp.sqlitegator").gator, sqlite.module("myapp.jobs")
    with gator.options(retries=1) as opts:
        task = opts.task(jobs.fail_once)

    assert popped(gator).status == RETRYING
    assert gator.get(task.task_id).result == "at last"
    with gator.options(is_async=False) as opts:
        assert opts.task(jobs.note, "at once").result == 1


def test_a_store_of_ones_own_keeps_tasks_for_another_process(sqlite: Project) -> None:
    gator, jobs = sqlite.module("myapp.sqlitegator").gator, sqlite.module("myapp.jobs")
    gator.task(jobs.note, "one")
    gator.task(jobs.note, "two", "words")

    script = "from myapp.sqlitegator import gator; print(gator.pop().result, gator.pop().result)"

    assert sqlite.run("-c", script) == "1 2\n"
    assert noted(sqlite) == ["one.", "two words."]
    assert gator.len() == 0


def test_a_worker_consumes_a_store_of_ones_own(
    sqlite: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    gator, jobs = sqlite.module("myapp.sqlitegator").gator, sqlite.module("myapp.jobs")
    for word in ("one", "two", "three"):
        gator.task(jobs.note, word)

    Worker(gator, max_tasks=3).run_forever()

    assert noted(sqlite) == ["one.", "two.", "three."]
    assert capsys.readouterr().out.splitlines()[2:5] == ["1", "1", "1"]


def test_a_store_of_ones_own_that_cannot_delay_says_so(sqlite: Project) -> None:
    gator, jobs = sqlite.module("myapp.sqlitegator").gator, sqlite.module("myapp.jobs")

    with (
        gator.options(delay_by=60) as opts,
        pytest.raises(ValueError, match="cannot do what delay_by needs"),
    ):
        opts.task(jobs.note, "later")

    assert gator.len() == 0


# 1.4.5 Different Workers

LOG_WORKERS = """
# myapp/logworkers.py
import logging

from alligator import Worker

log = logging.getLogger('alligator.worker')

class LoggingWorker(Worker):
    def starting(self):
        ident = self.ident()
        log.info('{} starting & consuming {}'.format(ident, self.to_consume))

        if self.max_tasks:
            log.info('{} will die after {} tasks.'.format(ident, self.max_tasks))
        else:
            log.info('{} will never die.'.format(ident))

    def stopping(self):
        ident = self.ident()
        log.info('{} for "{}" shutting down. Consumed {} tasks.'.format(
            ident,
            self.to_consume,
            self.tasks_complete
        ))

    def result(self, result):
        # Because we don't usually care about the return values.
        log.debug(result)
"""

LOGGING_GATOR = """
# myapp/logginggator.py
from alligator import Gator

from myapp.logworkers import LoggingWorker

gator = Gator('redis://localhost:6379/0')
worker = LoggingWorker(gator)
worker.run_forever()
"""


@pytest.fixture
def logs(project: Project) -> Project:
    project.write("myapp/logworkers.py", LOG_WORKERS)
    project.write("myapp/logginggator.py", LOGGING_GATOR)
    project.write("myapp/jobs.py", JOBS)
    return project


def test_a_worker_that_logs_prints_nothing(
    logs: Project, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "alligator.worker")
    gator = logs.gator()
    gator.task(logs.module("myapp.jobs").note, "one")
    gator.task(logs.module("myapp.jobs").note, "two", "words")
    worker = logs.module("myapp.logworkers").LoggingWorker(gator, max_tasks=2)

    worker.run_forever()

    said = [record.message for record in caplog.records if record.name == "alligator.worker"]
    assert said == [
        f"{worker.ident()} starting & consuming all",
        f"{worker.ident()} will die after 2 tasks.",
        "1",
        "2",
        f'{worker.ident()} for "all" shutting down. Consumed 2 tasks.',
    ]
    assert capsys.readouterr().out == ""
    gator.backend.close()


def test_the_script_of_a_worker_that_logs(logs: Project) -> None:
    gator = logs.gator()
    gator.task(logs.module("myapp.jobs").note, "one")

    with logs.running("myapp/logginggator.py") as worker:
        until(lambda: noted(logs) == ["one."], "the task has run")
        output, _ = stopped(worker)

    # All that is left is the message to who has pressed Ctrl-C, which the example does not override.
    assert len(output.splitlines()) == 1
    assert "told to leave" in output
    assert gator.len() == 0
    gator.backend.close()


def test_sigint_lets_the_task_in_progress_finish(project: Project) -> None:
    # Release notes, 0.10.0
    project.write(
        "slow.py",
        """
import pathlib
import time

FILE = pathlib.Path(__file__).parent / 'slow.txt'

def work(name):
    with FILE.open('a') as file:
        file.write(name + ' starts, ')
    time.sleep(2)
    with FILE.open('a') as file:
        file.write(name + ' ends')
""",
    )
    project.write(
        "run.py",
        """
from alligator import Gator, Worker

Worker(Gator('redis://localhost:6379/0')).run_forever()
""",
    )
    gator = project.gator()
    for name in ("one", "two"):
        gator.task(project.module("slow").work, name)
    file = project.folder / "slow.txt"

    with project.running("run.py") as worker:
        until(file.exists, "the first task has started")
        stopped(worker)

    assert file.read_text() == "one starts, one ends"
    assert gator.backend.count(ALL).waiting == 1
    gator.backend.close()
