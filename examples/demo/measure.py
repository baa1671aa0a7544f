"""The demo's task: measure one Python file, and write down what was found."""

import ast
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

# Where the path through the code forks.
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.match_case,
)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def measure(folder: str, name: str, results: str) -> None:
    """Count a file's lines, functions and branches. Running it twice does no harm.

    Args:
        folder: Where all the files are.
        name: The file, relative to the folder; what it is called in the results.
        results: The SQLite database to write into.

    Raises:
        SyntaxError: The file does not parse.
    """
    source = Path(folder, name).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an invalid escape: no matter here
        tree = ast.parse(source, name)
    functions = branches = 0
    for node in ast.walk(tree):
        functions += isinstance(node, FUNCTIONS)
        branches += isinstance(node, BRANCHES)
    with closing(open_results(results)) as database:
        database.execute(
            "INSERT OR REPLACE INTO files (name, lines, functions, branches) VALUES (?, ?, ?, ?)",
            (name, len(source.splitlines()), functions, branches),
        )


def open_results(path: str) -> sqlite3.Connection:
    """Open a results database, made by ``make_results``, for many processes to write into."""
    database = sqlite3.connect(path, timeout=30, isolation_level=None)  # None: each row at once
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def make_results(path: str) -> sqlite3.Connection:
    """Make an empty results database, and open it."""
    database = open_results(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(
        "CREATE TABLE files "
        "(name TEXT PRIMARY KEY, lines INTEGER, functions INTEGER, branches INTEGER)"
    )
    return database
