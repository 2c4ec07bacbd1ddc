.PHONY: help demo build test test-matrix fault lint fmt docs deny fuzz bench bench-quick bench-steps services-up services-down services-status compose-up compose-down
help: ## shows this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18
demo: ## a shop's tables become topics, before your eyes (real Postgres, Kafka and registry)
	@dev/demo
build: ## the release binary: target/release/tablecast
	cargo build --release --locked
test: ## formatting, lints, docs, then all tests against real services
	@dev/test
test-matrix: ## the suite's core with each Postgres from 14 to 18
	@dev/test matrix
fault: ## kills the daemon 100 times under load, with services of its own
	TABLECAST_FAULT_KILLS=100 cargo test --locked --test fault
lint: ## formatting, clippy and docs, warnings are errors
	@dev/test lint
fmt: ## formats the code
	cargo fmt
docs: ## the library's documentation, opened in a browser
	cargo doc --no-deps --locked --open
deny: ## licences, advisories and sources of the dependencies (needs cargo-deny)
	cargo deny --locked check
fuzz: ## feeds the decoder with garbage for a minute (needs cargo-fuzz and a nightly toolchain)
	mkdir -p fuzz/corpus/decode && cargo +nightly fuzz run decode fuzz/corpus/decode fuzz/seeds/decode -- -max_total_time=60
bench: ## speed, memory and latency beside Debezium and the limits, on real services: target/bench/report.md
	@bench/run all
bench-quick: ## a part of it, in five minutes
	@bench/run all --quick
bench-steps: ## how long each step of a row takes (criterion)
	cargo bench --locked --bench steps
services-up: ## starts Postgres, Kafka and a registry on loopback; eval "$(dev/services env)" tells where
	@dev/services up
services-down: ## stops them and removes their data
	@dev/services down
services-status: ## tells what runs
	@dev/services status
compose-up: ## the same services and the daemon in containers
	docker compose up --build --detach
compose-down: ## stops the containers and removes their data
	docker compose down --volumes
