# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether the poses, cameras and depths of a source agree with its images, and which mistake explains a disagreement.

``pairs`` matches images without using their poses, ``agreement`` compares the matches with the poses, ``check`` gives
the verdict of an import, and ``hypotheses`` tries the mistakes that are made with poses and depth.
"""
