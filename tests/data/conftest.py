"""Fixtures of the tests that prepare small data sets of their own."""

import pytest

from tests import click_logs


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    click_logs.write_frappe(folder, click_logs.SMALL)
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"
