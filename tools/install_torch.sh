#!/bin/sh
# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
# Installs torch into a venv:  install_torch.sh VENV_PYTHON cpu|cuda|pypi|BACKEND
#
# PyPI's own torch brings gigabytes of CUDA libraries, and its CPU build lies on PyTorch's own
# index.  uv knows that index and those of the CUDA versions, so that none need be named here.
set -e

python=$1
choice=$2
version=2.13.0
pip="$python -m pip --disable-pip-version-check"

case "$choice" in
cpu)
    # A machine may be set up to find a CPU build by itself; a plain miss takes a moment.
    if $pip install --quiet "torch==$version+cpu" 2>/dev/null; then
        echo "torch $version+cpu"
        exit 0
    fi
    backend=cpu
    ;;
cuda) backend=auto ;;
*) backend=$choice ;;
esac

# Another build of the same version would count as installed already.
$pip uninstall --quiet --yes torch 2>/dev/null
if [ "$choice" = pypi ]; then
    $pip install "torch==$version"
    exit 0
fi

$pip install --quiet uv
if ! "$(dirname "$python")/uv" pip install --python "$python" --torch-backend "$backend" "torch==$version"; then
    echo "torch $version ($backend) could not be installed: no connection to PyTorch's package index," >&2
    echo "or no such build.  TORCH=pypi takes what a plain 'pip install torch' brings (several GB)." >&2
    exit 1
fi
