"""``python -m nre_ros``: the command line."""

import sys

from nre_ros.cli import main

sys.exit(main())
