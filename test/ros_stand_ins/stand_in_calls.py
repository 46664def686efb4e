# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How often the functions of the stand-ins have been called."""

CALLS: dict[str, int] = {}


def counted(function):
    """The function, counted in ``CALLS`` by its name."""

    def call(*args, **kwargs):
        CALLS[function.__name__] = CALLS.get(function.__name__, 0) + 1
        return function(*args, **kwargs)

    return call
