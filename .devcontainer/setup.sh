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
pip3 install torch --index-url https://download.pytorch.org/whl/cpu  # rosdep's key would bring CUDA as well
rosdep update --rosdistro jazzy
rosdep install --from-paths src --ignore-src -y
pip3 install --no-deps -r src/nre_ros/requirements/robot.txt
source /opt/ros/jazzy/setup.bash
colcon build --symlink-install
echo 'source /ws/install/setup.bash' >> ~/.bashrc
