"""Prints the names of the tasks that wait in Huey: ``python -m chaos.controls.huey_waiting``."""

from chaos.controls.huey_app import huey

if __name__ == "__main__":
    for task in (*huey.pending(), *huey.scheduled()):
        print(task.args[1])
