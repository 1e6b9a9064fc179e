import os
import tempfile

import pytest

from tests.experiments.cloud_tpu.fake_gcloud import Gcloud


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    fake = Gcloud(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.bin}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GCLOUD", str(tmp_path))
    # Tests that run in parallel must not write the same archive.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return fake
