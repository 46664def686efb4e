# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from folders of colour and depth images: plain folders, TUM RGB-D and 7-Scenes."""
