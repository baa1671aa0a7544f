"""What a program and its store take up."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from chaos.stage import Stage
from tests.integration.scenes import Program
from tests.support.postgres import PostgresServer
from tests.support.servers import Server

MIB = 2**20


class Footprint(NamedTuple):
    """How much it is at some moment, when nothing is to do."""

    memory: float
    """MiB that all processes of the program have in use, each for itself."""
    files: int
    """What they have open."""
    rows: int
    """Rows, keys or jobs in the store."""


def footprint(stage: Stage, program: Program) -> Footprint:
    """Measure it now."""
    members = [Path("/proc") / str(pid) for pid in program.members]
    pages = sum(_private_pages(one / "statm") for one in members)
    files = sum(len(list((one / "fd").iterdir())) for one in members)
    return Footprint(pages * os.sysconf("SC_PAGESIZE") / MIB, files, _rows(stage))


def _private_pages(statm: Path) -> int:
    resident, shared = map(int, statm.read_text().split()[1:3])  # proc(5) says what is where
    return resident - shared


def _rows(stage: Stage) -> int:
    server = stage.place.server
    if server is None:
        return _rows_of_file(stage.dsn.removeprefix("sqlite://"))
    if isinstance(server, PostgresServer):
        return _rows_of_postgres(server)
    if stage.place.name == "redis":
        return _keys_of_redis(server)
    return sum(stage.counts)


def _rows_of_file(path: str) -> int:
    with closing(sqlite3.connect(path)) as file:
        tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return sum(
            file.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 -- its own names
            for (name,) in tables
        )


def _rows_of_postgres(server: PostgresServer) -> int:
    tables = server.run(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname ~ '^alligator'"
    )
    return sum(
        int(str(server.run(f'SELECT count(*) FROM "{schema}"."{name}"')[0][0]))  # noqa: S608
        for schema, name in tables
    )


def _keys_of_redis(server: Server) -> int:
    return int(server.command("DBSIZE").removeprefix(":"))
