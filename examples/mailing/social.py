"""A stand-in for an application's models: users, who follows whom, and posts, in an SQLite file.

The file is named by the environment variable ``SOCIAL_DB``.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass

SCHEMA = """
    CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT);
    CREATE TABLE follows (follower_id INTEGER, followed_id INTEGER);
    CREATE TABLE posts (id INTEGER PRIMARY KEY, user_id INTEGER, message TEXT);
    CREATE TABLE mailed (post_id INTEGER, user_id INTEGER, PRIMARY KEY (post_id, user_id));

    INSERT INTO users VALUES
        (1, 'Bill', 'bill@example.com'),
        (2, 'Robert', 'robert@example.com'),
        (3, 'Paul', 'paul@example.com'),
        (4, 'Cecil', 'cecil@example.com');
    INSERT INTO follows VALUES (2, 1), (3, 1), (1, 4);
"""


@dataclass(frozen=True)
class User:
    id: int
    name: str
    email: str


@dataclass(frozen=True)
class Post:
    id: int
    user_id: int
    message: str


def make_if_absent() -> None:
    """Make the database, with a few users, if there is none yet."""
    with database() as db:
        if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.executescript(SCHEMA)


def create_post(user_id: int, message: str) -> Post:
    with database() as db:
        statement = "INSERT INTO posts (user_id, message) VALUES (?, ?) RETURNING id"
        (post_id,) = db.execute(statement, (user_id, message)).fetchone()
    return Post(post_id, user_id, message)


def get_user(user_id: int) -> User:
    with database() as db:
        return User(*db.execute("SELECT * FROM users WHERE id = ?", (user_id,)).fetchone())


def get_post(post_id: int) -> Post:
    with database() as db:
        return Post(*db.execute("SELECT * FROM posts WHERE id = ?", (post_id,)).fetchone())


def followers_to_mail(post: Post) -> list[User]:
    """Return who follows the author of a post, and has not been mailed it."""
    with database() as db:
        rows = db.execute(
            "SELECT users.* FROM users JOIN follows ON follower_id = users.id"
            " WHERE followed_id = ? AND users.id NOT IN"
            " (SELECT user_id FROM mailed WHERE post_id = ?) ORDER BY users.id",
            (post.user_id, post.id),
        )
        return [User(*row) for row in rows]


def mark_mailed(post: Post, users: Iterable[User]) -> None:
    with database() as db:
        rows = [(post.id, user.id) for user in users]
        db.executemany("INSERT OR IGNORE INTO mailed VALUES (?, ?)", rows)


@contextmanager
def database() -> Generator[sqlite3.Connection]:
    """Open the database for one transaction."""
    with closing(sqlite3.connect(os.environ["SOCIAL_DB"], timeout=30)) as db, db:
        yield db
