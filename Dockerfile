# syntax=docker/dockerfile:1.7
# docker build --target cpu -t darkroom:latest .        the built-in model, a laptop or a cluster without GPUs
# docker build --target cuda -t darkroom:latest .       GPUs; weights come from a volume, not from the image
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
RUN python -m venv /opt/darkroom
ENV PATH=/opt/darkroom/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./

FROM build AS build-cpu
ARG TORCH_INDEX=
# Give TORCH_INDEX, a wheel index of CPU builds, to save the CUDA libraries; without it the standard wheel is used.
RUN pip install -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY serve_app ./serve_app
RUN pip install -c constraints.txt '.[openvino,tracing]'

FROM build AS build-cuda
COPY serve_app ./serve_app
RUN pip install -c constraints.txt '.[tracing]'

FROM python:${PYTHON}-slim-bookworm AS runtime
RUN useradd --uid 1000 --create-home darkroom
ENV PATH=/opt/darkroom/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
# Serve's proxies refuse bodies before they hold them: see docs/operations.md.
ENV RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.deployments.proxy_callback:proxy_middlewares
# A client's address is that of its connection, whatever its headers say.
ENV FORWARDED_ALLOW_IPS=""
WORKDIR /home/darkroom
COPY --chown=darkroom configs ./configs
USER 1000
EXPOSE 8000
CMD ["darkroom", "serve", "configs/local.yaml", "--host", "0.0.0.0"]

FROM runtime AS cpu
COPY --from=build-cpu /opt/darkroom /opt/darkroom

FROM runtime AS cuda
COPY --from=build-cuda /opt/darkroom /opt/darkroom
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
