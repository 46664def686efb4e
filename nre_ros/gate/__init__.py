# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The validation gate: which localization results are accepted, by odometry and by their agreement.

One image goes through as an ``Observation`` (``observation.py``), a ``LocalizationResult`` and a ``Decision``
(``decision.py``).  Nothing here needs ROS.
"""
