"""Small raw click logs for tests, in the layouts of the builders, with something to learn."""

import csv

import numpy as np

from deepfm_jax.data.builders import Criteo, Frappe

ROWS = {"train": 10_000, "valid": 1500, "test": 1500}


def write_frappe(folder, rows=None, seed=0):
    """train.csv, valid.csv and test.csv: the label depends on two fields and on their pair."""
    rng = np.random.default_rng(seed)
    names = [column.name for column in Frappe.SCHEMA.columns]
    truth = np.random.default_rng(7)
    first, pair = truth.normal(0, 1, (2, 20)), truth.normal(0, 1, (20, 20))
    for split, count in (rows or ROWS).items():
        cells = rng.integers(0, 20, (count, len(names) - 1))
        a, b = cells[:, 0], cells[:, 1]
        logit = first[0, a] + first[1, b] + pair[a, b]
        label = (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(int)
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(np.column_stack([label, cells]).tolist())


def criteo_lines(count, seed=0):
    """Lines of Criteo's TSV, some cells missing; the label follows C1 and I1."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        counts = [str(rng.integers(-1, 60)) if rng.random() < 0.8 else "" for _ in range(13)]
        codes = rng.integers(0, 12, 26)
        hexes = [f"{code:08x}" if rng.random() < 0.9 else "" for code in codes]
        logit = (codes[0] - 6) / 3 + (1 if counts[0] == "" else 0)
        label = int(rng.random() < 1 / (1 + np.exp(-logit)))
        lines.append("\t".join([str(label), *counts, *hexes]))
    assert len(lines[0].split("\t")) == len(Criteo.SCHEMA.columns)
    return lines


def write_criteo(folder, rows=None):
    for seed, (split, count) in enumerate((rows or ROWS).items()):
        lines = criteo_lines(count, seed)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
