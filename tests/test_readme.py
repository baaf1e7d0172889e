"""Every command and every line of Python in the README is real."""

import importlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import demo
import evaluate
import sample
import train
from pipeline import VideoPipeline

README = Path("README.md").read_text()
BLOCKS = [block.replace("\n    ", "\n") for block in re.findall(r"(?:^    .*\n)+", README, re.M)]
COMMANDS = [
    line.split("#")[0].strip()
    for line in re.sub(r"\\\n\s*", "", README).split("\n")
    if re.match(r"    (make|python|\.venv/bin/python) ", line)
]


class Parsed(Exception):  # noqa: N818
    """The command line was read without an error."""


def stop(*args):
    raise Parsed


@pytest.mark.filterwarnings("ignore")  # of Lightning's and jsonargparse's own
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command, monkeypatch):
    program, *arguments = shlex.split(command)
    if program == "make":
        subprocess.run(["make", "--dry-run", *arguments], check=True, capture_output=True)
        return
    script, *arguments = arguments
    if script == "train.py":
        monkeypatch.setattr("sys.argv", [script, *arguments])
        monkeypatch.setattr(train.CLI, "instantiate_classes", stop)
        with pytest.raises(Parsed):
            train.main()
    elif script == "-m":
        importlib.import_module(arguments[0]).parser().parse_args(arguments[1:])
    else:
        {"sample.py": sample, "demo.py": demo, "evaluate.py": evaluate}[script].parser().parse_args(
            arguments
        )


def test_the_readme_has_commands():
    assert {command.split()[0] for command in COMMANDS} >= {"make"}
    assert len(COMMANDS) >= 5


def test_every_name_of_the_pipeline_that_is_shown_exists():
    names = set(re.findall(r"\bpipe\.(\w+)\(", README)) | set(
        re.findall(r"VideoPipeline\.(\w+)", README)
    )
    assert names >= {"generate", "score", "from_pretrained"}
    assert not [name for name in names if not hasattr(VideoPipeline, name)]


def test_every_file_that_the_tree_lists_exists():
    tree = re.findall(r"^    ([a-z_/]+(?:\.py|/|\.yaml|\.txt|\.toml))\s{2,}", README, re.M)
    assert len(tree) >= 8
    assert [name for name in tree if not Path(name).exists()] == []
