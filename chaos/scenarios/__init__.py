"""What goes wrong: each module has some scenarios of a kind, which are registered by its import."""

from chaos.campaign import SCENARIOS as SCENARIOS
from chaos.scenarios import crowds as crowds
from chaos.scenarios import deaths as deaths
from chaos.scenarios import floods as floods
from chaos.scenarios import messages as messages
from chaos.scenarios import points as points
from chaos.scenarios import servers as servers
