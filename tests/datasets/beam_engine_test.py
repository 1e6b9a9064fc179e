"""Parsing of the Beam flags, and the error if Beam is missing; neither needs Beam."""

import subprocess
import sys

import pytest

from deepfm_jax import UserError
from deepfm_jax.datasets.beam.engine import BeamEngine
from deepfm_jax.datasets.prepare import prepare
from tests import click_logs


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ([], ()),
        (["a=1,b=2", "c=x"], ("a=1", "b=2", "c=x")),
        (["flag,a=1,other_flag"], ("flag", "a=1", "other_flag")),
        (['config={"command": "run", "env": {"A": "b"}}'],
         ('config={"command": "run", "env": {"A": "b"}}',)),
        (["image=host:80/name:tag,url=http://a=b"], ("image=host:80/name:tag", "url=http://a=b")),
    ],
)  # fmt: skip
def test_options_are_split_where_the_next_one_begins(texts, options):
    assert BeamEngine.from_flags("DirectRunner", texts) == BeamEngine("DirectRunner", options)


def test_no_runner_is_no_beam():
    assert BeamEngine.from_flags(None, []) is None
    with pytest.raises(UserError, match="--beam_options needs --beam_runner"):
        BeamEngine.from_flags(None, ["a=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--a=1", "'--a=1' is not key=value"),
        ("=1", "'=1' is not key=value"),
        ("runner=FlinkRunner", "name the runner with --beam_runner"),
    ],
)
def test_a_mistake_in_the_options_is_named(text, message):
    with pytest.raises(UserError, match=message):
        BeamEngine.from_flags("DirectRunner", ["b=2", text])


def test_without_beam_the_remedy_is_named_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    click_logs.write_criteo(tmp_path, click_logs.SMALL)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"pip install 'deepfm_jax\[beam\]'"):
        prepare("criteo", out, source=tmp_path, beam=BeamEngine("DirectRunner"))
    assert not out.exists()


def test_preparing_without_beam_does_not_import_it(tmp_path):
    click_logs.write_criteo(tmp_path, click_logs.SMALL)
    code = (
        "import sys; sys.modules['apache_beam'] = None; "
        "from deepfm_jax.datasets.prepare import prepare; "
        f"print(prepare('criteo', {str(tmp_path / 'out')!r}, source={str(tmp_path)!r})['train'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rows=60" in done.stdout
