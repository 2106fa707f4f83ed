# One static binary in an otherwise empty image. Needs no BuildKit feature, so that older Docker versions build it too.

FROM rust:1-bookworm AS build
WORKDIR /build

# glibc is linked in, so that the final image needs no C library; the second flag has random bytes come from the kernel
# instead of a file (scripts/build-static does the same). The C compiler for the bundled SQLite is in this image.
ENV RUSTFLAGS='-C target-feature=+crt-static --cfg getrandom_backend="linux_getrandom"'

# The dependencies alone first, with an empty program: their layer is reused until Cargo.toml or Cargo.lock changes.
# --target, although it names the machine's own: without it RUSTFLAGS would also apply to procedural macros, which are
# shared libraries and cannot be built with a static C library.
COPY Cargo.toml Cargo.lock ./
RUN rustc -vV | sed -n 's/^host: //p' > /host \
 && mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --target "$(cat /host)" \
 && rm -r src

COPY src src
# touch: cargo compares times, and the files come with times older than the empty program just built.
# readelf: a dynamic binary would build here and then not start in the empty image.
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --target "$(cat /host)" --bin ingestor \
 && install -D -s -m 0755 "target/$(cat /host)/release/ingestor" /image/ingestor \
 && if readelf --dynamic /image/ingestor | grep NEEDED; then echo 'the binary is not static' >&2; exit 1; fi \
 && /image/ingestor --version

# CA certificates: deliveries over https trust the roots that are compiled in; rediss:// reads the system's, which are
# these. Mount another bundle over the file for a private CA.
RUN install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && mkdir -p /owned/data /owned/tmp

FROM scratch
COPY --from=build /image/ /
# A new volume on /data takes over this directory's owner; otherwise it would belong to root, and the binary could not
# write to it.
COPY --from=build --chown=65532:65532 /owned/ /
# A number, since there is no /etc/passwd, and since Kubernetes' runAsNonRoot wants one.
USER 65532:65532
WORKDIR /data
# Inside a container, 127.0.0.1 cannot be reached from anywhere else.
ENV INGESTOR_HOST=0.0.0.0 \
    DATA_DIR=/data \
    LOG_DIR=/data/log
VOLUME /data
EXPOSE 8070
# The exec form: the process gets SIGTERM itself and drains. There is no shell here anyway.
ENTRYPOINT ["/ingestor"]
CMD ["serve"]
