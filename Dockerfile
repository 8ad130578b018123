# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /seawall

# Dependencies first, in a layer that is rebuilt only when Cargo.toml or Cargo.lock changes. Empty files
# replace our own sources, and the benches that Cargo.toml names.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY crates/manifest/Cargo.toml crates/manifest/
COPY crates/policy/Cargo.toml crates/policy/
COPY crates/cache/Cargo.toml crates/cache/
COPY crates/upstream/Cargo.toml crates/upstream/
COPY crates/simulator/Cargo.toml crates/simulator/
COPY crates/authorization/Cargo.toml crates/authorization/
RUN mkdir -p src crates/{manifest,policy,cache,upstream,simulator,authorization}/src \
 && touch {.,crates/{manifest,policy,cache,upstream,simulator,authorization}}/src/lib.rs \
 && echo 'fn main() {}' > src/main.rs \
 && awk '/^\[/ { table = $1 } \
         /^name *=/ && table == "[[bench]]" { gsub(/"/, ""); print "benches/" $3 ".rs" } \
         /^path *=/ && table == "[[bench]]" { gsub(/"/, ""); print $3 }' Cargo.toml \
    | while read -r file; do mkdir -p "${file%/*}" && touch "$file"; done \
 && cargo build --profile dist --locked --bin seawall

COPY crates crates
COPY src src
# Makes the sources newer than the build of the empty files, whatever their dates in the checkout are.
RUN touch {.,crates/*}/src/lib.rs src/main.rs \
 && cargo build --profile dist --locked --bin seawall \
 && strip target/dist/seawall

# libc, libgcc and certificate authorities; no shell, no package manager; user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /seawall/target/dist/seawall /usr/local/bin/seawall
COPY LICENSE /usr/share/doc/seawall/LICENSE
# Viewers; admin server (/metrics, /healthz).
EXPOSE 8080 9090
# The admin address unless the file or a flag sets one: the container's own loopback. The health check
# uses it: with another admin address, set this variable to that address.
ENV SEAWALL_ADMIN=127.0.0.1:9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
    CMD ["/usr/local/bin/seawall", "health"]
ENTRYPOINT ["/usr/local/bin/seawall"]
# Mount a file there, or use `serve --origin https://origin.example --listen 0.0.0.0:8080` instead.
CMD ["serve", "--config", "/etc/seawall/seawall.toml"]
