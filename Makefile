# `make test` is the one command that checks everything a change can break: it
# installs what it needs on Debian, then runs the format, vet and staticcheck
# gates, all tests with the race detector, the end-to-end tests with real
# clients, the cross-builds and the ARM hubs under qemu-user.

GO      ?= go
LDFLAGS := -s -w
PORTS   := amd64: arm64: arm:7 arm:6
NEEDS   := mosquitto_pub:mosquitto-clients kcat:kcat qemu-arm-static:qemu-user-static gcc:gcc strace:strace

.PHONY: test setup check unit e2e cross soak soak-short build clean

test: setup check cross unit e2e

setup:
	@missing=""; for n in $(NEEDS); do \
	  command -v $${n%%:*} >/dev/null 2>&1 || missing="$$missing $${n##*:}"; done; \
	if [ -n "$$missing" ]; then \
	  echo "setup: installing$$missing"; \
	  sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
	  || { echo "setup: cannot install$$missing: install them by hand (Debian package names) and run again" >&2; exit 1; }; fi

check:
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt wants: $$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags soak ./test/e2e/
	GOARCH=arm GOARM=6 $(GO) vet ./cmd/... ./pkg/... ./internal/...
	$(GO) tool staticcheck ./...

# Everything but the end-to-end tests, with the race detector.
unit:
	$(GO) test -race -timeout 12m $$($(GO) list ./... | grep -v /test/e2e)

# Real binaries, real clients, kill -9 for real. Here the binaries are built
# without the race detector, as users run them.
e2e:
	$(GO) test -count=1 -timeout 15m ./test/e2e/...

# Static stripped binaries for every gateway: dist/<command>-<arch>[v<arm>].
cross:
	@set -e; for p in $(PORTS); do for c in hub uplink; do \
	  arch=$${p%%:*}; arm=$${p##*:}; out=dist/$$c-$$arch$${arm:+v$$arm}; \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch GOARM=$$arm $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $$out ./cmd/$$c; \
	  printf 'built %-16s %10d bytes\n' $$out $$(stat -c %s $$out); done; done

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/hub ./cmd/uplink

# Hours of kill -9, full disks and cut links on a loop-mounted file system.
# Needs root. SOAK_ROUNDS sets how long.
soak:
	SOAK_ROUNDS=$${SOAK_ROUNDS:-300} $(GO) test -tags soak -count=1 -timeout 12h -v -run Soak ./test/e2e/

soak-short:
	SOAK_ROUNDS=$${SOAK_ROUNDS:-6} $(GO) test -tags soak -count=1 -timeout 10m -v -run Soak ./test/e2e/

clean:
	rm -rf bin dist
