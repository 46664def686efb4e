# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Test sessions that run at the same time use different DDS domains."""

import itertools
import tempfile

import domain_lock
import pytest
from domain_lock import DomainLock


@pytest.fixture
def candidates(monkeypatch, tmp_path):
    """candidates(number, ...): the domains that are tried next, as in a session that starts there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda *numbers: monkeypatch.setattr(domain_lock, "_domains", itertools.cycle(numbers))


def test_a_domain_in_use_is_passed_over_until_it_is_closed(candidates):
    candidates(7, 8)
    first = DomainLock()
    candidates(7, 8)
    second = DomainLock()
    assert (first.number, second.number) == (7, 8)
    first.close()
    candidates(7, 8)
    third = DomainLock()
    assert third.number == 7
    second.close()
    third.close()


def test_without_a_free_domain_the_session_stops_with_the_reason(candidates):
    candidates(7)
    lock = DomainLock()
    with pytest.raises(RuntimeError, match="all 101 DDS domains are in use"):
        DomainLock()
    lock.close()
