# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /seawall

# Dependencies alone first, in a layer that only a change of the manifests rebuilds. Empty files
# stand in for our own sources, and for the benches that the manifest names.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
RUN mkdir -p src \
 && touch src/lib.rs \
 && echo 'fn main() {}' > src/main.rs \
 && awk '/^\[/ { table = $1 } \
         /^name *=/ && table == "[[bench]]" { gsub(/"/, ""); print "benches/" $3 ".rs" } \
         /^path *=/ && table == "[[bench]]" { gsub(/"/, ""); print $3 }' Cargo.toml \
    | while read -r file; do mkdir -p "${file%/*}" && touch "$file"; done \
 && cargo build --release --locked --bin seawall

COPY src src
# Newer than what was built from the empty files, whatever the checkout's dates say.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin seawall

# libc, libgcc and certificate authorities; no shell, no package manager; user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /seawall/target/release/seawall /usr/local/bin/seawall
COPY LICENSE /usr/share/doc/seawall/LICENSE
# Viewers; operators (/metrics, /healthz).
EXPOSE 8080 9090
# Where operators come in unless the file or a flag says otherwise: the container's own loopback. The
# health check asks there; who has operators come in elsewhere sets this variable to that address.
ENV SEAWALL_ADMIN=127.0.0.1:9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/seawall", "health"]
ENTRYPOINT ["/usr/local/bin/seawall"]
# Mount a file there, or say `serve --origin https://origin.example --listen 0.0.0.0:8080` instead.
CMD ["serve", "--config", "/etc/seawall/seawall.toml"]
