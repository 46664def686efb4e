# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings of the estimator: the published names, ours, and what is refused."""

import pytest

from nre_ros.errors import NreError
from nre_ros.nre import EstimatorConfig, load_config

PUBLISHED = """
skip_gnc: True
n_iter_p3p: 700
top_n_p3p: 0.5
max_fine_imsize: 1600
gnc_minibatch: 3000
p3p_sigma_max: 1.0
p3p_sigma_min: 0.7
window_size: 32
fine_sigma_max: 0.9
fine_sigma_min: 0.8
"""


def written(folder, text):
    path = folder / "config.yml"
    path.write_text(text)
    return path


def test_the_published_file_is_read(tmp_path):
    config = load_config(written(tmp_path, PUBLISHED))
    assert config == EstimatorConfig(
        n_iter_p3p=700,
        top_n_p3p=0.5,
        coarse_sigma_max=1.0,
        coarse_sigma_min=0.7,
        fine_sigma_max=0.9,
        fine_sigma_min=0.8,
        window_size=32,
        skip_gnc=True,
    )


def test_both_names_of_the_coarse_scales_mean_the_same(tmp_path):
    ours = load_config(written(tmp_path, "coarse_sigma_max: 4.0"))
    assert ours == load_config(written(tmp_path, "p3p_sigma_max: 4.0"))
    assert ours.coarse_sigma_max == 4.0


@pytest.mark.parametrize(
    "text, words",
    [
        ("n_iter: 5", "unknown setting 'n_iter'"),
        ("top_n_p3p: 1.5", "top_n_p3p=1.5"),
        ("n_iter_p3p: 0", "n_iter_p3p=0"),
        ("window_size: 7", "window_size=7"),
        ("fine_sigma_min: 3.0", "fine_sigma_min=3.0"),
        ("- a", "no list"),
        ("n_iter_p3p: 2500.5", "n_iter_p3p is 2500.5"),
        ("window_size: 16.0", "window_size is 16.0"),
        ("use_re: 'no'", "use_re is 'no'"),
        ("reciprocal: 1", "reciprocal is 1"),
        ("a: [", "cannot be read"),
        ("n_iter_p3p: many", "config.yml"),
        ("!!python/object/apply:os.system ['true']", "read"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(tmp_path, text, words):
    with pytest.raises(NreError, match=words) as caught:
        load_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(NreError, match="none.yml"):
        load_config(tmp_path / "none.yml")
