# The commands in an image: `docker build -t nnunet_sfr .`, then for example
#   docker run --rm -v "$PWD:/data" nnunet_sfr sfr_run -d 42 -i /data/new_images -o /data/predictions
# with nnU-Net's three folders in the mounted one. For a GPU, build with --build-arg TORCH="torch torchvision --index-url
# <the PyTorch index of your CUDA version>" and run with --gpus all --ipc=host.
FROM python:3.12-slim AS build
WORKDIR /src
RUN pip install --no-cache-dir build
COPY . .
RUN python -m build --wheel --outdir /wheels

FROM python:3.12-slim
# nnU-Net compiles its networks on a GPU, for which torch needs a C compiler
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG TORCH="torch torchvision"
RUN pip install --no-cache-dir ${TORCH}
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(echo /wheels/nnunet_sfr-*.whl)[lite-medsam]" && rm -r /wheels
ENV nnUNet_raw=/data/nnUNet_raw nnUNet_preprocessed=/data/nnUNet_preprocessed nnUNet_results=/data/nnUNet_results
WORKDIR /data
CMD ["sfr_run", "-h"]
