"""The command ``alligator``: look at a store, and see to what failed."""

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any

from alligator import registry, schedules, stops
from alligator.backends.base import Backend, Counts, State
from alligator.commands import (
    arguments,
    checking,
    letters,
    listing,
    looking,
    migrating,
    reports,
    revival,
    schedule_reports,
    stacking,
)
from alligator.commands.letters import Ref
from alligator.commands.move import moving
from alligator.commands.move import reports as moving_reports
from alligator.commands.move.moved import Moved
from alligator.commands.passing import PassingOver
from alligator.commands.reports import quoted
from alligator.commands.tables import (
    counted,
)
from alligator.commands.targets import checked, found_here, gator_at
from alligator.exceptions import AlligatorException, BackendRefused, InvalidOption
from alligator.gator import Gator, allowed_by
from alligator.outbox import outbox_at
from alligator.outbox.tables import Summary
from alligator.printable import printable
from alligator.processes.child import set_up_output
from alligator.processes.complaints import warn_of_strangers
from alligator.reading import reading_by
from alligator.statuses import Status
from alligator.stops import Canceling


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        Its exit status: 0 if all was done, 1 if something could not be, 2 for wrong use; of ``check``
        and ``verify``: 0 if all is well, 1 if not, 2 if that could not be found out.
    """
    set_up_output(logging.WARNING)
    failed = 1
    try:
        try:
            options = arguments.parser().parse_args(argv)
            failed = options.failed
            return _run(options)
        finally:
            print(end="", flush=True)  # here, where we can tell if nobody takes it
    except AlligatorException as err:
        _complain(str(err))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `| head` has seen enough
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as err:  # the disk that the output goes to is full
        _drop_output()
        _complain(f"Cannot write: {err}")
    return failed


def _run(options: argparse.Namespace) -> int:
    if not options.target and not os.environ.get("ALLIGATOR_CONN"):
        options.wrong_use("name a TARGET, or set ALLIGATOR_CONN to one")
    gator = _gator_at(options.target)
    if options.checks:  # else any look at the store may do already what is to be done
        _check_file(gator)
        named = _named(options)
        # Where others make the queues, the Gator's own may not be one. The command asks those that are there.
        if named or gator.backend.makes_queues:
            checked(gator, named)
    return COMMANDS[options.command](gator, options)


def _gator_at(target: str | None) -> Gator:
    with _only_ours():
        return gator_at(target)


def _only_ours() -> AbstractContextManager[object]:
    """Keep what modules print while they are imported out of what programs read."""
    return redirect_stdout(sys.stderr)


def _named(options: argparse.Namespace) -> list[str]:
    """Return the queues that were named."""
    return [options.queue] if isinstance(options.queue, str) else options.queue or []


def _check_file(gator: Gator) -> None:
    """Refuse a file that is not there: a look would make it, and find nothing dead in it."""
    if gator.backend_class is None and gator.dsn.scheme == "sqlite":
        path = Path(gator.dsn.rest)
        if not path.exists():
            raise BackendRefused(f"There is no file {path}. The first task to be queued makes it.")


def _status(gator: Gator, options: argparse.Namespace) -> int:
    workers = sorted(registry.present(gator.backend), key=lambda one: (one.host, one.pid))
    if options.queue:
        workers = [one for one in workers if options.queue in one.queues]
        names = {options.queue}
    else:
        names = {*_names(gator, options), *(name for one in workers for name in one.queues)}
    counts = _counts(gator, sorted(names))
    summary = _outbox_summary(options.outbox) if options.outbox else None
    if options.json:
        _print_json(reports.status_json(counts, workers, summary))
        return 0
    print(reports.queues_text(counts, _width()))
    print()
    if summary is not None:
        print(reports.outbox_text(summary))
        print()
    if workers:
        print(reports.workers_text(workers, time.time(), _width()))
    else:
        print(_nobody(gator.backend, options))
    return 0


def _outbox_summary(dsn: str) -> Summary:
    outbox = outbox_at(dsn)
    if outbox.migration():  # to look is not to make one
        raise BackendRefused(f"There is no outbox in {outbox.dsn}.")
    return outbox.summary()


def _list(gator: Gator, options: argparse.Namespace) -> int:
    counts = _counts(gator, _names(gator, options))
    total = sum(count.dead for count in counts.values())
    limit = options.limit or arguments.LIMIT
    found = list(
        letters.newest(gator.backend, [*counts], limit, PassingOver(len(counts), _tell_passed))
    )
    if options.json:
        told = [reports.letter_json(letter) for letter in found]
        _print_json({"total": total, "dead_letters": told})
    elif not found:
        print(f"No dead letters{_in_queue(options)}.")
    else:
        print(reports.letters_text(found, time.time(), _width()))
        if total > len(found):
            print(f"\nThe newest {len(found):,} of {total:,}; --limit N shows more.")
    return 0


def _show(gator: Gator, options: argparse.Namespace) -> int:
    queues = _queues(gator, options)
    found = letters.find(gator.backend, queues, options.id, PassingOver(len(queues), _tell_passed))
    if not found:
        _complain(_unknown(options.id))
        return 1
    shown, secrets = found[: options.limit or arguments.LIMIT], options.payload
    if options.json:
        told = [reports.letter_json(one, in_full=True, with_payload=secrets) for one in shown]
        _print_json({"total": len(found), "dead_letters": told})
        return 0
    now = time.time()
    print("\n\n".join(reports.letter_text(one, now, with_payload=secrets) for one in shown))
    if len(found) > len(shown):
        print(f"\nThe newest {len(shown):,} of {len(found):,}; --limit N shows more.")
    return 0


def _retry(gator: Gator, options: argparse.Namespace) -> int:
    refs, unknown = _chosen(gator, options)
    retry = revival.retry if options.with_dependents else letters.retry
    outcome = retry(gator.backend, refs, with_expired=not options.all)
    if options.json:
        _print_json(reports.outcome_json("retried", outcome, unknown))
    elif refs:
        print(reports.outcome_text("queued again", outcome))
    return _told_of_unknown(unknown) or (1 if outcome.stayed else 0)


def _purge(gator: Gator, options: argparse.Namespace) -> int:
    must_ask = options.all and not options.yes
    if must_ask and not os.isatty(0):
        options.wrong_use("purge --all asks before it acts, and here nobody can answer: add --yes")
    refs, unknown = _chosen(gator, options)
    if refs and must_ask and not _agrees(f"Purge {counted(len(refs), 'dead letter')} for good?"):
        _complain("Nothing is purged.")
        return 1
    outcome = letters.purge(gator.backend, refs)
    if options.json:
        _print_json(reports.outcome_json("purged", outcome, unknown))
    elif refs:
        print(reports.outcome_text("purged", outcome))
    return _told_of_unknown(unknown)


def _cancel(gator: Gator, options: argparse.Namespace) -> int:
    queues = _queues(gator, options)
    asked = [
        (name, stops.cancel(gator.backend, gator.results, name, options.id)) for name in queues
    ]
    done = [(name, one) for name, one in asked if one is not None]
    if not done:
        is_dead = any(gator.backend.dead(name, task_id=options.id, limit=1) for name in queues)
        _complain(_not_canceled(options.id, is_dead=is_dead))
        return 1
    if options.json:
        _print_json(
            {
                "canceled": [_canceled_json(options.id, *one) for one in done if not one[1].runs],
                "asked_to_end": [_canceled_json(options.id, *one) for one in done if one[1].runs],
            }
        )
        return 0
    for queue, one in done:
        call = f"a call of {printable(letters.callable_of(one.body) or '?')}"
        if one.runs:
            print(
                f"{quoted(options.id)} in queue {quoted(queue)} runs, and was asked to end: {call}."
            )
        else:
            print(f"Canceled {printable(options.id)} in queue {quoted(queue)}, {call}.")
    return 0


def _canceled_json(task_id: str, queue: str, one: Canceling) -> dict[str, Any]:
    return {"task_id": task_id, "queue": queue, "callable": letters.callable_of(one.body)}


def _show_task(gator: Gator, options: argparse.Namespace) -> int:
    return _tell(gator, options, looking.status_text, "\n\n")


def _why(gator: Gator, options: argparse.Namespace) -> int:
    return _tell(gator, options, looking.sentence, "\n")


def _tell(
    gator: Gator, options: argparse.Namespace, text: Callable[[Status], str], between: str
) -> int:
    """Tell of a task; of several, if more than one queue knows the id."""
    queues = [options.queue] if options.queue else looking.places(gator)
    known = looking.known(gator, options.id, queues)
    if not known:  # `alligator dead` shows the ends of ids: what goes there, goes here
        dead = letters.find(gator.backend, queues, options.id)
        known = looking.known(gator, dead[0].task_id, queues) if dead else []
    if options.json:
        _print_json({"tasks": [looking.status_json(status) for status in known]})
    elif known:
        print(between.join(map(text, known)))
    if not known:
        _complain(looking.unknown(options.id, queues))
    return 0 if known else 1


def _tasks(gator: Gator, options: argparse.Namespace) -> int:
    states: Sequence[State] = (options.state,) if options.state else listing.STATES
    limit = options.limit or arguments.LIMIT
    queues = _queues(gator, options)
    # One more than is shown tells whether there are more.
    found = listing.tasks(gator.backend, queues, states, limit + 1)
    shown = found[:limit]
    if options.json:
        _print_json(listing.tasks_json(shown))
    elif not shown:
        print(f"No tasks{_in_queue(options)}.")
    else:
        print(listing.tasks_text(shown, gator.backend.now(), _width()))
        if len(found) > limit:
            print(f"\nThe first {limit:,}; --limit N shows more.")
    return 0


def _check(gator: Gator, options: argparse.Namespace) -> int:
    found_here()  # as workers do that are started here
    allowed = gator.allowed if options.allow is None else allowed_by(options.allow)
    warn_of_strangers(gator, allowed, logging.getLogger("alligator.check"))
    names = _names(gator, options)
    if not options.queue:
        names = sorted({*names, *schedules.queues(gator.backend)})
    reading = reading_by(allowed, gator.aliases)
    passed = PassingOver(len(names), _tell_passed)
    with _only_ours():
        found = checking.report(gator, names, passed, reading)
    if options.json:
        _print_json(checking.report_json(found))
    else:
        print(checking.report_text(found))
    return 1 if found.faults else 0


def _stacks(gator: Gator, options: argparse.Namespace) -> int:
    queues = [options.queue] if options.queue else looking.places(gator)
    seen = stacking.seen(gator.dsn, gator.backend, queues)
    if options.json:
        _print_json(stacking.seen_json(seen))
    elif seen.is_busy:
        print(stacking.seen_text(seen))
    else:
        print(f"No task runs{_in_queue(options)}.")
    return 1 if seen.silent else 0


def _move(gator: Gator, options: argparse.Namespace) -> int:
    target = _gator_at(options.to)
    if target.dsn.url == gator.dsn.url:  # of some stores, nothing else tells
        raise InvalidOption("Both are the same store: there is nothing to move.")
    source = gator.backend
    names = options.queue or _queues_of(gator)
    if not options.queue:
        checked(gator, names)  # to pass one over is not to move all
    checked(target, names)
    can = {"skip": options.skip, "keeps_results": target.results is not None}
    if options.dry_run:
        staying = moving.fit(source, target.backend, names, **can)
        counts = {name: source.count(name) for name in names}
        if options.json:
            _print_json(moving_reports.plan_json(counts, staying))
        else:
            print(moving_reports.plan_text(counts, staying))
        return 0
    workers = [one for one in registry.present(source) if {*one.queues} & {*names}]
    if workers:
        _complain(moving_reports.workers_text(workers))
    moved = moving.move(source, target.backend, names, **can, tell=_tell_moved)
    if os.isatty(2):
        print(file=sys.stderr)
    if options.json:
        _print_json(moving_reports.moved_json(moved))
    else:
        print(moving_reports.moved_text(moved))
    return 0 if moved.is_all else 1


def _queues_of(gator: Gator) -> list[str]:
    """Return the queues of a store; the Gator's own, where that cannot name them."""
    names = {*gator.backend.queues(), *schedules.queues(gator.backend)}
    return sorted(names) or [gator.queue_name]


def _tell_moved(moved: Moved) -> None:
    """Keep a line up to date on a terminal."""
    if os.isatty(2):
        print(f"\r{moving_reports.line_text(moved)}", end="", file=sys.stderr, flush=True)


def _schedules(gator: Gator, options: argparse.Namespace) -> int:
    queues = [options.queue] if options.queue else schedules.queues(gator.backend)
    found = [one for name in queues for one in schedules.listed(gator.backend, name)]
    unreadable = {name: schedules.unreadable(gator.backend, name) for name in queues}
    is_all = not any(unreadable.values())
    if options.json:
        _print_json(
            {
                "schedules": schedule_reports.schedules_json(found),
                "unreadable": schedule_reports.unreadable_json(unreadable),
            }
        )
        return 0 if is_all else 1
    if found:
        now = gator.backend.now()
        print(schedule_reports.schedules_text(found, now, _width()))
        if late := schedule_reports.late_text(found, now):
            print(f"\n{late}")
    elif gator.backend.records is None:
        print("This store keeps no schedules.")
    elif is_all:
        print(f"No schedules{_in_queue(options)}.")
    for queue, problems in unreadable.items():
        for name, why in problems.items():
            _complain(
                f"Schedule {quoted(name)} of queue {quoted(queue)} queues nothing here: {why}"
            )
    return 0 if is_all else 1


def _unschedule(gator: Gator, options: argparse.Namespace) -> int:
    queues = [options.queue] if options.queue else schedules.queues(gator.backend)
    removed = [name for name in queues if schedules.remove(gator.backend, name, options.name)]
    if options.json:
        _print_json({"removed": [{"name": options.name, "queue": name} for name in removed]})
    for name in removed if not options.json else ():
        print(f"Removed schedule {quoted(options.name)} of queue {quoted(name)}.")
    if not removed:
        _complain(f"No schedule has the name {quoted(options.name)}{_in_queue(options)}.")
    return 0 if removed else 1


def _migrate(gator: Gator, options: argparse.Namespace) -> int:
    if options.create_queues:
        return _create_queues(gator, options)
    made = outbox_at(options.outbox) if options.outbox else gator.backend
    if options.sql:
        print(made.migration(), end="")
        return 0
    is_new = made.migrate()
    if options.json:
        _print_json({"migrated": is_new})
    else:
        what = "Done" if is_new else "Nothing to do"
        ready = "outbox" if options.outbox else "store"
        print(f"{what}: the {ready} is ready for this version of Alligator.")
    return 0


def _create_queues(gator: Gator, options: argparse.Namespace) -> int:
    names = options.queue or [gator.queue_name]
    made = migrating.create_queues(gator.backend, names)
    if options.json:
        _print_json({"queues": [{"queue": name, "created": is_new} for name, is_new in made]})
        return 0
    for name, is_new in made:
        print(f"Queue {quoted(name)} {'is made' if is_new else 'is there already'}.")
    return 0


def _verify(gator: Gator, options: argparse.Namespace) -> int:
    from alligator.commands import verifying  # here, for it is much, and few need it

    def tell(text: str) -> None:
        if not options.json:
            print(printable(text), flush=True)

    found = verifying.dangers(gator, options.queue)
    verdict = verifying.verify(gator, options.target, options.queue, options.seconds, tell)
    if verdict is None:
        return 128 + signal.SIGINT
    if options.json:
        _print_json(verifying.verdict_json(gator, verdict, options.seconds, found))
    else:
        print(f"\n{verifying.verdict_text(verdict, found)}")
    return 0 if verdict.is_good else 1


def _queues(gator: Gator, options: argparse.Namespace) -> list[str]:
    """Return the queues to look at, less those that cannot be read, where others make the queues."""
    names = _names(gator, options)
    return names if gator.backend.makes_queues or options.queue else [*_counts(gator, names)]


def _names(gator: Gator, options: argparse.Namespace) -> list[str]:
    """Return the queues to look at: some stores cannot name theirs, and the Gator's own must do."""
    return [options.queue] if options.queue else gator.backend.queues() or [gator.queue_name]


def _counts(gator: Gator, names: Sequence[str]) -> dict[str, Counts]:
    """Return how many tasks are in which state, for each queue that can be read."""
    passed = PassingOver(len(names), _tell_passed)
    counts: dict[str, Counts] = {}
    for name in names:
        try:
            counts[name] = gator.backend.count(name)
        except BackendRefused as err:
            passed(name, err)
    return counts


def _chosen(gator: Gator, options: argparse.Namespace) -> tuple[list[Ref], list[str]]:
    """Return the dead letters to retry or purge, each task's oldest first, and the ids that have none."""
    if options.all == bool(options.ids):
        options.wrong_use("name the IDs of tasks, or say --all")
    if options.limit:
        options.wrong_use("--limit is for what is shown")
    queues = _queues(gator, options)
    passed = PassingOver(len(queues), _tell_passed)
    if options.all:
        newest = letters.newest(gator.backend, queues, passed=passed)
        every = [Ref.to(letter) for letter in newest]
        if not every and not options.json:
            print(f"No dead letters{_in_queue(options)}.")
        return every[::-1], []
    found = {given: letters.find(gator.backend, queues, given, passed) for given in options.ids}
    # A dict, for two IDs may mean the same.
    named = dict.fromkeys(
        Ref.to(letter) for of_one in found.values() for letter in reversed(of_one)
    )
    return list(named), [given for given, of_one in found.items() if not of_one]


def _agrees(question: str) -> bool:
    # Not on standard output, which may be going to a program.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _told_of_unknown(ids: Sequence[str]) -> int:
    for task_id in ids:
        _complain(_unknown(task_id))
    return 1 if ids else 0


def _unknown(task_id: str) -> str:
    return f"No dead letter has the id {quoted(task_id)}."


def _not_canceled(task_id: str, *, is_dead: bool) -> str:
    if is_dead:
        return f"{quoted(task_id)} is dead; `alligator dead TARGET purge` would remove it."
    return (
        f"{quoted(task_id)} neither waits nor is delayed, nor does it run: it is done, or unknown. "
        "(Only a whole id will do.)"
    )


def _nobody(backend: Backend, options: argparse.Namespace) -> str:
    if backend.records is None:
        return "This store does not know its workers."
    return f"No workers are alive{_in_queue(options)}."


def _in_queue(options: argparse.Namespace) -> str:
    return f" in queue {quoted(options.queue)}" if options.queue else ""


def _width() -> int | None:
    """Return what the output has to fit: a terminal. What goes to a file or a program is whole."""
    return shutil.get_terminal_size().columns if os.isatty(1) else None


def _print_json(document: dict[str, Any]) -> None:
    print(json.dumps(document, indent=2))


def _complain(text: str) -> None:
    """Say in one line what went wrong."""
    print(f"alligator: {printable(text)}", file=sys.stderr)


def _tell_passed(queue_name: str, refused: BackendRefused) -> None:
    _complain(f"Queue {quoted(queue_name)} is passed over. {refused}")


def _drop_output() -> None:
    """Let what Python writes at its end go nowhere, instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


COMMANDS: dict[str, Callable[[Gator, argparse.Namespace], int]] = {
    "status": _status,
    "dead": _list,
    "list": _tasks,
    "check": _check,
    "move": _move,
    "cancel": _cancel,
    "stacks": _stacks,
    "show": _show_task,
    "why": _why,
    "migrate": _migrate,
    "schedules": _schedules,
    "schedules remove": _unschedule,
    "verify": _verify,
    "dead show": _show,
    "dead retry": _retry,
    "dead purge": _purge,
}
"""What carries out what ``arguments.parser`` understands."""

if __name__ == "__main__":
    sys.exit(main())
