# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localization of one image in a map: ``Localizer``, its result, and how sure the result is."""
