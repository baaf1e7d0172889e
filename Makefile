PYTHON ?= python3
BIN = .venv/bin
OUT ?= runs/demo

.PHONY: install demo test check soak tokenizer-study prediction-study diffusion-study
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# make demo [MINUTES=60] [VIDEOS=folder] [OUT=folder]
demo: install
	$(BIN)/python demo.py --out '$(OUT)' $(if $(MINUTES),--minutes $(MINUTES)) $(if $(VIDEOS),--videos '$(VIDEOS)')

test: install
	$(BIN)/python -m pytest --quiet

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/pyright

# Long fault and memory tests.
soak: install
	$(BIN)/python -m pytest --quiet -m soak

# make tokenizer-study [VIDEOS=folder]: which bottleneck and which network, in about an hour; on
# captioned shapes, and on real clips only where a folder of them is given.
tokenizer-study: install
	$(BIN)/python -m benchmarks.tokenizer_study $(if $(VIDEOS),--videos '$(VIDEOS)')

# make prediction-study: priors and bottlenecks beside baselines, in about 100 minutes.
prediction-study: install
	$(BIN)/python -m benchmarks.prediction_study

# make diffusion-study [MINUTES=60]: does the diffusion decoder beat the CNN decoder trained as long?
diffusion-study: install
	$(BIN)/python -m benchmarks.diffusion_study $(if $(MINUTES),--minutes $(MINUTES))
