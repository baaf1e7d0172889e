"""Tasks over processes: all are done, a death is told, an exception is raised."""

import os
import time
from collections import deque

import pytest

from data.workers import run


def work(task, report):
    report(f"begun {task}")
    if task == "die":
        os._exit(3)
    if task == "raise":
        raise KeyError("the reason")
    if task == "slow":
        time.sleep(0.5)
    return task * 2


def test_every_task_is_done_once_and_a_death_is_told():
    tasks, events = deque(["slow", "a", "die", "b"]), []
    for event in run(work, tasks, 2):
        events.append(tuple(event))
        if event.kind == "died":
            tasks.append("added later")
    done = sorted(content for kind, _, content in events if kind == "done")
    assert done == ["aa", "added lateradded later", "bb", "slowslow"]
    assert [event for event in events if event[0] == "died"] == [("died", "die", 3)]
    assert ("report", "a", "begun a") in events


def test_an_exception_in_a_task_is_raised_with_its_traceback():
    with pytest.raises(RuntimeError, match="the reason"):
        list(run(work, deque(["raise"]), 1))
