"""What goes wrong: each module has some scenarios of a kind, which are registered by its import."""

from chaos.campaign import SCENARIOS as SCENARIOS
from chaos.scenarios import clocks as clocks
from chaos.scenarios import crowds as crowds
from chaos.scenarios import deaths as deaths
from chaos.scenarios import floods as floods
from chaos.scenarios import forgeries as forgeries
from chaos.scenarios import leases as leases
from chaos.scenarios import memory as memory
from chaos.scenarios import messages as messages
from chaos.scenarios import network as network
from chaos.scenarios import orphans as orphans
from chaos.scenarios import points as points
from chaos.scenarios import poison as poison
from chaos.scenarios import producers as producers
from chaos.scenarios import servers as servers
from chaos.scenarios import signals as signals
from chaos.scenarios import sleeps as sleeps
