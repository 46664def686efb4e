# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``python -m nre_ros``: the command line."""

import sys

from nre_ros.cli import main

sys.exit(main())
