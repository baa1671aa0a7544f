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
    "back to work",
    "deaths",
    "verdict",
    "besides",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def row(trial: Trial) -> str:
    """Return the row of a trial."""
    found = trial.findings
    cells = [
        trial.scenario.replace("_", " "),
        trial.store,
        f"{found.pushed}",
        f"{found.finished}",
        f"{len(found.lost)}",
        f"{len(found.unexpected)}",
        f"{found.explained}",
        f"{len(found.unexplained)}",
        _slowest(found.recoveries),
        _slowest(found.revivals),
        f"{found.kills}",
        _verdict(trial),
        "; ".join(trial.shown),
    ]
    return f"| {' | '.join(cells)} |"


def _slowest(times: list[float]) -> str:
    return f"{max(times):.2f} s" if times else "–"


def _verdict(trial: Trial) -> str:
    if trial.loses is not False and (trial.remarks or not trial.findings.finished):
        return "**has not run as it should**"
    if trial.loses:
        return "loses, as is known" if trial.is_good else "**loses nothing, against what is known**"
    if trial.loses is None:
        return "keeps all here" if trial.findings.is_good else "loses"
    return "kept" if trial.is_good else "**broken**"
