#!/bin/sh
# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
# Is there what the set-up cannot bring itself?  Names everything missing at once, with the cure.
# PYTHON: the interpreter to make the venv with.

python=${PYTHON:-python3}
packages=""
problems=""

problem() {
    problems="$problems
  - $1"
}

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    problem "this is $(uname -sm), but the ROS 2 wheels are for Linux x86_64: build with colcon in a ROS installation"
fi

if ! command -v "$python" >/dev/null 2>&1; then
    problem "no Python: '$python' is not a command"
    packages="$packages python3 python3-venv python3-dev"
elif ! version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); then
    problem "'$python' does not run"
    packages="$packages python3 python3-venv python3-dev"
else
    case "$version" in
    3.10 | 3.11 | 3.12 | 3.13) ;;
    *) problem "'$python' is Python $version, needed is 3.10 to 3.13 (choose one with: make PYTHON=python3.12 ...)" ;;
    esac
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        problem "Python $version cannot make virtual environments"
        packages="$packages python$version-venv"
    fi
    if ! "$python" -c 'import sysconfig; open(sysconfig.get_path("include") + "/Python.h")' 2>/dev/null; then
        problem "Python $version has no C headers (Python.h), which the generated messages compile against"
        packages="$packages python$version-dev"
    fi
fi

if ! command -v "${CXX:-g++}" >/dev/null 2>&1; then
    problem "no C++ compiler: '${CXX:-g++}' is not a command"
    packages="$packages g++"
fi
if ! command -v git >/dev/null 2>&1; then
    problem "git is not a command"
    packages="$packages git"
fi

[ -z "$problems" ] && exit 0
echo "nre_ros cannot be set up on this machine yet:$problems" >&2
[ -n "$packages" ] && echo "Debian and Ubuntu: sudo apt install$packages" >&2
exit 1
