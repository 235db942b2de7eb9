# make needs nothing but Python >= 3.11 with venv. Everything goes into .venv; a finished one is reused, a broken or half-made one rebuilt.
#   make demo    the main job on embedded data          make test       the whole test suite
#   make check   format, lint, types, fast tests        make peer-env   .peer, the environment of the benchmarks' peers
#   make docs    the documentation as a site, into site/; needs no network once its packages are installed
#   make processors   the whole suite with the arithmetic of other processors, as far as this one can do it
# TORCH_BACKEND=cpu make demo   takes a small CPU-only torch where its index can be reached (uv's own switch).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV = $(BIN)/uv pip install --python $(BIN)/python --quiet --compile-bytecode $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) --constraint constraints.txt

.PHONY: demo test fast processors check format docs peer-env clean

demo: $(STAMP)
	$(BIN)/kizu demo -o demo --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --durations=10

fast: $(STAMP)
	$(BIN)/python -m pytest -n 2 -m "not slow and not data and not gpu and not network"

processors: $(STAMP)
	$(BIN)/python tests/processors.py -n 2

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m "not slow and not data and not gpu and not network"

format: $(STAMP)
	$(BIN)/python tools/exports.py
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/python -c "import mkdocstrings, material" 2>/dev/null || $(UV) --editable '.[docs]'
	$(BIN)/python -m mkdocs build --quiet --clean

# The stamp is written last: an install that broke off leaves none, and the next make starts again from nothing.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("kizu needs Python >= 3.11, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(UV) --editable '.[dev,faiss,heic,eyes]'
	$(BIN)/python -c "import kizu.detectors.patchcore"
	touch $(STAMP)

peer-env:
	rm -rf .peer
	$(PYTHON) -m venv .peer
	.peer/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	.peer/bin/uv pip install --python .peer/bin/python --quiet torch==2.13.0 torchvision==0.28.0 anomalib onnxruntime openvino onnx onnxscript

clean:
	rm -rf $(VENV) .peer .pytest_cache .mypy_cache .ruff_cache demo site
