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
# What Ray must be started with, and why: serve_app/config/ray_environment.py.
ENV RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.deployments.proxy_callback:proxy_middlewares
ENV RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=2
ENV FORWARDED_ALLOW_IPS=""
ENV RAY_SERVE_ENABLE_HA_PROXY=1
ENV RAY_SERVE_HAPROXY_BINARY_PATH=/usr/local/bin/darkroom_haproxy.py
ENV RAY_SERVE_USE_GRPC_BY_DEFAULT=1
ENV RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH=268435456
ENV RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD=0
ENV RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S=600
ENV RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S=10
ENV RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=30
COPY --chmod=755 serve_app/deployments/darkroom_haproxy.py /usr/local/bin/darkroom_haproxy.py
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
