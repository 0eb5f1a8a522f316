# crack-md with the CPU build of PyTorch:
#
#     docker build -t crack-md .
#     docker run --rm -v "$PWD:/work" crack-md screen surfaces.db
#
# For GPUs, with the NVIDIA container toolkit:
#
#     docker build -t crack-md --build-arg TORCH_INDEX=https://pypi.org/simple .
#     docker run --rm --gpus all -v "$PWD:/work" crack-md screen surfaces.db
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# shared libraries that wheels do not bring
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" \
    --extra-index-url https://pypi.org/simple torch

COPY pyproject.toml README.md LICENSE /source/
COPY crack_md /source/crack_md
# the image is made only where the packaged models compute what they should
RUN pip install --no-cache-dir /source && rm -rf /source \
    && cd / && crack-md doctor

RUN useradd --create-home user
USER user
ENV MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
ENTRYPOINT ["crack-md"]
CMD ["--help"]
