# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
# Not run by this project: written without a container runtime.
#
#   docker build -t nre_ros .
#   docker run --rm --network host -v /path/to/maps:/maps nre_ros map:=/maps/office.db \
#       image:=/camera/camera/color/image_raw camera_info:=/camera/camera/color/camera_info
#
# For a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 ..., and docker run --gpus all.
FROM ros:jazzy
SHELL ["/bin/bash", "-c"]

# Ubuntu 24.04 protects its Python.  In a container pip may change it.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/*
# not by rosdep, whose key would bring torch from PyPI with all of CUDA
RUN pip3 install torch --index-url ${TORCH_INDEX}

WORKDIR /ws
# dependencies first: they stay cached while the sources change
COPY package.xml src/nre_ros/package.xml
COPY requirements/robot.txt src/nre_ros/requirements/robot.txt
RUN apt-get update && rosdep update --rosdistro jazzy \
    && rosdep install --from-paths src --ignore-src -y --dependency-types=build --dependency-types=buildtool \
        --dependency-types=exec --skip-keys "python3-pytorch-pip python3-rosbags-pip" \
    && pip3 install 'rosbags>=0.11.7,<0.12' \
    && pip3 install --no-deps -r src/nre_ros/requirements/robot.txt && rm -rf /var/lib/apt/lists/*

COPY . src/nre_ros
RUN source /opt/ros/jazzy/setup.bash && colcon build --cmake-args -DBUILD_TESTING=OFF

ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec ros2 launch nre_ros localize.launch.py \"$@\"", "nre_ros"]
