# The programs for the CPU:
#   docker build -t sdft .
#   docker run --rm -v "$PWD:/work" sdft train
#   docker run --rm -v "$PWD:/work" -v sdft-cache:/home/sdft/.cache --entrypoint sdft-fetch sdft --list
FROM rust:1.95-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ make \
    && rm -rf /var/lib/apt/lists/*
# The compiler of this image, without the components that rust-toolchain.toml adds.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p sdft-cli -p sdft-hub -p sdft-prepare \
    && mkdir /programs \
    && cp target/release/sdft target/release/sdft-fetch target/release/sdft-prepare /programs

FROM debian:bookworm-slim
# sdft-fetch compares the certificates of servers with these.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 sdft \
    && install -d -o sdft -g sdft /work /home/sdft/.cache
COPY --from=build /programs/ /usr/local/bin/
COPY LICENSE-APACHE LICENSE-MIT assets/emoji/NOTICE /usr/local/share/doc/sdft/
USER 1000
WORKDIR /work
ENTRYPOINT ["sdft"]
CMD ["--help"]
