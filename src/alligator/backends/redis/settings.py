"""How a Redis server is set up, where that costs tasks: what workers say at their start."""

from typing import Any

from alligator.backends.redis.connection import Server
from alligator.dsn import DSN


def warnings_of(server: Server, dsn: DSN) -> list[str]:
    """Return what should be known of a server's settings, in sentences; of what it does not tell, nothing."""
    info, config = server.answers([("INFO",), ("CONFIG", "GET", "save")])
    told = _fields(info)
    found: list[str] = []
    policy = told.get("maxmemory_policy", "noeviction")
    if policy.startswith("allkeys"):
        found.append(
            f"{dsn} throws tasks away when its memory is full: its maxmemory-policy is {policy}. Set it "
            "to noeviction: then a push is refused, and workers can still drain it."
        )
    elif policy != "noeviction":
        found.append(
            f"{dsn} throws results, and marks of tasks to be stopped, away when its memory is full: its "
            f"maxmemory-policy is {policy}. Set it to noeviction."
        )
    # Managed servers allow no CONFIG, and then see to it themselves.
    if told.get("aof_enabled") == "0" and config == [b"save", b""]:
        found.append(
            f"{dsn} writes nothing to its disk: tasks are gone when it starts anew. Set appendonly to yes."
        )
    return found


def risks_of(server: Server, dsn: DSN) -> list[str]:
    """Return what a server's settings may lose, though it does write to its disk."""
    info, save, fsync = server.answers(
        [("INFO",), ("CONFIG", "GET", "save"), ("CONFIG", "GET", "appendfsync")]
    )
    told = _fields(info)
    found: list[str] = []
    if told.get("aof_enabled") == "0" and save != [b"save", b""]:
        found.append(
            f"{dsn} writes snapshots now and then, and no journal: if the server is killed, what was queued "
            "since the last one is gone, and what was done since is done again. Set appendonly to yes."
        )
    if told.get("aof_enabled") == "1" and fsync in (
        [b"appendfsync", b"everysec"],
        [b"appendfsync", b"no"],
    ):
        lost = "a second or two" if fsync[1] == b"everysec" else "half a minute or more"
        found.append(
            f"{dsn} may lose {lost} in a power cut: its appendfsync is {fsync[1].decode()}. With always, every "
            "push waits for the disk."
        )
    if told.get("connected_slaves", "0") != "0":
        found.append(f"{dsn} has replicas: in a failover, what reached the primary alone is gone.")
    return found


def _fields(info: Any) -> dict[str, str]:
    """Return what INFO tells, if it does."""
    lines = info.decode(errors="replace").splitlines() if isinstance(info, bytes) else []
    return {name: value for name, _, value in (line.partition(":") for line in lines)}
