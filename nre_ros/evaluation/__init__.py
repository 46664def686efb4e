# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Evaluation of the localizer on a bag, on a list of images or on a public data set.

``evaluate.evaluate`` calls the parts in this order:

1. ``inputs``, ``bag_input``: query images and their ground truth (``ground_truth``, ``bag_ground_truth``).
2. ``output_folder``: checks that an interrupted run can be continued.
3. ``localize_queries`` (or ``through_ros``): localizes every image and appends a line to ``records``.
4. ``metrics``: joins records and ground truth, and computes all figures.
5. ``result_files``: writes the figures and the poses.
6. ``baselines``: localizes the same images with other methods.
7. ``report``: writes the HTML page.

``datasets`` runs evaluations on public benchmarks. ``docs/evaluation.md`` defines every figure.
"""
