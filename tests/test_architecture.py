"""Who may import whom: the imports of every file, read and compared with the plan."""

import ast
from pathlib import Path

import pytest

OURS = {
    "benchmarks",
    "data",
    "diffusion",
    "evaluation",
    "layers",
    "lm",
    "tokenizer",
    "training",
    "model_folder",
    "pipeline",
    "sample",
    "sample_options",
    "train",
    "demo",
    "encode",
    "evaluate",
}
PARTS = {"layers", "data.video"}
MODULES = PARTS | {"data.datamodule", "data.token_datamodule", "training", "evaluation"}
ALLOWED = {
    "layers": {"layers"},
    "data": {"data"},
    "training": {"training", "layers"},
    "tokenizer": {"tokenizer"} | PARTS,
    "lm": {"lm"} | PARTS,
    "diffusion": {"diffusion"} | PARTS,
    "evaluation": {"evaluation", "data"},
    "tokenizer/lightning_module.py": {"tokenizer"} | MODULES,
    "lm/lightning_module.py": {"lm", "tokenizer"} | MODULES,
    "lm/latent_diffusion.py": {"lm", "diffusion"},
    "lm/token_diffusion.py": {"lm", "diffusion"},
    "lm/frozen.py": {"lm"} | MODULES,
    "lm/latent_module.py": {"lm", "tokenizer"} | MODULES,
    "diffusion/lightning_module.py": {"diffusion", "tokenizer", "lm.text"} | MODULES,
    "benchmarks": OURS,
    "model_folder.py": {"tokenizer", "lm", "diffusion", "layers.storage"},
    "sample_options.py": {"diffusion.sampler", "layers.processes", "lm.request"},
    "pipeline.py": {
        "model_folder",
        "diffusion.pixels",
        "diffusion.sampler",
        "diffusion.wishes",
        "lm",
        "data.resizing",
        "data.video",
    },
}
FILES = sorted(p for p in Path().rglob("*.py") if p.parts[0] in OURS or str(p) in ALLOWED)


def imports(path):
    """Return the modules that a file imports, with what follows the first dot."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_its_place_allows(path):
    allowed = ALLOWED.get(str(path)) or ALLOWED[path.parts[0]]
    ours = [name for name in imports(path) if name.split(".")[0] in OURS]
    wrong = [n for n in ours if not any(n == a or n.startswith(a + ".") for a in allowed)]
    assert not wrong, f"{path} may import {sorted(allowed)}"


def test_only_the_package_files_reach_the_training_modules():
    """Inside a folder: parts, network, objective, lightning_module, never back."""
    back = [
        p
        for p in FILES
        if p.name != "__init__.py" and any("lightning_module" in n for n in imports(p))
    ]
    assert back == []


def test_no_file_grows_beyond_one_sitting():
    assert [str(p) for p in FILES if len(p.read_text().splitlines()) > 300] == []
