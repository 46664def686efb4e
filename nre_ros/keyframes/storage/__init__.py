# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The map file: an SQLite database of keyframes.

* ``store``: ``KeyframeStore``, the interface that the rest of the package uses.
* ``database``: an open file with its transactions and verified rows.
* ``map_file``, ``schema``: creating, opening, upgrading and replacing files.
* ``rows``, ``blobs``, ``validation``: keyframes as rows, arrays as blobs, what a keyframe must satisfy.
* ``change_log``, ``cameras``, ``index_chunks``, ``keyframe_cache``: parts of the store.
"""
