#!/bin/sh
# Environments of the peers that benchmarks/speed.py compares with, one each in .peers:
#
#     benchmarks/peers/install.sh [fairchem-v1] [fairchem-v2] [nequix]
#
# All get the PyTorch that crack-md is measured with, so that differences are those of
# the codes. PYTHON names the interpreter (3.11 or 3.12), TORCH another version.
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
folder=${PEERS:-$root/.peers}
python=${PYTHON:-python3.11}
torch=${TORCH:-2.13.0}
cpu_index=https://download.pytorch.org/whl/cpu

make_environment() {
    echo "making $folder/$1"
    rm -rf "${folder:?}/$1"
    "$python" -m venv "$folder/$1"
    pip="$folder/$1/bin/python -m pip install --quiet --disable-pip-version-check"
    # Without a GPU the CPU build: the default one brings gigabytes of CUDA.
    if command -v nvidia-smi >/dev/null 2>&1 || [ "$(uname -s)" != Linux ]; then
        $pip "torch==$torch"
    else
        $pip "torch==$torch+cpu" 2>/dev/null ||
            $pip --timeout 20 --retries 1 --extra-index-url "$cpu_index" \
                "torch==$torch+cpu" ||
            $pip "torch==$torch"
    fi
}

# fairchem-core 1.10.0 asks for torch 2.4: it goes without its dependencies on top of
# those that EquiformerV2 needs. It runs on the newer torch, with the same answers as
# our code. torch-scatter is compiled here: minutes, and a C++ compiler.
install_fairchem_v1() {
    make_environment fairchem-v1
    $pip "numpy<2" ase e3nn torch-geometric huggingface-hub hydra-core lmdb numba \
        orjson "pydantic>=2.10" pyyaml requests submitit tensorboard torchtnt tqdm \
        scipy matplotlib "setuptools<81" wheel
    # not from the cache: it may have been compiled for another torch
    $pip --no-cache-dir --no-build-isolation --no-deps torch-scatter==2.1.2
    $pip --no-deps fairchem-core==1.10.0
}

install_fairchem_v2() {
    make_environment fairchem-v2
    $pip fairchem-core==2.24.0
}

# Nequix asks for CUDA builds of JAX that most machines cannot use.
install_nequix() {
    make_environment nequix
    $pip jax e3nn e3nn-jax equinox jraph torch_geometric matscipy pyyaml tqdm ase
    $pip --no-deps nequix==0.4.5
}

for name in ${*:-fairchem-v1 fairchem-v2 nequix}; do
    case $name in
    fairchem-v1) install_fairchem_v1 ;;
    fairchem-v2) install_fairchem_v2 ;;
    nequix) install_nequix ;;
    *) echo "error: no peer $name; there are fairchem-v1, fairchem-v2, nequix" >&2 && exit 2 ;;
    esac
done
