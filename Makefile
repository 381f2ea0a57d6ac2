# Every step of CI is a target here, and so is what a developer needs. `make` prints them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: images binaries release test-release test-compose lint-chart test-chart prove prove-short prove-long prove-mutants simulate simulate-mutants help run build test test-real test-containers test-kill test-kill-archiver test-alerts smoke bench bench-ingress bench-processor bench-archiver bench-backlog bench-audit fuzz lint fmt generate verify standalone tidy clean

MODULES := $(shell go list -m -f '{{.Dir}}')
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
SHIPPED := $(shell sh scripts/goflags.sh)
LDFLAGS := -s -w -X github.com/catchment-dev/catchment/pkg/run.Version=$(VERSION)
PACKAGES ?= work
FLAGS ?=
FUZZTIME ?= 2m
PARTS := .parts

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## run everything in one process; makes ./catchment.yaml and ./catchment-data on the first start
	go run ./cmd/catchment up

build: ## build the four programs into bin/
	@mkdir -p bin
	@echo 'go build -o bin/catchment'; go build $(SHIPPED) -ldflags '$(LDFLAGS)' -o bin/catchment ./cmd/catchment
	@for service in ingress processor archiver; do \
	  echo "go build -o bin/catchment-$$service"; \
	  go build $(SHIPPED) -ldflags '$(LDFLAGS)' -o bin/catchment-$$service ./$$service/cmd/$$service; \
	done

# TestOutages waits five minutes for alerts: make test-alerts.
test: ## run all tests; on the real parts that the environment names, else on kfake and a local Postgres
	@rm -f $(PARTS); go vet $(PACKAGES)
	@status=0; CATCHMENT_TEST_PARTS_FILE=$(CURDIR)/$(PARTS) go test -race -count=1 -timeout 20m -skip '^TestOutages$$' $(FLAGS) $(PACKAGES) || status=$$?; \
	sort -u $(PARTS) 2>/dev/null || true; rm -f $(PARTS); exit $$status

test-real: ## run all tests on real Kafka, Postgres, S3 and the providers' SDKs; needs Java, Maven, Python, Node and helm
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"' EXIT; bash scripts/parts.sh start "$$dir" >/dev/null; \
	eval "$$(bash scripts/parts.sh env "$$dir")"; CATCHMENT_TEST_REAL=1 $(MAKE) --no-print-directory test

test-containers: ## run all tests on Kafka, Postgres and S3 in containers; needs a Docker engine
	@CATCHMENT_TEST_REAL=1 CATCHMENT_TEST_CONTAINERS=1 $(MAKE) --no-print-directory test

test-kill: ## kill the processor and a backfill 20 times at each boundary between two steps, and 200 rebalances, on the parts that the environment names
	CATCHMENT_TEST_KILLS=20 go test -p 1 -race -count=1 -v -timeout 60m -run TestR15 $(FLAGS) ./processor ./cmd/catchment
	CATCHMENT_TEST_REBALANCES=200 go test -race -count=1 -v -timeout 60m -run TestR27 $(FLAGS) ./processor

test-kill-archiver: ## kill archivers 100 times under load, then verify and audit, on the real parts that the environment names
	CATCHMENT_TEST_ARCHIVER_KILLS=100 go test -p 1 -race -count=1 -v -timeout 60m -run 'TestR37' $(FLAGS) ./archiver ./cmd/catchment

test-alerts: ## test alerts, runbooks and dashboards, and break each part while a real Prometheus watches; needs Java, Maven and Debian's prometheus
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"' EXIT; bash scripts/parts.sh start "$$dir" >/dev/null; \
	eval "$$(bash scripts/parts.sh env "$$dir")"; \
	CATCHMENT_TEST_REAL=1 go test -count=1 -v -timeout 20m -run 'TestMetricsReference|TestAlert|TestDashboard|TestOutages' $(FLAGS) ./cmd/catchment

images: ## build the four images for this machine; needs Go and a Docker engine
	bash scripts/images.sh $(VERSION)

binaries: ## build the four programs for PLATFORMS (linux/amd64 linux/arm64) into bin/OS-ARCH
	bash scripts/binaries.sh $(VERSION) $(or $(PLATFORMS),linux/amd64 linux/arm64)

release: ## make archives, SBOMs, the chart's package and SHA256SUMS of VERSION=v1.2.3 in dist/, the same bytes wherever it runs
	rm -rf dist; bash scripts/release.sh '$(VERSION)' dist

test-release: ## build a release twice, in two folders: the bytes are the same, and the programs small enough
	@bash scripts/release-test.sh

test-compose: ## docker compose up for real: send, kill a broker, audit; needs a Docker engine with compose, and the images it names
	@bash scripts/compose-test.sh

lint-chart: ## check charts/catchment without a cluster: schemas of three Kubernetes versions, policies, wrong values, helm-unittest; needs Go and Python
	@bash scripts/chart.sh lint

test-chart: ## install, upgrade, roll back and uninstall charts/catchment on a real Kubernetes API, which is built in 13 minutes the first time; needs Go, Python, curl, etcd
	@bash scripts/chart.sh test

smoke: build ## run the shipped program from outside: up, send, wrong requests, kill -9, DuckDB on the archive
	@PYTHON=$${PYTHON:-python3} bash scripts/smoke.sh bin/catchment

.PHONY: test-console bench-console
test-console: build ## walk through the console of a real Catchment in a real browser; SCREENSHOTS=docs/images makes its pictures; needs chromium and psql
	@PYTHONDONTWRITEBYTECODE=1 $$(bash scripts/foreign.sh scripts/browser)/venv/bin/python scripts/browser/console.py bin/catchment $(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS))

bench: ## print the benchmarks
	go test -run '^$$' -bench . -benchmem -timeout 30m $(FLAGS) $(PACKAGES)

bench-ingress: build ## measure the ingress against a bare program and Bento on three real brokers; writes docs/benchmarks.md
	@dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; \
	(cd ingress/bench/bento && GOWORK=off go build -o $$dir/bento .); go build -o $$dir/bench ./ingress/bench; \
	$$dir/bench -ingress bin/catchment-ingress -bento $$dir/bento -report docs/benchmarks.md $(FLAGS)

bench-console: ## measure the console's list with all filters, and one event, on a million events in Postgres, beside SELECT 1
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"; rm -rf "$$dir"' EXIT; bash scripts/parts.sh start "$$dir" postgres >/dev/null; \
	eval "$$(bash scripts/parts.sh env "$$dir")"; go run ./processor/bench/console -database "$$CATCHMENT_TEST_DATABASE_URL" $(FLAGS)

bench-audit: ## how long an audit of a million deliveries takes, and how much memory
	cd cmd/catchment && CATCHMENT_BENCH_DELIVERIES=1000000 go test -run XXX -bench BenchmarkAudit -benchtime 1x -timeout 30m -v .

bench-processor: build ## measure the processor against one bare statement, Bento and a transaction an event; writes docs/benchmarks.md
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"; rm -rf "$$dir"' EXIT; \
	bash scripts/parts.sh start "$$dir" kafka postgres >/dev/null; eval "$$(bash scripts/parts.sh env "$$dir")"; \
	(cd processor/bench/bento && GOWORK=off go build -o $$dir/bento .); go build -o $$dir/bench ./processor/bench; \
	$$dir/bench -processor bin/catchment-processor -bento $$dir/bento -report docs/benchmarks.md $(FLAGS)

bench-archiver: build ## measure the archiver against zstd and Bento, and look-ups with DuckDB; writes docs/benchmarks.md
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"; rm -rf "$$dir"' EXIT; readers=$$(bash scripts/foreign.sh archiver/archive/testdata/readers); \
	bash scripts/parts.sh start "$$dir" kafka >/dev/null; eval "$$(bash scripts/parts.sh env "$$dir")"; \
	(cd ingress/bench/bento && GOWORK=off go build -o $$dir/bento .); go build -o $$dir/bench ./archiver/bench; \
	$$dir/bench -archiver bin/catchment-archiver -bento $$dir/bento -python $$readers/venv/bin/python -report docs/benchmarks.md $(FLAGS)

bench-backlog: build ## measure the processor's memory on a backlog of a million events, and its tables; fails over 512 MiB
	@dir=$$(mktemp -d); trap 'bash scripts/parts.sh stop "$$dir"; rm -rf "$$dir"' EXIT; bash scripts/parts.sh start "$$dir" kafka postgres >/dev/null; \
	eval "$$(bash scripts/parts.sh env "$$dir")"; \
	go run ./processor/bench/backlog -brokers "$$CATCHMENT_TEST_KAFKA" -database "$$CATCHMENT_TEST_DATABASE_URL" -processor bin/catchment-processor $(FLAGS)

SEEDS ?= 500
SEED ?= 1

# The folder of a run stays where the run failed. FAULTS are those of the short run: each leaves a trace that must be seen.
PROVE = kafka=$$(bash scripts/kafka-cluster.sh libs); s3=$$(bash scripts/tools.sh versitygw)/versitygw; dir=$$(mktemp -d "$${TMPDIR:-/tmp}/catchment-prove.XXXXXX"); \
	bin/catchment prove --kafka "$$kafka" --versitygw "$$s3" --dir "$$dir"
FAULTS := leader-kill,processor-pause,commit-answer-lost,store-answers-lost,archiver-hung-upload,two-brokers-down,postgres-failover,ingress-kill

prove: build ## break the whole system in 60 ways while it takes 200,000 events, and judge it; 8 minutes on two quiet cores; needs Java and Postgres
	@$(PROVE) $(FLAGS) && rm -rf "$$dir"

prove-short: build ## the same with 15,000 events and 8 faults, for CI
	@$(PROVE) --seed 12 --events 15000 --rate 400 --count 8 --faults $(FAULTS) $(FLAGS) && rm -rf "$$dir"

prove-long: build ## the same for an hour at least and with 2,000 faults; prints what it has shown as Markdown for docs/reliability.md
	@status=0; $(PROVE) --events 200000 --rate 100 --count 2000 --together 6 --duration 1h --drain 10m $(FLAGS) || status=$$?; \
	bin/catchment prove table "$$dir"; echo "$$dir"; exit $$status

prove-mutants: ## run the whole system with each of 18 broken builds, until the judge has caught it; MUTANTS='M1 M5' for some
	@mkdir -p bin/mutant; go build -trimpath -tags mutant -o bin/mutant/catchment ./cmd/catchment
	@for service in ingress processor archiver; do go build -trimpath -tags mutant -o bin/mutant/catchment-$$service ./$$service/cmd/$$service; done
	@kafka=$$(bash scripts/kafka-cluster.sh libs); s3=$$(bash scripts/tools.sh versitygw)/versitygw; dir=$$(mktemp -d "$${TMPDIR:-/tmp}/catchment-mutants.XXXXXX"); \
	bin/mutant/catchment prove mutants --kafka "$$kafka" --versitygw "$$s3" --dir "$$dir" --seed 1 $(FLAGS) $(MUTANTS) && rm -rf "$$dir"

simulate: ## run SEEDS (500) seeds of all services in virtual time, from SEED (1) on; needs nothing but Go
	cd cmd/catchment && CATCHMENT_SIMULATE_SEEDS=$(SEEDS) CATCHMENT_SIMULATE_SEED=$(SEED) go test -tags synctests -count=1 -v -timeout 0 -run TestSimulate $(FLAGS) ./internal/prove/simtest

simulate-mutants: ## let the simulation catch the mutations, and replay seeds that fail
	cd cmd/catchment && go test -tags 'synctests mutant' -count=1 -v -timeout 10m -run 'TestMutants|TestReplay' $(FLAGS) ./internal/prove/simtest
	cd archiver && go test -tags mutant -count=1 -run TestMutant $(FLAGS) ./internal/objstore

fuzz: ## run every fuzz target for FUZZTIME (2m)
	@bash scripts/fuzz.sh $(FUZZTIME) $(MODULES)

lint: ## run the linters, and shellcheck when it is there
	@bin=$$(bash scripts/tools.sh golangci-lint); status=0; for module in $(MODULES); do \
	  echo "lint $${module##*/}"; (cd $$module && $$bin/golangci-lint run --config $(CURDIR)/.golangci.yml --allow-parallel-runners ./...) || status=1; \
	done; \
	if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run || status=1; fi; exit $$status

fmt: ## format all Go files
	@bin=$$(bash scripts/tools.sh golangci-lint); for module in $(MODULES); do \
	  (cd $$module && $$bin/golangci-lint fmt --config $(CURDIR)/.golangci.yml ./...); \
	done

generate: ## make again what is generated: schemas, and the golden files of the tests
	go generate work

verify: generate ## fail when a generated file is not what its source gives
	@git diff --exit-code --stat || { echo "verify: commit the files above"; exit 1; }

standalone: ## build each module without the workspace, as an image build or a user of one module does
	@status=0; for module in $(MODULES); do \
	  echo "standalone $${module##*/}"; cd $$module; GOWORK=off go build -o /dev/null ./... && GOWORK=off go mod tidy -diff || status=1; \
	done; exit $$status

tidy: ## tidy all modules
	@for module in $(MODULES); do (cd $$module && GOWORK=off go mod tidy); done

clean: ## remove what was built
	rm -rf bin dist $(PARTS)
