"""The campaign's table, in Markdown."""

from chaos.campaign import Trial

COLUMNS = (
    "scenario",
    "store",
    "pushed",
    "finished",
    "lost",
    "unexpected",
    "double, explained",
    "double, unexplained",
    "slowest recovery",
    "deaths",
    "verdict",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def row(trial: Trial) -> str:
    """Return the row of a trial."""
    found = trial.findings
    slowest = f"{found.slowest:.2f} s" if found.recoveries else "–"
    cells = [
        trial.scenario.replace("_", " "),
        trial.store,
        f"{found.pushed}",
        f"{found.finished}",
        f"{len(found.lost)}",
        f"{len(found.unexpected)}",
        f"{found.explained}",
        f"{len(found.unexplained)}",
        slowest,
        f"{found.kills}",
        _verdict(trial),
    ]
    return f"| {' | '.join(cells)} |"


def _verdict(trial: Trial) -> str:
    if trial.loses:
        return "loses, as is known" if trial.is_good else "**loses nothing, against what is known**"
    if trial.loses is None:
        return "keeps all here" if trial.findings.is_good else "loses"
    return "kept" if trial.is_good else "**broken**"
