"""Tasks over spawned processes: progress as it happens, and a death that is told, not a hang.

Each worker has a pipe of its own and shares no lock, so one that dies cannot block the others, and
all of them end when the process that started them does.
"""

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple, TypeVar

Task = TypeVar("Task")
Work = Callable[[Task, Callable[[str], None]], Any]


class Event(NamedTuple):
    """What happened to a task: "report" and "done" carry what the work said, "died" the code."""

    kind: str
    task: Any
    content: Any


def run(work: Work[Task], tasks: deque[Task], num_processes: int) -> Iterator[Event]:
    """Do `work(task, report)` for every task; tasks may be added while this runs.

    Raises:
        RuntimeError: A task failed by an exception; it has the traceback.
    """
    context = multiprocessing.get_context("spawn")
    workers: dict[Connection, SpawnProcess] = {}
    busy: dict[Connection, Task] = {}
    try:
        while tasks or busy:
            while tasks and len(busy) < num_processes:
                connection = next((c for c in workers if c not in busy), None)
                if connection is None:
                    connection, end = context.Pipe()
                    workers[connection] = context.Process(target=_serve, args=(work, end))
                    workers[connection].start()
                    end.close()
                busy[connection] = tasks.popleft()
                connection.send(busy[connection])
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                yield _receive(connection, workers, busy)
    finally:
        for connection, process in workers.items():
            connection.close()
            process.terminate()
            process.join()


def _receive(
    connection: Connection, workers: dict[Connection, SpawnProcess], busy: dict[Connection, Any]
) -> Event:
    try:
        kind, content = connection.recv()
    except (EOFError, ConnectionResetError):
        process = workers.pop(connection)
        connection.close()
        process.join()
        return Event("died", busy.pop(connection), process.exitcode)
    if kind == "failed":
        raise RuntimeError(content)
    task = busy[connection] if kind == "report" else busy.pop(connection)
    return Event(kind, task, content)


def _serve(work: Work[Any], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    try:
        while True:
            task = connection.recv()
            connection.send(("done", work(task, lambda text: connection.send(("report", text)))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody listens any more
    except Exception:
        connection.send(("failed", traceback.format_exc()))
