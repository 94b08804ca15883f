# What a developer runs. "make help" lists it.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)
FUZZTIME ?= 60s
SEEDS    ?= 10000
SEED     ?= 1
DURATION ?= 3m
PACKAGETESTS = TestStatic|TestReproducible|TestUnit|TestDebianPackage|TestARM|TestCompose|TestImage

.DEFAULT_GOAL := build
.PHONY: help build run demo test nightly chaos bench accept lint generate generated dist packages clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## build bin/mozzie, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/mozzie ./cmd/mozzie

run: build ## build and run a node; further flags in ARGS
	bin/mozzie run $(ARGS)

demo: build ## build and show three nodes at work
	bin/mozzie demo $(ARGS)

test: ## run all tests; first installs the Debian and npm packages that they need
	e2e/setup
	$(GO) vet ./...
	$(GO) test -race -timeout=45m ./...

nightly: test ## the longer forms of the tests: swarms of 100 nodes, more seeds (SEEDS), floods, mutated packets, all fuzzers (FUZZTIME each)
	NIGHTLY=1 $(GO) test -count=1 -p=1 -timeout=60m -v -run='TestSwarm(Of100)?$$' ./node ./dht
	$(GO) test -count=1 -timeout=120m ./dht/rendezvous/core -seeds=$(SEEDS)
	NIGHTLY=1 $(GO) test -count=1 -timeout=60m -v -run='TestMutatedPackets|TestFloods|TestNoFilesLeft' ./e2e
	$(MAKE) chaos SEED=$$(date +%Y%m%d) DURATION=1h
	FUZZTIME=$(FUZZTIME) .ci/fuzz

chaos: ## real nodes and clients under faults for DURATION, which SEED decides; ARGS="-dir DIR" keeps the history, see e2e/chaos
	$(GO) test -count=1 -timeout=2h -v -run='^TestChaos$$' ./e2e/chaos -args -seed $(SEED) -duration $(DURATION) $(ARGS)

bench: build ## measure beside mosquitto, NATS and mochi; QUICK=1 for a rough answer, ROWS=a,e for some, UPDATE=1 to write docs/benchmarks.md
	$(GO) run ./e2e/bench $(if $(ROWS),-rows $(ROWS)) $(if $(STAGES),-stages $(STAGES)) $(if $(QUICK),-quick) $(if $(UPDATE),-update)

accept: build ## hold the built program against the acceptance tools, where they are beside this folder
	.ci/accept

lint: ## check formatting, go.mod, and what the linters find (see .golangci.yml)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) tool -modfile=tools/go.mod golangci-lint run

generate: ## generate what is generated: needs protoc (Debian: protobuf-compiler)
	protoc --plugin=protoc-gen-go="$$($(GO) tool -n protoc-gen-go)" -I proto/pb --go_out=$(or $(OUT),proto/pb) --go_opt=paths=source_relative route.proto session.proto store.proto will.proto

generated: ## check that what is generated is up to date
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && $(MAKE) --no-print-directory generate OUT=$$out && \
	for f in route session store will; do diff -I 'protoc  *v' $$out/$$f.pb.go proto/pb/$$f.pb.go || { echo "proto/pb/$$f.pb.go is out of date: run \"make generate\""; exit 1; }; done

dist: ## build what is installed elsewhere, into dist: static programs, Debian packages, checksums
	deploy/build dist

packages: dist ## test what dist has built: packages in a Debian, programs for ARM under qemu, the container image; needs root
	e2e/setup packages
	DIST=dist $(GO) test -count=1 -timeout=30m -v -run='^($(PACKAGETESTS))$$' ./e2e

clean: ## remove what was built
	rm -rf bin dist
