# syntax=docker/dockerfile:1
# An image with mhrctl and its demo. On a CPU:
#   docker build --tag mhrctl . && docker run --rm -it mhrctl make demo
# On NVIDIA GPUs, with a driver for CUDA 13 and its container toolkit:
#   docker build --tag mhrctl:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#   docker run --rm -it --gpus all mhrctl:cuda make demo
ARG BASE=python:3.13-slim
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=gguf,peft,tracking

# git is what DVC works with; the compiler is for torch.compile (--compile). Debian's versions are those of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ git make \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:$PATH \
    MAKEFLAGS=VENV=/opt/venv \
    PIP_EXTRA_INDEX_URL=${TORCH_INDEX} \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    DVC_NO_ANALYTICS=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# torch alone is most of the image, and its layer stays until its version changes
WORKDIR /opt/mhrctl
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && pip install --constraint constraints.txt torch

COPY pyproject.toml README.md LICENSE ./
COPY mhrctl mhrctl
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt ".[${EXTRAS}]" \
    && touch /opt/venv/ready

# whoever runs it may be another user (--user), who has no name here and writes below HOME
RUN useradd --create-home --uid 1000 mhrctl \
    && chmod a+rwx /home/mhrctl
ENV HOME=/home/mhrctl \
    USER=mhrctl
USER 1000:1000
WORKDIR /home/mhrctl/demo
COPY --chown=mhrctl:mhrctl Makefile pyproject.toml constraints.txt params.yaml dvc.yaml dvc.lock .dvcignore ./
COPY --chown=mhrctl:mhrctl .dvc .dvc
COPY --chown=mhrctl:mhrctl data data
RUN dvc config --local core.no_scm true

CMD ["mhrctl", "--help"]
