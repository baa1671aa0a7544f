"""The store that is a file."""

import sqlite3
from contextlib import closing

from chaos.stage import Stage


def check_file(stage: Stage) -> None:
    """Look whether the store, if it is a file, is whole."""
    if stage.place.server is None:
        with closing(sqlite3.connect(stage.dsn.removeprefix("sqlite://"))) as file:
            [found] = file.execute("PRAGMA integrity_check").fetchone()
        stage.expect(found == "ok", f"the file is damaged: {found}")
