# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Retrieval: which keyframes of a map may show what a query image shows.

* ``retriever``: ``Retriever``, the interface that the localizer uses.
* ``retrieval_index``: descriptors and viewpoints of a map's keyframes, which give a shortlist.
* ``descriptor_index``: the faiss index of a large map.
* ``pose_prior``: where the camera may be, and which views fit.
* ``reranking``: local re-ranking of the shortlist.
"""
