"""examples/orders: the commands of its README, one after the other."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.examples.commands import EXAMPLES, output

DATABASE = "/tmp/orders.db"


@pytest.mark.parametrize("first", ["migrate", "shop"])
def test_the_commands_of_the_readme_do_what_it_says(tmp_path: Path, first: str) -> None:
    folder = Path(shutil.copytree(EXAMPLES / "orders", tmp_path / "orders"))
    database = tmp_path / "orders.db"
    for file in folder.iterdir():  # a database for this test alone
        if file.is_file():
            file.write_text(file.read_text().replace(DATABASE, str(database)))
    readme = (folder / "README.md").read_text().splitlines()
    migrate, order, work = [line.removeprefix("$ ") for line in readme if line.startswith("$ ")]
    if first == "shop":
        output("python", "-c", "import shop; shop.connect()", folder=folder)

    assert output(migrate, folder=folder).startswith("Done")
    assert output(order, folder=folder) == (
        "Order 1: committed. Orders: 1. Tasks: 1.\n"
        "Order 2: committed. Orders: 2. Tasks: 2.\n"
        "Order 3: rolled back, there is no hat left. Orders: 2. Tasks: 2.\n"
    )
    output(work, folder=folder)

    with closing(sqlite3.connect(database)) as connection:
        parcels = connection.execute("SELECT * FROM parcels ORDER BY order_id").fetchall()
    assert parcels == [(1, "hat"), (2, "hat")]
