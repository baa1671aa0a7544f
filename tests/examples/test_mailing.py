"""examples/mailing: a real SMTP conversation, with a server that refuses at first."""

import socket
from collections.abc import Callable, Generator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from alligator import Gator
from tests.examples.commands import EXAMPLES, output

FOLDER = EXAMPLES / "mailing"
TRY_LATER = "451 4.3.2 Try again later"


class MailServer:
    """What a server does with a mail: it keeps it, or refuses.

    ``refuse`` and ``refuse_recipient`` are asked at each mail, and at each of its recipients, with how often
    that was tried before.
    """

    def __init__(self) -> None:
        self.received: list[tuple[list[str], EmailMessage]] = []
        self.tries = 0
        self.tries_to: dict[str, int] = {}
        self.refuse: Callable[[int], bool] = lambda tries: False
        self.refuse_recipient: Callable[[str, int], bool] = lambda address, tries: False

    async def handle_RCPT(  # noqa: N802 -- aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        tries = self.tries_to.get(address, 0)
        self.tries_to[address] = tries + 1
        if self.refuse_recipient(address, tries):
            return TRY_LATER
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 -- aiosmtpd's names
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        self.tries += 1
        if self.refuse(self.tries - 1):
            return TRY_LATER
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=default)
        self.received.append((envelope.rcpt_tos, message))
        return "250 OK"


@pytest.fixture
def mail_server() -> MailServer:
    return MailServer()


@pytest.fixture
def environment(mail_server: MailServer, tmp_path: Path) -> Generator[dict[str, str]]:
    """What the example's programs need to know, while the server runs."""
    port = free_port()
    controller = Controller(mail_server, "127.0.0.1", port, server_hostname="mail.example.com")  # pyright: ignore[reportUnknownMemberType] -- aiosmtpd's **kwargs have no type
    controller.start()
    yield {
        "SMTP_SERVER": f"127.0.0.1:{port}",
        "SOCIAL_DB": str(tmp_path / "social.db"),
        "ALLIGATOR_CONN": f"sqlite://{tmp_path / 'queue.db'}",
    }
    controller.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def post_and_work(environment: dict[str, str]) -> list[str]:
    """Make a post, and let a worker do what that queued. Returns the notes of dead letters."""
    output("python new_post.py", "See you läter.", folder=FOLDER, **environment)
    output("latergator --burst", folder=FOLDER, **environment)
    gator = Gator(environment["ALLIGATOR_CONN"])
    assert gator.len() == 0
    return [letter.note for letter in gator.backend.dead("all")]


def test_a_mail_that_is_refused_at_first_arrives_by_a_retry(
    mail_server: MailServer, environment: dict[str, str]
) -> None:
    mail_server.refuse = lambda tries: tries == 0

    dead = post_and_work(environment)

    assert dead == []
    assert mail_server.tries == 2
    [(recipients, message)] = mail_server.received
    assert recipients == ["robert@example.com", "paul@example.com"]
    assert message["Subject"] == "A new post by Bill"
    assert message["From"] == "social@example.com"
    assert "robert" not in message["To"]
    assert message.get_content().strip() == "See you läter."


def test_a_retry_mails_only_those_who_have_not_got_it(
    mail_server: MailServer, environment: dict[str, str]
) -> None:
    mail_server.refuse_recipient = lambda address, tries: address.startswith("robert") and not tries

    dead = post_and_work(environment)

    assert dead == []
    got_it = [recipients for recipients, _ in mail_server.received]
    assert got_it == [["paul@example.com"], ["robert@example.com"]]
    assert len({message["Message-ID"] for _, message in mail_server.received}) == 1


def test_a_mail_that_is_always_refused_is_a_dead_letter_after_three_retries(
    mail_server: MailServer, environment: dict[str, str]
) -> None:
    mail_server.refuse = lambda tries: True

    [note] = post_and_work(environment)

    assert mail_server.tries == 4
    assert mail_server.received == []
    assert "Try again later" in note
