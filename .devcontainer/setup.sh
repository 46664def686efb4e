#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
# Builds the workspace of the development container.  Afterwards, in a new terminal:
#   ros2 launch nre_ros localize.launch.py map:=/path/to/map.db
# Not run by this project: written without a container runtime.
set -eo pipefail
cd /ws
apt-get update
apt-get install -y python3-pip
pip3 install torch --index-url https://download.pytorch.org/whl/cpu  # docs/installation.md: rosdep's key would bring CUDA
rosdep update --rosdistro jazzy
rosdep install --from-paths src --ignore-src -y --skip-keys "python3-pytorch-pip python3-rosbags-pip"
pip3 install --no-deps -r src/nre_ros/requirements/robot.txt
pip3 install 'rosbags>=0.11.7,<0.12'
source /opt/ros/jazzy/setup.bash
colcon build --symlink-install
echo 'source /ws/install/setup.bash' >> ~/.bashrc
