"""From a DSN to the server, or the servers, of a Redis store."""

from alligator.backends.redis.address import Address
from alligator.backends.redis.cluster import Cluster
from alligator.backends.redis.connection import Server
from alligator.backends.redis.sentinel import Sentinels
from alligator.dsn import DSN

Servers = Server | Cluster


def servers_at(dsn: DSN) -> Servers:
    """Return what carries out commands at a DSN; nothing is connected yet.

    Raises:
        InvalidOption: The DSN cannot be understood.
    """
    address = Address.parse(dsn)
    if address.is_cluster:
        return Cluster(address)
    if address.service:
        return Server(address, find=Sentinels(address).primary)
    return Server(address)
