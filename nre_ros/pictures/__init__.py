# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a person looks at to believe a pose: a query, a sheet about it, and all poses in space."""
