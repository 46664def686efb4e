# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP models: cameras and poses, with the model's points (``model_source``) or without (``poses_source``)."""
