# The short names. What each does is written in xtask/, in Rust; arguments go
# through ARGS, as in: make demo ARGS="--once --json".
SETUP := @scripts/setup
XTASK := @cargo xtask
# A toolchain installed a minute ago is not on PATH before the next login.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup demo test check bench soak fuzz

help: ## list these commands
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

setup: ## install what is missing to build and test
	$(SETUP)

demo: ## build writ and run its main job on this machine
	$(SETUP) build
	$(XTASK) demo $(ARGS)

test: ## formatting, lints, house rules and every test
	$(SETUP)
	$(XTASK) test

check: ## what can be said without running: formatting, lints, house rules, licences
	$(SETUP)
	$(XTASK) check

bench: ## measure, and write the figures into README.md
	$(SETUP) build
	$(XTASK) bench $(ARGS)

soak: ## histories of the simulated house, for hours: ARGS="--hours 8"; one of them: ARGS="--seed 7"
	$(SETUP) build
	$(XTASK) soak $(ARGS)

fuzz: ## look for inputs that break a reader of untrusted bytes, for seconds: ARGS="url 600"
	$(SETUP) fuzz
	$(XTASK) fuzz $(ARGS)
