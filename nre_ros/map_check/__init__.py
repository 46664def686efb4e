# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How good a map is: its keyframes are localized in the map without themselves (``nre_ros map check``)."""
