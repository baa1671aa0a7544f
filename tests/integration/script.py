"""A Worker in a script: ``python -m tests.integration.script DSN SETTINGS [VARIANT]``, the settings as JSON."""

import json
import logging
import sys

from alligator import Gator, Worker
from tests.integration import jobs as jobs


class Quarrelsome(Worker):
    """Raises where a result is to be printed."""

    def result(self, result: object) -> None:
        raise RuntimeError(f"no taste for {result}")


class Laconic(Worker):
    """Says it otherwise, as the documents let a subclass do."""

    def ident(self) -> str:
        return "Laconic"

    def starting(self) -> None:
        print(f"{self.ident()}: on", flush=True)

    def interrupt(self) -> None:
        print(f"{self.ident()}: told", flush=True)

    def stopping(self) -> None:
        print(f"{self.ident()}: off", flush=True)

    def result(self, result: object) -> None:
        print(f"{self.ident()}: {result}", flush=True)


VARIANTS = {"worker": Worker, "quarrelsome": Quarrelsome, "laconic": Laconic}

if __name__ == "__main__":
    logging.basicConfig()
    dsn, settings, variant = sys.argv[1:]
    VARIANTS[variant](Gator(dsn), **json.loads(settings)).run_forever()
