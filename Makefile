# make run           starts the quick start on 127.0.0.1:8080, or on ADDR
# make servers       installs what tests start, from the system's packages, if it is missing
# make test          make servers, then every module with the race detector, on short schedules,
#                    and the budgets of allocations
# make test-long     every module at full length, without the race detector, with faults and a soak
# make test-faults   breaks Redis in every way, at length, and prints what came of it
# make soak          ten minutes of mixed load with random faults
# make cross         vets for Windows, macOS, arm64 and 32 bits, and tests the arithmetic with 32
# make lint          gofmt, tidy, vet, golangci-lint, govulncheck
# make fuzz          runs every fuzz test for FUZZTIME
# make mutate        breaks the algorithms on purpose; every break must fail the suite
# make bench         measures ginlimit, other limiters and floors side by side, about 28 minutes,
#                    and draws the charts
# make pictures      draws how the algorithms treat the same traffic
# make release       prepares VERSION in bin/release, tries it as a new user would, and says how to
#                    publish it
# make release-test  does so with HEAD in a clone, which is thrown away

SHELL    := /bin/bash
MODULES  := $(dir $(shell git ls-files 'go.mod' '*/go.mod'))
FUZZTIME ?= 2m

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: run servers test test-long test-faults soak cross lint fuzz mutate bench release release-test pictures

run:
	cd _example && go run ./quickstart

servers:
	@.ci/servers

test: servers
	@.ci/test

test-long: servers
	@.ci/test long

cross:
	@.ci/cross

test-faults: servers
	FAULTS=long go test -count=1 -v -run 'Faults|ClockIsOff|Hang' ./backend/redis

soak: servers
	SOAK=10m go test -count=1 -v -timeout 20m -run Soak ./backend/redis

lint:
	@set -e; out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi
	@set -e; for m in $(MODULES); do echo "== $$m"; (cd $$m && go mod tidy -diff && go vet ./...); done
	@set -e; mkdir -p bin; [ -x bin/golangci-lint ] || GOBIN=$(CURDIR)/bin go install $(GOLANGCI_LINT); \
	for m in $(MODULES); do echo "== $$m: golangci-lint"; (cd $$m && $(CURDIR)/bin/golangci-lint run --allow-parallel-runners --config $(CURDIR)/.golangci.yml ./...); done
	@set -e; if curl -fsS -m 10 -o /dev/null https://vuln.go.dev/index/db.json; then \
	for m in $(MODULES); do echo "== $$m: govulncheck"; (cd $$m && go run $(GOVULNCHECK) ./...); done; \
	else echo "govulncheck is left out: its database cannot be reached"; fi

bench: servers
	cd benchmarks && go run ./cmd/bench && go run ./cmd/report -page ../docs/benchmarks.md

pictures:
	cd benchmarks && go run ./cmd/algorithms

fuzz:
	@set -e; for m in $(MODULES); do cd $(CURDIR)/$$m; for p in $$(go list ./...); do \
	for f in $$(go test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p; done; done; done

mutate:
	backend/backendtest/mutate.sh

release:
	@.ci/release $(VERSION)

release-test:
	@.ci/release-test
