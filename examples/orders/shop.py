"""A shop whose orders and tasks are committed together: there is never one without the other."""

import sqlite3

from alligator import Gator

DATABASE = "/tmp/orders.db"

gator = Gator(f"sqlite://{DATABASE}")


class SoldOut(Exception):
    """There is none left."""


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER)")
    connection.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, item TEXT)")
    connection.execute("CREATE TABLE IF NOT EXISTS parcels (order_id INTEGER, item TEXT)")
    return connection


def order(item: str) -> None:
    """Write down an order and queue its parcel; if there is none left, neither has happened."""
    connection = connect()
    with connection, gator.using(connection):
        cursor = connection.execute("INSERT INTO orders (item) VALUES (?)", (item,))
        gator.task(pack, cursor.lastrowid)
        taken = connection.execute(
            "UPDATE stock SET pieces = pieces - 1 WHERE item = ? AND pieces > 0", (item,)
        )
        if not taken.rowcount:
            raise SoldOut(item)
    connection.close()


def pack(order_id: int) -> str:
    """Write down the parcel and be done, in one: a worker that dies here never makes two of it."""
    connection = connect()
    with connection, gator.completing(connection):
        [(item,)] = connection.execute("SELECT item FROM orders WHERE id = ?", (order_id,))
        connection.execute("INSERT INTO parcels VALUES (?, ?)", (order_id, item))
    connection.close()
    return f"Packed order {order_id}: {item}"
