# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What several posed views tell about one: which of them see the same, and how far away it is."""
