# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Camera pose from one image by the Neural Reprojection Error, for ROS 2 and for Python.

Germain, Lepetit, Bourmaud: "Neural Reprojection Error: Merging Feature Learning and
Camera Pose Estimation", CVPR 2021.  ``docs/architecture.md`` is the map of the package.
"""

from pkgutil import extend_path

# The generated messages (nre_ros.msg, nre_ros.srv) may be installed in another folder than
# the sources that are being imported: both belong to this one package.
__path__ = extend_path(__path__, __name__)

__version__ = "0.2.0"
