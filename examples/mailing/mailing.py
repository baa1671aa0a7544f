"""The slow part of posting: a plain function, as easy to call and to test as any other."""

import os
import smtplib
from email.message import EmailMessage

import social


def send_post_email(user_id: int, post_id: int) -> None:
    """Mail a post to everyone who follows its author.

    The SMTP server is named by the environment variable ``SMTP_SERVER``, as ``host:port``.

    Raises:
        OSError: The server did not answer, or (``SMTPException``) refused. Who did get the mail is
            remembered, so that a retry sends it only to the others.
    """
    post = social.get_post(post_id)
    user = social.get_user(user_id)
    followers = social.followers_to_mail(post)
    if not followers:
        return

    message = EmailMessage()
    message["Subject"] = f"A new post by {user.name}"
    message["From"] = "social@example.com"
    message["To"] = "undisclosed-recipients:;"  # followers need not see each other's addresses
    # The same at each try, so that mail programs can tell a mail that comes twice.
    message["Message-ID"] = f"<post-{post.id}@social.example.com>"
    message.set_content(post.message)

    with smtplib.SMTP(os.environ["SMTP_SERVER"], timeout=30) as server:
        refused = server.send_message(message, to_addrs=[follower.email for follower in followers])
    social.mark_mailed(post, [follower for follower in followers if follower.email not in refused])
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)
