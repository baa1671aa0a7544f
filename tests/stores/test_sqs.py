"""What SQS has that no other store has: messages, receipts, limits of its own."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from alligator import Gator, cli, notes
from alligator.backends import sqs_backend
from alligator.backends.base import Ack, Bury, Counts, Message, Release, Settlement
from alligator.backends.sqs import sending
from alligator.backends.sqs.messages import ROOM, fitted
from alligator.backends.sqs.service import Service
from alligator.backends.sqs_backend import Client
from alligator.deaths import Death
from alligator.exceptions import (
    BackendMissing,
    BackendRefused,
    BackendUnavailable,
    InvalidOption,
    TaskFailed,
    TaskTooBig,
)
from alligator.testing.stores import QUEUE, take, take_ready, until
from tests.stores.answers import answering, refusal
from tests.support.kinds import hasty_sqs
from tests.support.sqs import DEAD, REGION, Sqs

Boto = Any


@pytest.fixture
def dsn(sqs_server: Sqs, monkeypatch: pytest.MonkeyPatch) -> str:
    return hasty_sqs(sqs_server, monkeypatch)


@pytest.fixture
def opening(dsn: str) -> Iterator[Callable[..., Client]]:
    """Opens clients of one store, with more options in the DSN."""
    clients: list[Client] = []

    def make(more: str = "", of: str = dsn) -> Client:
        clients.append(Client(of + more))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def store(opening: Callable[..., Client]) -> Client:
    return opening()


@pytest.fixture
def bare(dsn: str, sqs_server: Sqs) -> str:
    """A DSN that names no queue for dead letters."""
    return sqs_server.dsn()


@pytest.fixture
def boto(sqs_server: Sqs) -> Boto:
    """What anybody else would use."""
    session: Any = import_module("boto3.session")  # it has no types
    return session.Session("id", "secret", region_name=REGION).client(
        "sqs", endpoint_url=sqs_server.endpoint
    )


def url_of(boto: Boto, name: str = QUEUE) -> str:
    url: str = boto.get_queue_url(QueueName=name)["QueueUrl"]
    return url


def lying(boto: Boto, name: str = QUEUE) -> list[dict[str, Any]]:
    """Return the messages of a queue as they are, which stay."""
    found: list[dict[str, Any]] = boto.receive_message(
        QueueUrl=url_of(boto, name),
        MaxNumberOfMessages=10,
        VisibilityTimeout=0,
        MessageAttributeNames=["All"],
        AttributeNames=["All"],
    ).get("Messages", [])
    return found


def made(boto: Boto, name: str, **attributes: str) -> str:
    """Make a queue."""
    boto.create_queue(QueueName=name, Attributes=attributes)
    return name


# The DSN.


def test_boto_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys; from alligator import Gator; Gator('sqs://us-west-2/');"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_boto_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> None:
        assert name == "boto3"

    monkeypatch.setattr("importlib.util.find_spec", found)

    with pytest.raises(BackendMissing, match=r"alligator\[sqs\]"):
        Gator("sqs://us-west-2/")


@pytest.mark.parametrize(
    "dsn",
    [
        "sqs://us-west-2/?visibility=3",
        "sqs://us-west-2/all",
        "sqs://key:hush@us-west-2/",
        "sqs://us-west-2/?poll=21",
        "sqs://us-west-2/?poll=0.5",
        "sqs://us-west-2/?secret_key=hush&x=1",
    ],
)
def test_what_a_dsn_cannot_say_is_refused_with_no_secret(dsn: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Client(dsn)
    assert "hush" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    gator = Gator("sqs://us-west-2/?access_key=hush&secret_key=hush&session_token=hush")

    assert "hush" not in repr(gator)


# Queues.


def test_a_missing_queue_is_named_with_how_to_make_it(store: Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.push("nobody-made-it", "t1", b"{}"),
        lambda: store.reserve(["nobody-made-it"], "w"),
        lambda: store.count("nobody-made-it"),
    ]
    for call in calls:
        with pytest.raises(
            BackendRefused, match="aws sqs create-queue --queue-name nobody-made-it"
        ):
            call()
    assert "nobody-made-it" not in store.queues()


def test_a_queue_that_is_gone_is_named_with_how_to_make_it(store: Client, boto: Boto) -> None:
    made(boto, "gone.fifo", FifoQueue="true")
    assert store.count("gone.fifo") == Counts()
    boto.delete_queue(QueueUrl=url_of(boto, "gone.fifo"))

    with pytest.raises(
        BackendRefused, match=r"create-queue --queue-name gone\.fifo .*FifoQueue=true"
    ):
        store.push("gone.fifo", "t1", b"{}")


def test_the_queue_for_dead_letters_is_not_one_of_tasks(store: Client) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.push(DEAD, "t1", b"{}"),
        lambda: store.reserve([DEAD], "w"),
    ]
    for call in calls:
        with pytest.raises(InvalidOption, match="for dead letters"):
            call()


@pytest.mark.parametrize(
    "name", ["two words", "dotted.name", "žluťoučký", "x" * 81, "x" * 80 + ".fifo"]
)
def test_a_name_that_sqs_cannot_have_is_refused(store: Client, name: str) -> None:
    with pytest.raises(InvalidOption, match="1 to 80"):
        store.push(name, "t1", b"{}")


def test_queues_are_made_on_request(
    dsn: str, store: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["migrate", dsn, "--create-queues", "--queue", "new", "--queue", "new.fifo"]

    assert cli.main(command) == 0
    assert capsys.readouterr().out == "Queue 'new' is made.\nQueue 'new.fifo' is made.\n"
    assert cli.main(command) == 0
    assert "is there already" in capsys.readouterr().out
    assert {"new", "new.fifo"} <= set(store.queues())


def test_a_store_that_makes_its_queues_itself_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["migrate", "redis://127.0.0.1:1/", "--create-queues"]) == 1
    assert "a push makes them" in capsys.readouterr().err


def test_a_prefix_stands_before_the_name_of_each_queue(
    opening: Callable[..., Client], boto: Boto
) -> None:
    made(boto, "mine-all")
    store = opening("&prefix=mine-")

    store.push("all", "t1", b"{}")

    assert store.queues() == ["all"]
    assert [message["Body"] for message in lying(boto, "mine-all")] == ["{}"]
    assert lying(boto) == []


# The command, where others have queues, too.


@pytest.fixture
def foreign(dsn: str, boto: Boto, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Have a queue that may be listed, and not be read. Returns what is asked of SQS."""
    assert dsn  # it is emptied before
    made(boto, "foreign")
    call, asked = Service.call, list[tuple[str, Any]]()

    def refusing(self: Service, operation: str, **parameters: Any) -> dict[str, Any]:
        asked.append((operation, parameters))
        if "foreign" in (parameters.get("QueueName") or parameters.get("QueueUrl", "")):
            raise BackendRefused("AccessDenied: not yours.")
        return call(self, operation, **parameters)

    monkeypatch.setattr(Service, "call", refusing)
    return asked


def test_a_queue_that_may_not_be_read_does_not_hide_the_others(
    dsn: str, store: Client, foreign: list[tuple[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    store.push(QUEUE, "t1", b"dead")
    store.settle([Bury(take(store), "note")])
    [letter] = store.dead(QUEUE)
    passed = "alligator: Queue 'foreign' is passed over. AccessDenied: not yours.\n"

    for command in (
        ["status", dsn],
        ["dead", dsn],
        ["dead", dsn, "show", letter.task_id],
        ["dead", dsn, "retry", letter.task_id],
    ):
        del foreign[:]
        assert cli.main(command) == 0
        told = capsys.readouterr()
        assert (command, bool(told.out), told.err) == (command, True, passed)
        counts = [
            asked
            for operation, asked in foreign
            if operation == "get_queue_attributes"
            and asked["QueueUrl"].endswith(f"/{QUEUE}")
            and asked["AttributeNames"] != ["All"]
        ]
        assert len(counts) == 1


@pytest.mark.usefixtures("foreign")
def test_a_queue_that_was_named_and_may_not_be_read_is_refused(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", dsn, "--queue", "foreign"]) == 1
    assert cli.main(["status", f"{dsn}&prefix=for"]) == 1  # it is the only one
    assert capsys.readouterr().err == "alligator: AccessDenied: not yours.\n" * 2


@pytest.mark.usefixtures("foreign")
def test_not_to_be_able_to_read_a_queue_is_not_to_move_all(
    dsn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["move", dsn, f"sqlite://{tmp_path}/to.db"]) == 1
    assert capsys.readouterr().err == "alligator: AccessDenied: not yours.\n"


def test_a_queue_with_nowhere_for_dead_letters_does_not_hide_those_of_others(
    bare: str, opening: Callable[..., Client], boto: Boto, capsys: pytest.CaptureFixture[str]
) -> None:
    arn = "arn:aws:sqs:us-west-2:123456789012:other"
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "4"}}'
    made(boto, "driven", RedrivePolicy=policy)
    store = opening(of=f"{bare}&prefix=dri")
    store.push("ven", "t1", b"dead")
    store.settle([Bury(take(store, of="ven"), "note")])

    assert cli.main(["dead", bare]) == 0

    told = capsys.readouterr()
    assert "driven" in told.out
    assert f"Queue '{QUEUE}' is passed over. " in told.err
    assert cli.main(["dead", bare, "--queue", QUEUE]) == 1


# Messages.


def test_plain_json_lies_in_the_queue_as_it_is(store: Client, boto: Boto) -> None:
    store.push(QUEUE, "t1", '{"args": ["ž🐊"]}')

    [message] = lying(boto)
    assert message["Body"] == '{"args": ["ž🐊"]}'
    assert "MessageAttributes" not in message


def test_what_others_have_sent_is_a_task(store: Client, boto: Boto) -> None:
    sent = boto.send_message(QueueUrl=url_of(boto), MessageBody='{"task_id": "old"}')

    held = take(store)
    assert (held.task_id, held.body) == (sent["MessageId"], b'{"task_id": "old"}')


@pytest.mark.parametrize(
    "body", [b"", b"\0", b"\xff\xfe", b"a\r\nb", b"=", "\ufffe".encode(), "\ud7ff".encode()]
)
def test_any_body_comes_back(store: Client, body: bytes) -> None:
    store.push(QUEUE, "t1", body)
    held = take(store)
    assert held.body == body

    store.settle([Release(held, body=body + b"\x00")])
    assert take(store).body == body + b"\x00"


def test_a_task_keeps_the_id_that_its_first_message_got(store: Client) -> None:
    given = store.push(QUEUE, "mine", b"{}")
    for body in (b"1", None, b"2"):
        held = take(store)
        assert held.task_id == given != "mine"
        store.settle([Release(held, body=body)])
    held = take(store)
    assert (held.task_id, held.body, held.deliveries) == (given, b"2", 1)


@pytest.mark.parametrize("body", [b"x" * (4096 - ROOM), b"\xff" * 2667])
def test_what_just_fits_is_taken_and_can_be_retried(store: Client, boto: Boto, body: bytes) -> None:
    made(boto, "small", MaximumMessageSize="4096")
    store.push("small", "t1", body)

    for _ in range(3):
        held = take(store, of="small")
        assert held.body == body
        store.settle([Release(held, body=body, delay=0.1)])


def test_what_is_too_big_is_refused_before_anything_is_sent(store: Client, boto: Boto) -> None:
    made(boto, "small", MaximumMessageSize="4096")
    messages = [Message("fits", b"{}")] * 15 + [Message("big", b"x" * (4096 - ROOM + 1))]

    with pytest.raises(TaskTooBig, match=r"'big' takes 3585 bytes.*takes 3584 "):
        store.push_many("small", messages)
    assert store.count("small") == Counts()


def test_a_task_that_grows_beyond_the_limit_is_buried_as_it_was(store: Client, boto: Boto) -> None:
    made(boto, "small", MaximumMessageSize="1024")
    store.push("small", "t1", b"was small")

    assert store.settle([Release(take(store, of="small"), body=b"x" * 2000)]) == []

    [letter] = store.dead("small")
    assert (letter.body, "grown" in letter.note or "by now" in letter.note) == (b"was small", True)
    assert take_ready(store, of="small") == []


def crowded(boto: Boto) -> None:
    """Make a queue with a message that others have sent, and that has no room for an attribute."""
    made(boto, "small", MaximumMessageSize="1024")
    boto.send_message(QueueUrl=url_of(boto, "small"), MessageBody="x" * 1020)


def test_a_message_with_no_room_for_a_note_is_given_back_as_it_is(
    store: Client, boto: Boto
) -> None:
    crowded(boto)

    assert store.settle([Release(take(store, of="small"))]) == []

    held = take(store, of="small")
    assert (held.body, held.deliveries) == (b"x" * 1020, 2)
    assert store.count("small").dead == 0


def test_a_message_with_no_room_for_a_note_stops_no_worker_that_buries_it(
    opening: Callable[..., Client], bare: str, boto: Boto, caplog: pytest.LogCaptureFixture
) -> None:
    store = opening(of=bare)
    crowded(boto)

    assert store.settle([Bury(take(store, of="small"), "what happened")]) == []

    assert "what happened" in caplog.text
    assert take_ready(store, of="small") == []
    assert store.count("small") == Counts(running=1)


def test_a_group_that_others_gave_a_message_is_kept(store: Client, boto: Boto) -> None:
    boto.send_message(QueueUrl=url_of(boto), MessageBody="{}", MessageGroupId="tenant-1")

    store.settle([Release(take(store), body=b"{}")])

    [message] = lying(boto)
    assert message["Attributes"]["MessageGroupId"] == "tenant-1"


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "1e999", "-5", "many", "9" * 400])
def test_no_attribute_that_others_wrote_stops_a_worker(
    store: Client, boto: Boto, number: str
) -> None:
    names = ["alligator.lapses", "alligator.buried"]
    value = {"DataType": "String", "StringValue": number}
    boto.send_message(
        QueueUrl=url_of(boto), MessageBody="{}", MessageAttributes=dict.fromkeys(names, value)
    )

    held = take(store)

    assert held.deliveries >= 1
    assert store.settle([Release(held, body=b"{}")]) == []


def test_batches_are_of_ten_and_of_no_more_than_a_message_may_take() -> None:
    sent = {"Successful": [{"Id": str(number), "MessageId": f"m{number}"} for number in range(10)]}
    attributes = {"Attributes": {"MaximumMessageSize": "10240"}}
    with answering(
        SendMessageBatch=[(200, sent)], GetQueueAttributes=[(200, attributes)]
    ) as server:
        store = Client(server.dsn)
        store.push_many(QUEUE, [Message(str(number), b"x") for number in range(20)])
        assert [
            len(body["Entries"]) for name, body in server.asked if name == "SendMessageBatch"
        ] == [10, 10]

        del server.asked[:]
        store.push_many(QUEUE, [Message(str(number), b"x" * 3000) for number in range(6)])
        assert [len(body["Entries"]) for _, body in server.asked] == [3, 3]
        store.close()


# Delays.


def test_a_delay_longer_than_sqs_has_is_kept_and_counts_no_delivery(
    opening: Callable[..., Client],
    sqs_server: Sqs,
    boto: Boto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = opening(of=sqs_server.emptied())
    # A policy by which a second receipt is one too many: none may be spent on waiting.
    arn = "arn:aws:sqs:us-west-2:123456789012:other"
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "1"}}'
    made(boto, "strict", RedrivePolicy=policy)
    monkeypatch.setattr(sending, "LONGEST_DELAY", 1)
    began = time.monotonic()
    store.push_many("strict", [Message("t1", b"one", delay=2.5)])

    held = take(store, of="strict")

    assert time.monotonic() - began >= 2.45
    assert (held.body, held.deliveries) == (b"one", 1)
    assert store.settle([Ack(held)]) == []


def test_a_due_moment_is_by_the_clock_of_the_service(store: Client) -> None:
    store.push_many(QUEUE, [Message("t1", b"one", due_at=store.now() + 1.5)])

    assert store.count(QUEUE) == Counts(delayed=1)
    assert take(store).body == b"one"


def test_nothing_is_delayed_for_longer_than_its_queue_keeps_it() -> None:
    done = {"Successful": [{"Id": "0", "MessageId": "m1"}]}
    with answering(
        GetQueueAttributes=[(200, {"Attributes": {"MessageRetentionPeriod": "60"}})],
        SendMessageBatch=[(200, done)],
    ) as server:
        store = Client(server.dsn)
        store.push_many(QUEUE, [Message("t1", b"1", delay=800.0)])
        [entry] = server.asked[-1][1]["Entries"]
        assert entry["DelaySeconds"] == 15
        assert entry["MessageAttributes"]["alligator.wait"]["StringValue"] == "800.000"
        store.close()


# FIFO queues.


@pytest.fixture
def fifo(store: Client, boto: Boto) -> str:
    return made(boto, "jobs.fifo", FifoQueue="true")


def test_a_fifo_queue_takes_a_task_once(store: Client, fifo: str) -> None:
    store.push(fifo, "t1", b"first")
    store.push(fifo, "t1", b"second")
    store.push(fifo, "ž" * 120, b"hostile id")

    assert [held.body for held in take_ready(store, of=fifo)] == [b"first", b"hostile id"]


def test_tasks_of_a_fifo_queue_do_not_wait_for_each_other(store: Client, fifo: str) -> None:
    store.push_many(fifo, [Message("t1", b"1"), Message("t2", b"2")])
    one = take(store, of=fifo)

    assert [held.body for held in take_ready(store, of=fifo)] == [b"2"]
    assert store.settle([Ack(one)]) == []


def test_a_fifo_queue_delays_and_counts_no_delivery_for_that(store: Client, fifo: str) -> None:
    began = time.monotonic()
    store.push_many(fifo, [Message("t1", b"1", delay=1.5)])
    assert take_ready(store, of=fifo) == []

    held = take(store, of=fifo)

    assert time.monotonic() - began >= 1.45
    assert (held.body, held.deliveries) == (b"1", 1)


FIFO_URL: dict[str, Any] = {"QueueUrl": "http://sqs/1/jobs.fifo"}


def early(receives: int) -> list[tuple[int, dict[str, Any]]]:
    """Answer once with a message that is not due for a day."""
    wait = {"DataType": "String", "StringValue": "86400"}
    told = {
        "SentTimestamp": str(round(time.time() * 1000)),
        "ApproximateReceiveCount": str(receives),
    }
    message = {**MESSAGE, "Attributes": told, "MessageAttributes": {"alligator.wait": wait}}
    return [(200, {"Messages": [message]}), (200, {})]


@pytest.mark.parametrize(
    ("receives", "allowed", "asked"),
    [
        (1, 2, "ChangeMessageVisibilityBatch"),
        (2, 2, "SendMessageBatch"),
        (3, 4, "ChangeMessageVisibilityBatch"),
        (4, 4, "SendMessageBatch"),
        (1, 1, "ChangeMessageVisibilityBatch"),  # it is no use, but must not go on without end
    ],
)
def test_no_redrive_policy_takes_what_is_delayed(receives: int, allowed: int, asked: str) -> None:
    policy = {"RedrivePolicy": POLICY.replace("5", str(allowed))}
    done = {"Successful": [{"Id": "0", "MessageId": "m2"}]}
    with answering(
        GetQueueUrl=[(200, FIFO_URL)],
        GetQueueAttributes=[(200, {"Attributes": policy})],
        ReceiveMessage=early(receives),
        SendMessageBatch=[(200, done)],
        DeleteMessageBatch=[(200, done)],
        ChangeMessageVisibilityBatch=[(200, done)],
    ) as server:
        store = Client(server.dsn)
        assert take_ready(store, of="jobs.fifo") == []
        changes = {"ChangeMessageVisibilityBatch", "SendMessageBatch"}
        assert [name for name, _ in server.asked if name in changes] == [asked]
        store.close()


@pytest.fixture
def strict(boto: Boto) -> str:
    """A FIFO queue whose redrive policy allows one receipt."""
    made(boto, "other.fifo", FifoQueue="true")
    arn = "arn:aws:sqs:us-west-2:123456789012:other.fifo"
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "1"}}'
    return made(boto, "strict.fifo", FifoQueue="true", RedrivePolicy=policy)


def test_a_fifo_queue_with_a_policy_of_one_receipt_delays_nothing(
    store: Client, strict: str
) -> None:
    with pytest.raises(InvalidOption, match="maxReceiveCount"):
        store.push_many(strict, [Message("t1", b"1", delay=1.0)])
    store.push(strict, "t2", b"2")

    assert take(store, of=strict).body == b"2"


@pytest.mark.parametrize("body", [None, b"next attempt"])
def test_where_nothing_can_be_delayed_a_retry_is_run_at_once(
    store: Client, strict: str, body: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    store.push(strict, "t1", b"1")

    for _ in range(2):  # a wait would have SQS itself take it away
        assert store.settle([Release(take(store, of=strict), delay=3600.0, body=body)]) == []

    held = take(store, of=strict)
    assert (held.body, held.deliveries) == (body or b"1", 1)
    assert caplog.text.count("cannot delay") == 1


def test_where_nothing_can_be_delayed_a_dead_letter_is_retried_at_once(
    opening: Callable[..., Client], bare: str, strict: str
) -> None:
    store = opening(of=bare)
    store.push(strict, "t1", b"1")
    store.settle([Bury(take(store, of=strict), "note")])
    [letter] = store.dead(strict)

    assert store.retry_dead(strict, [letter.letter_id], store.now() + 3600.0)

    assert take(store, of=strict).body == b"1"


def test_nothing_is_hidden_for_longer_than_its_queue_keeps_it() -> None:
    done = {"Successful": [{"Id": "0"}]}
    with answering(
        GetQueueUrl=[(200, FIFO_URL)],
        GetQueueAttributes=[(200, {"Attributes": {"MessageRetentionPeriod": "3600"}})],
        ReceiveMessage=early(1),
        ChangeMessageVisibilityBatch=[(200, done)],
    ) as server:
        store = Client(server.dsn)
        assert take_ready(store, of="jobs.fifo") == []
        [hidden] = [body for name, body in server.asked if name == "ChangeMessageVisibilityBatch"]
        assert [entry["VisibilityTimeout"] for entry in hidden["Entries"]] == [900]
        store.close()


def test_what_is_given_back_to_a_fifo_queue_is_no_duplicate(store: Client, fifo: str) -> None:
    store.push(fifo, "t1", b"1")
    for body in (None, None, b"1", b"1"):
        store.settle([Release(take(store, of=fifo), body=body)])

    assert take(store, of=fifo).deliveries == 1


# What holds it.


def test_a_stale_worker_touches_nothing(opening: Callable[..., Client]) -> None:
    slow, fresh = opening(), opening()
    slow.push(QUEUE, "t1", b"{}")
    stale = take(slow, lease=1)
    held = take(fresh)

    slow.settle([Ack(stale)])
    slow.extend([stale], 0.1)

    assert take_ready(slow) == []
    assert fresh.settle([Release(held)]) == []
    assert take(fresh).body == b"{}"


def test_whoever_knows_the_token_can_extend_and_settle(opening: Callable[..., Client]) -> None:
    child, parent = opening(), opening()
    child.push_many(QUEUE, [Message("t1", b"1"), Message("t2", b"2"), Message("t3", b"3")])
    one, two, three = (held._replace(body=b"", deliveries=1) for held in take_ready(child, lease=1))

    assert parent.extend([one, two, three], 60) == []
    assert parent.settle([Ack(one), Release(two), Release(three, lapsed=True)]) == []

    came = {held.body: held.deliveries for held in take_ready(child)}
    # What it cannot send anew, for it has no body, counts a delivery.
    assert came == {b"2": 2, b"3": 2}


def test_what_is_sent_anew_but_not_deleted_is_not_sent_twice(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push(QUEUE, "t1", b"old")
    held = take(store)

    def cut(*_: object) -> list[bool]:
        raise BackendUnavailable("cut")

    with monkeypatch.context() as patched, pytest.raises(BackendUnavailable):
        patched.setattr(store._queues, "delete", cut)  # pyright: ignore[reportPrivateUsage]
        store.settle([Release(held, body=b"new")])
    assert store.count(QUEUE) == Counts(waiting=1, running=1)  # a crash here loses nothing

    assert store.settle([Release(held, body=b"new")]) == []
    assert store.count(QUEUE) == Counts(waiting=1)
    assert take(store).body == b"new"


@pytest.mark.parametrize("cut_at", range(7))
def test_settling_that_breaks_off_anywhere_and_is_repeated_doubles_nothing(
    store: Client, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    store.push_many(QUEUE, [Message(str(number), b"old") for number in range(27)])
    held = take_ready(store)
    settlements: list[Settlement] = [
        *(Release(one, body=b"new") for one in held[:12]),
        *(Ack(one) for one in held[12:24]),
        *(Release(one, lapsed=True) for one in held[24:]),
    ]
    batch, asked = store._service.batch, 0  # pyright: ignore[reportPrivateUsage]

    def cut_once(operation: str, url: str, entries: Any) -> Iterator[dict[str, Any]]:
        nonlocal asked
        asked += 1
        if asked == cut_at + 1:
            raise BackendUnavailable("cut")
        return batch(operation, url, entries)

    monkeypatch.setattr(store._service, "batch", cut_once)  # pyright: ignore[reportPrivateUsage]
    try:
        store.settle(settlements)
    except BackendUnavailable:
        store.settle(settlements)

    assert store.count(QUEUE) == Counts(waiting=15)
    assert sorted(one.body for one in take_ready(store)) == [b"new"] * 12 + [b"old"] * 3


def test_what_runs_longer_than_sqs_allows_is_told(
    store: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqs_backend, "LONGEST_LEASE", 2)
    store.push(QUEUE, "t1", b"{}")
    held = take(store, lease=60)  # as far as SQS allows: 2 s

    assert store.extend([held], 60) == []  # to the end of that
    until(lambda: store.extend([held], 60) == [held], "the hand-out is over")

    assert "SQS lets nobody hold a message for longer" in caplog.text
    assert take(store).deliveries == 2
    assert store.settle([Ack(held)]) == [Ack(held)]


# Dead letters.


def test_without_a_queue_for_them_dead_letters_are_kept_and_not_handed_out(
    opening: Callable[..., Client], bare: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = opening(of=bare)
    store.push(QUEUE, "t1", b"dead")

    assert store.settle([Bury(take(store), "note")]) == []

    assert "Name a queue for dead letters" in caplog.text
    assert take_ready(store) == []
    assert store.count(QUEUE) == Counts(running=1)
    with pytest.raises(BackendRefused, match=r"\?dead=NAME"):
        store.dead(QUEUE)


def test_dead_letters_move_once_they_have_where_to_go(
    opening: Callable[..., Client], bare: str
) -> None:
    homeless, housed = opening(of=bare), opening()
    homeless.push(QUEUE, "t1", b"dead")
    homeless.settle([Bury(take(homeless), "note")])

    assert take_ready(housed) == []

    [letter] = housed.dead(QUEUE)
    assert (letter.body, letter.note) == (b"dead", "note")


def test_what_the_queue_for_dead_letters_does_not_take_is_hidden_once(
    store: Client, boto: Boto
) -> None:
    boto.set_queue_attributes(
        QueueUrl=url_of(boto, DEAD), Attributes={"MaximumMessageSize": "1024"}
    )
    store.push(QUEUE, "t1", b"x" * 2000)
    store.settle([Bury(take(store), "note")])

    assert take_ready(store) == []

    assert store.count(QUEUE) == Counts(
        running=1
    )  # not sent anew, to be received at once, and so on


def test_a_missing_queue_for_dead_letters_stops_no_worker(
    opening: Callable[..., Client],
    bare: str,
    sqs_server: Sqs,
    boto: Boto,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = opening(of=sqs_server.dsn(dead="nobody-made-it"))
    store.push(QUEUE, "t1", b"dead")

    assert store.settle([Bury(take(store), "note")]) == []

    assert "create-queue --queue-name nobody-made-it" in caplog.text
    assert store.len(QUEUE) == 1
    made(boto, "nobody-made-it")
    assert take_ready(store) == []
    assert [letter.body for letter in store.dead(QUEUE)] == [b"dead"]


def test_a_redrive_policy_says_where_dead_letters_go_and_is_heeded(
    opening: Callable[..., Client], bare: str, boto: Boto
) -> None:
    arn = "arn:aws:sqs:us-west-2:123456789012:other"
    policy = f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": "2"}}'
    made(boto, "driven", RedrivePolicy=policy)
    store = opening(of=bare)
    store.push_many("driven", [Message("t1", b"buried"), Message("t2", b"lapses")])
    store.settle([Bury(take(store, of="driven"), "note")])
    for _ in range(2):
        store.settle([Release(take(store, of="driven"), lapsed=True)])

    assert take_ready(store, of="driven") == []  # it is SQS that has moved it

    letters = {letter.body: letter.note for letter in store.dead("driven")}
    assert letters[b"buried"] == "note"
    assert '"reason":"poison"' in letters[b"lapses"]
    assert store.count("driven").dead == 2


MESSAGE = {"MessageId": "m1", "ReceiptHandle": "h1", "Body": "{}"}
POLICY = '{"deadLetterTargetArn": "arn:aws:sqs:us-west-2:9:theirs", "maxReceiveCount": "5"}'
THEIRS: dict[str, Any] = {"QueueUrl": "http://sqs/9/theirs"}


@pytest.mark.parametrize("denied", ["GetQueueUrl", "SendMessageBatch"])
def test_where_only_aws_may_put_dead_letters_they_are_kept(denied: str) -> None:
    no, done = (
        refusal("AccessDeniedException", 403),
        {"Successful": [{"Id": "0", "MessageId": "m2"}]},
    )
    urls = [
        (200, {"QueueUrl": "http://sqs/1/all"}),
        no if denied == "GetQueueUrl" else (200, THEIRS),
    ]
    with answering(
        GetQueueUrl=urls,
        GetQueueAttributes=[(200, {"Attributes": {"RedrivePolicy": POLICY}}), (200, {})],
        ReceiveMessage=[(200, {"Messages": [MESSAGE]})],
        SendMessageBatch=[*([no] if denied == "SendMessageBatch" else []), (200, done)],
        DeleteMessageBatch=[(200, {"Successful": [{"Id": "0"}]})],
        ChangeMessageVisibilityBatch=[(200, {"Successful": [{"Id": "0"}]})],
    ) as server:
        store = Client(server.dsn)
        [held] = store.reserve([QUEUE], "w").reservations
        assert store.settle([Bury(held, "note")]) == []

        sent = [body for name, body in server.asked if name == "SendMessageBatch"][-1]
        assert sent["QueueUrl"] == "http://sqs/1/all"
        assert "alligator.kept" in sent["Entries"][0]["MessageAttributes"]
        assert server.times("DeleteMessageBatch") == 1

        [kept] = sent["Entries"]
        told = {"SentTimestamp": str(round(time.time() * 1000))}
        attributes = kept["MessageAttributes"]
        message = {**MESSAGE, "Attributes": told, "MessageAttributes": attributes}
        server.given["ReceiveMessage"] = [(200, {"Messages": [message]}), (200, {})]
        del server.asked[:]
        assert take_ready(store) == []
        assert server.times("ChangeMessageVisibilityBatch") == 1
        assert (
            server.times("SendMessageBatch") == 0
        )  # there it would be received at once, and so on
        store.close()


def test_to_retry_a_letter_no_more_are_looked_at_than_until_it_is_found() -> None:
    done = {"Successful": [{"Id": "0", "MessageId": "m2"}]}
    with answering(
        ReceiveMessage=[(200, {"Messages": [MESSAGE]})],
        SendMessageBatch=[(200, done)],
        DeleteMessageBatch=[(200, done)],
    ) as server:
        store = Client(server.dsn + "&dead=all-of-them")
        assert store.retry_dead(QUEUE, ["m1"]) == ["m1"]
        assert server.times("ReceiveMessage") == 1
        store.close()


def test_retrying_that_breaks_off_after_ten_and_is_repeated_doubles_nothing(
    store: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.push_many(QUEUE, [Message(str(number), b"dead") for number in range(12)])
    store.settle([Bury(held, "note") for held in take_ready(store)])
    batch, sent = store._service.batch, 0  # pyright: ignore[reportPrivateUsage]

    def cut_once(operation: str, url: str, entries: Any) -> Iterator[dict[str, Any]]:
        nonlocal sent
        if operation == "send_message_batch":
            sent += 1
            if sent == 2:
                raise BackendUnavailable("cut")
        return batch(operation, url, entries)

    monkeypatch.setattr(store._service, "batch", cut_once)  # pyright: ignore[reportPrivateUsage]
    letters = [letter.letter_id for letter in store.dead(QUEUE)]
    with pytest.raises(BackendUnavailable):
        store.retry_dead(QUEUE, letters)
    store.retry_dead(QUEUE, letters)

    assert store.count(QUEUE) == Counts(waiting=12)


def test_what_aws_moves_back_by_itself_is_a_task(store: Client, boto: Boto) -> None:
    store.push(QUEUE, "t1", b"dead")
    store.settle([Bury(take(store), "note")])
    [letter] = lying(boto, DEAD)
    boto.send_message(
        QueueUrl=url_of(boto),
        MessageBody=letter["Body"],
        MessageAttributes=letter["MessageAttributes"],
    )

    held = take(store)
    assert (held.body, held.deliveries) == (b"dead", 1)


def test_a_note_that_does_not_fit_is_cut(store: Client, boto: Boto) -> None:
    made(boto, "small", MaximumMessageSize="4096")
    body = b"x" * (4096 - ROOM)
    store.push("small", "t1", body)
    boto.set_queue_attributes(
        QueueUrl=url_of(boto, DEAD), Attributes={"MaximumMessageSize": "4096"}
    )
    note = '{"reason":"failed","error":"ValueError: no","traceback":"%s"}' % ("long " * 2000)

    assert store.settle([Bury(take(store, of="small"), note)]) == []

    [letter] = store.dead("small")
    assert letter.body == body
    assert '"error":"ValueError: no"' in letter.note


def test_what_a_note_tells_of_a_death_is_cut_before_its_reason() -> None:
    death = Death(signal="SIGSEGV", stack="s" * 5000, at=1.0, token="t")
    note = notes.write("poison", TaskFailed("Handed out 3 times"), death, {"note": "n" * 500})
    told = json.loads(note)

    kept = [json.loads(fitted(note, room)) for room in (10_000, 1500, 500, 330, 140)]

    assert {part["reason"] for part in kept} == {"poison"}
    assert kept[0] == told
    assert [part.get("death", {}).get("signal") for part in kept] == ["SIGSEGV"] * 3 + [None] * 2
    assert ["stack" in part.get("death", ()) for part in kept] == [True] + [False] * 4
    assert ["progress" in part for part in kept] == [True, True, False, False, False]
    assert [part["error"] == told["error"] for part in kept] == [True] * 4 + [False]


def test_notes_are_cut_where_it_hurts_least() -> None:
    note = '{"reason":"failed","message":"m","error":"e","traceback":"%s"}' % ("t" * 500)

    assert fitted(note, 1000) == note
    assert fitted(note, 100) == '{"reason":"failed","message":"m","error":"e","traceback":""}'
    assert fitted("ž" * 100, 101) == "ž" * 50
    assert fitted(note, 10) == ""


def test_that_there_is_nothing_is_said_after_a_second_look_that_waits() -> None:
    with answering(ReceiveMessage=[(200, {})]) as server:
        store = Client(server.dsn + "&dead=all-of-them")
        assert take_ready(store) == []
        assert store.dead(QUEUE) == []
        assert [
            body["WaitTimeSeconds"] for name, body in server.asked if name == "ReceiveMessage"
        ] == [0, 1, 1]
        store.close()


# A service that is away, refuses, or does half.


def test_a_server_that_is_gone_is_unavailable(opening: Callable[..., Client]) -> None:
    store = opening(of="sqs://us-west-2/?endpoint=http://127.0.0.1:1&access_key=id&secret_key=hush")

    calls: list[Callable[[], object]] = [
        lambda: store.push(QUEUE, "t1", b""),
        lambda: store.reserve([QUEUE], "w"),
    ]
    for call in calls:
        with pytest.raises(BackendUnavailable) as caught:
            call()
        assert "hush" not in str(caught.value)


def test_a_push_without_an_answer_is_not_repeated() -> None:
    with answering(SendMessageBatch=[(0, {})]) as server:
        store = Client(server.dsn)
        with pytest.raises(BackendUnavailable):
            store.push(QUEUE, "t1", b"")
        assert server.times("SendMessageBatch") == 1
        store.close()


def at_once(attempt: int) -> None:
    """Do not pause."""


@pytest.mark.parametrize("code", ["RequestThrottled", "KMS.ThrottlingException", "OverLimit"])
def test_what_the_service_puts_off_is_asked_again_and_then_unavailable(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alligator.backends.sqs.service._pause", at_once)
    sent = {"Successful": [{"Id": "0", "MessageId": "m1"}]}
    throttled = refusal(code)
    with answering(SendMessageBatch=[throttled, (200, sent), throttled]) as server:
        store = Client(server.dsn)
        assert store.push(QUEUE, "t1", b"") == "m1"
        with pytest.raises(BackendUnavailable, match=code):
            store.push(QUEUE, "t2", b"")
        store.close()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal("AccessDeniedException"), BackendRefused),
        (refusal("InvalidClientTokenId", 403), BackendRefused),
        (refusal("InternalError", 500), BackendUnavailable),
        (refusal("ServiceUnavailable", 503), BackendUnavailable),
    ],
)
def test_errors_are_told_apart(answer: tuple[int, dict[str, Any]], error: type[Exception]) -> None:
    with answering(SendMessageBatch=[answer]) as server:
        store = Client(server.dsn)
        with pytest.raises(error) as caught:
            store.push(QUEUE, "t1", b"")
        assert type(caught.value) is error
        assert "hush" not in str(caught.value)
        assert server.times("SendMessageBatch") == 1
        store.close()


def test_of_a_batch_only_what_failed_is_sent_again() -> None:
    half = {
        "Successful": [{"Id": "0", "MessageId": "m0"}, {"Id": "2", "MessageId": "m2"}],
        "Failed": [{"Id": "1", "SenderFault": False, "Code": "InternalError"}],
    }
    rest = {"Successful": [{"Id": "1", "MessageId": "m1"}]}
    with answering(SendMessageBatch=[(200, half), (200, rest)]) as server:
        store = Client(server.dsn)
        messages = [Message(f"t{number}", b"") for number in range(3)]
        assert store.push_named(QUEUE, messages) == ["m0", "m1", "m2"]
        again = [entry["Id"] for entry in server.asked[-1][1]["Entries"]]
        assert again == ["1"]
        store.close()


@pytest.mark.parametrize(
    "then", [(200, {"Failed": [{"Id": "1", "Code": "InternalError"}]}), (0, {})]
)
def test_of_a_batch_that_breaks_off_what_was_sent_anew_is_not_sent_again(
    then: tuple[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alligator.backends.sqs.service._pause", at_once)
    came = [
        {"MessageId": f"m{number}", "ReceiptHandle": f"h{number}", "Body": f"{number}"}
        for number in range(3)
    ]
    half = {
        "Successful": [{"Id": "0", "MessageId": "n0"}, {"Id": "2", "MessageId": "n2"}],
        "Failed": [{"Id": "1", "Code": "InternalError"}],
    }
    done = [{"Id": str(number), "MessageId": f"n{number}"} for number in range(3)]
    with answering(
        ReceiveMessage=[(200, {"Messages": came})],
        SendMessageBatch=[(200, half), then],
        DeleteMessageBatch=[(200, {"Successful": done})],
    ) as server:
        store = Client(server.dsn)
        held = store.reserve([QUEUE], "w", limit=3).reservations
        again: list[Settlement] = [Release(one, body=b"new " + one.body) for one in held]
        with pytest.raises(BackendUnavailable):
            store.settle(again)
        server.given["SendMessageBatch"] = [(200, {"Successful": done[:1]})]
        del server.asked[:]

        assert store.settle(again) == []

        sent = [body["Entries"] for name, body in server.asked if name == "SendMessageBatch"]
        assert [[entry["MessageBody"] for entry in entries] for entries in sent] == [["new 1"]]
        [deleted] = [body for name, body in server.asked if name == "DeleteMessageBatch"]
        assert [one["ReceiptHandle"] for one in deleted["Entries"]] == ["h0", "h1", "h2"]
        store.close()


def test_what_the_queue_is_like_need_not_be_told() -> None:
    sent = {"Successful": [{"Id": "0", "MessageId": "m0"}]}
    denied = refusal("AccessDeniedException", 403)
    with answering(GetQueueAttributes=[denied], SendMessageBatch=[(200, sent)]) as server:
        store = Client(server.dsn)
        assert store.push(QUEUE, "t1", b"") == "m0"
        store.close()


def test_the_time_is_that_of_the_service() -> None:
    ahead = time.time() + 3600
    with answering(clock=ahead, ListQueues=[refusal("AccessDeniedException", 403)]) as server:
        store = Client(server.dsn)
        assert store.now() == pytest.approx(ahead, abs=5)
        server.clock = time.time()
        with pytest.raises(BackendRefused):
            store.queues()
        assert store.now() == pytest.approx(time.time(), abs=5)
        store.close()


def test_a_body_of_bytes_is_base64_that_others_can_read(store: Client, boto: Boto) -> None:
    store.push(QUEUE, "t1", b"\xff\x00")

    [message] = lying(boto)
    assert base64.b64decode(message["Body"].removeprefix("=")) == b"\xff\x00"


# What it cannot.


def test_what_sqs_cannot_is_refused(dsn: str, store: Client) -> None:
    gator = Gator(dsn)
    calls: list[Callable[[], object]] = [
        lambda: gator.get("some-id"),
        lambda: gator.cancel("some-id"),
    ]
    for call in calls:
        with pytest.raises(InvalidOption, match="use a store that can"):
            call()
    refused: list[dict[str, Any]] = [
        {"priority": 1},
        {"depends_on": ["x"]},
        {"if_exists": "skip"},
        {"limit": ("x", 1)},
    ]
    for options in refused:
        with pytest.raises(InvalidOption), gator.options(**options) as opts:
            opts.task(abs, -1)
    assert store.count(QUEUE) == Counts()


# What `alligator verify` tells of a queue.


def test_a_short_retention_and_no_dead_letters_are_risks(
    opening: Callable[..., Client], boto: Boto, bare: str
) -> None:
    made(boto, "short", MessageRetentionPeriod=f"{4 * 86400}")
    made(boto, "long", MessageRetentionPeriod=f"{14 * 86400}")

    kept, dead = opening(of=bare).risks("short")

    assert "for 4 days" in kept
    assert "no queue for its dead letters" in dead
    assert opening().risks("long") == []


def test_a_redrive_policy_that_is_too_strict_is_a_risk(
    opening: Callable[..., Client], boto: Boto, bare: str
) -> None:
    arn = boto.get_queue_attributes(QueueUrl=url_of(boto, DEAD), AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 2}
    attributes = {"RedrivePolicy": json.dumps(policy)}
    made(boto, "strict", MessageRetentionPeriod=f"{14 * 86400}", **attributes)

    [told] = opening(of=bare).risks("strict")

    assert "received 2 times" in told
