# syntax=docker/dockerfile:1
# One image for every role; the role is the command: api, crawler, worker, maintenance, migrate. The target `tools` is
# the same plus npm, by which one of the published models comes; no role runs on it.
# Nothing is compiled: everything comes as a wheel. Postgres and Valkey have containers of their own, so the
# embedded servers of `tagmill up` are not inside.

FROM python:3.12-slim AS build

# Which build of torch: empty for the default one (CUDA), `cpu` for a much smaller image without CUDA, but with
# OpenVINO, which is quicker on CPUs.
ARG TORCH_BACKEND=""

ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1
RUN pip install --no-cache-dir uv && python -m venv /opt/tagmill
ENV VIRTUAL_ENV=/opt/tagmill

# Dependencies first: this layer is several GB and changes only with these two files.
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN if [ -n "$TORCH_BACKEND" ]; then export UV_TORCH_BACKEND="$TORCH_BACKEND"; fi \
 && if [ "$TORCH_BACKEND" = cpu ]; then extra="--extra cpu"; fi \
 && uv pip install --constraint constraints.txt --extra s3 $extra --requirements pyproject.toml

COPY README.md LICENSE ./
COPY api api
COPY db db
COPY ml ml
COPY worker worker
COPY migrations migrations
RUN uv pip install --no-deps .


FROM python:3.12-slim AS runtime

# A fixed uid, so that volumes keep their owner from image to image. No shell, no home, nothing to log in to.
RUN groupadd --gid 10001 tagmill \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin tagmill \
 && install --directory --owner tagmill --group tagmill /data /data/blobs /data/blobs/tmp /data/models

COPY --from=build /opt/tagmill /opt/tagmill

# The root file system may be read-only: what libraries insist on writing goes to /tmp.
ENV PATH=/opt/tagmill/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    TORCH_HOME=/tmp/torch \
    CUDA_CACHE_PATH=/tmp/cuda

WORKDIR /data
USER 10001:10001
STOPSIGNAL SIGTERM
EXPOSE 8080
ENTRYPOINT ["tagmill"]
CMD ["--help"]


FROM runtime AS tools
COPY --from=node:24-slim /usr/local/bin/node /usr/local/bin/node
COPY --from=node:24-slim /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
USER root
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
USER 10001:10001
