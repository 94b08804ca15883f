# What a developer runs. "make help" lists it.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := build
.PHONY: help build run demo test lint generate clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## build bin/mozzie, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/mozzie ./cmd/mozzie

run: build ## build and run a node; further flags in ARGS
	bin/mozzie run $(ARGS)

demo: build ## build and show three nodes at work
	bin/mozzie demo $(ARGS)

test: ## run all tests; first installs the Debian and npm packages that they need
	@if [ -x e2e/setup ]; then echo 'installing what the tests need (e2e/setup)'; e2e/setup; fi
	$(GO) vet ./...
	$(GO) test -race ./...

lint: ## check formatting and what go vet finds
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (run gofmt -w):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...

generate: ## generate what is generated
	$(GO) generate ./...

clean: ## remove what was built
	rm -rf bin dist
