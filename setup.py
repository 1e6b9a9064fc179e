"""What pyproject.toml cannot say: the wheel has ``experiments/`` as ``deepfm_jax.experiments``."""

from setuptools import find_packages, setup

setup(
    # Without benchmarks and Cloud TPU, which need a clone.
    packages=[
        *find_packages(include=["deepfm_jax*"]),
        "deepfm_jax.experiments",
        "deepfm_jax.experiments.configs",
    ],
    package_dir={"deepfm_jax.experiments": "experiments"},
)
