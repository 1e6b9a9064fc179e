"""Small raw click logs for tests, in the layouts of the builders, with something to learn."""

import csv
import gzip

import numpy as np

from deepfm_jax import Categorical, Label, Schema, Weight
from deepfm_jax.datasets import Avazu, CensusIncome, Criteo, Frappe

ROWS = {"train": 10_000, "valid": 1500, "test": 1500}
SMALL = {"train": 60, "valid": 30, "test": 30}


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


def write_criteo_days(folder, rows, last):
    """The 24 day files of Criteo's terabyte, every other one packed, with ``last`` rows in day 23.

    A day has rows of its own: the first integer is the day.
    """
    for day in range(24):
        lines = criteo_lines(rows if day < 23 else last, seed=day)
        cells = [line.split("\t") for line in lines]
        lines = ["\t".join([label, str(day), *rest]) for label, _, *rest in cells]
        _write_text(folder / (f"day_{day}.gz" if day % 2 else f"day_{day}"), lines)


def _write_text(path, lines):
    text = "\n".join(lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_avazu(path, rows, seed=0):
    """Made-up rows in Avazu's layout, over its ten days; the label follows site and hour."""
    rng = np.random.default_rng(seed)
    names = [column.name for column in Avazu.SCHEMA.columns]
    lines = [",".join(names)]
    for row in range(rows):
        day, hour, site = rng.integers(21, 31), rng.integers(0, 24), rng.integers(0, 8)
        click = int(rng.random() < 0.05 + 0.05 * site + 0.2 * (hour > 12))
        hexes = [f"{code:08x}" for code in (site, *rng.integers(0, 9, 8))]
        numbers = rng.integers(-1, 5, 12).tolist()
        lines.append(
            ",".join(
                map(str, [row, click, f"1410{day}{hour:02}", *numbers[:2], *hexes, *numbers[2:]])
            )
        )
    assert all(len(line.split(",")) == len(names) for line in lines)
    _write_text(path, lines)


def write_census(path, rows, seed=0):
    """Made-up rows in Census-Income's layout; who earns more is older, who is single younger."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        cells = []
        for column in CensusIncome.SCHEMA.columns[:-1]:
            if isinstance(column, Label):
                single = int(cells[0]) + rng.normal(0, 20) < 40
                cells.append("Never married" if single else "Divorced")
            elif isinstance(column, Categorical):
                cells.append(str(rng.choice(["Private", "Not in universe", "?", "7"])))
            else:
                cells.append(str(rng.integers(0, 90)))
        label = "50000+." if int(cells[0]) + rng.normal(0, 20) > 70 else "- 50000."
        lines.append(", ".join([*cells, label]))
    _write_text(path, lines)


_GENRES = ("unknown", "Action", "Comedy", "Film-Noir")
_JOBS = ("artist", "doctor", "other")
# Of each release its files and what stands between their cells: ratings, movies, users.
_MOVIELENS = {
    "100K": (("u.data", "\t"), ("u.item", "|"), ("u.user", "|")),
    "1M": (("ratings.dat", "::"), ("movies.dat", "::"), ("users.dat", "::")),
    "20M": (("ratings.csv", ","), ("movies.csv", ","), None),
}


def write_movielens(folder, release="100K", ratings=600, packed="", seed=0):
    """Made-up ratings in the layout of a release; some of one user share a second.

    Movies 1 to 40 and users 1 to 12; the rating follows the movie's first genre and the user.

    Returns:
      user, item, rating and time of each rating.
    """
    rng = np.random.default_rng(seed)
    movies = np.arange(1, 41)
    flags = rng.random((len(movies), len(_GENRES))) < 0.4
    users = rng.integers(1, 13, ratings)
    items = rng.choice(movies, ratings)
    mean = 2.5 + flags[items - 1, 1] + (users % 3) / 2
    step = 2 if release == "20M" else 1  # Half stars came later.
    values = np.clip(np.round((mean + rng.normal(0, 1, ratings)) * step) / step, 1, 5)
    times = 880_000_000 + rng.integers(0, ratings // 2, ratings) * 1800
    texts = [f"{value:g}" for value in values]
    kinds = _MOVIELENS[release]

    def write(kind, rows, head=()):
        name, between = kind
        lines = [between.join(map(str, row)) for row in (*head, *rows)]
        _write_text(folder / f"{name}{packed}", lines)

    listed = [[g for g, flag in zip(_GENRES, row, strict=True) if flag] for row in flags]
    titles = [f"Film {movie}: a story ({1990 + movie % 7})" for movie in movies]
    if release == "100K":
        dates = ["" if movie == 7 else f"01-Jan-{1990 + movie % 7}" for movie in movies]
        titles[6] = "unknown"
        cells = zip(movies, titles, dates, *[[""] * 40] * 2, *flags.T.astype(int), strict=True)
        write(("u.genre", "|"), [(g, n) for n, g in enumerate(_GENRES)])
        write(kinds[1], cells)
    elif release == "1M":
        titles[6] = "unknown"
        write(kinds[1], zip(movies, titles, map("|".join, listed), strict=True))
    else:
        titles = [f'"Film {movie}, The ({1990 + movie % 7})"' for movie in movies]
        titles[6] = "unknown"
        names = ["|".join(each) or "(no genres listed)" for each in listed]
        write(kinds[1], zip(movies, titles, names, strict=True), [("movieId", "title", "genres")])
    if kinds[2] is not None:
        people = [
            (user, 18 + user, "MF"[user % 2], _JOBS[user % 3], f"{98_000 + user}")
            for user in range(1, 13)
        ]
        if release == "1M":
            people = [(user, gender, age, *rest) for user, age, gender, *rest in people]
        write(kinds[2], people)
    head = [("userId", "movieId", "rating", "timestamp")] if release == "20M" else []
    write(kinds[0], zip(users, items, texts, times, strict=True), head)
    return list(zip(users.tolist(), items.tolist(), values.tolist(), times.tolist(), strict=True))


# Two labels, a weight, and a group that is a feature as well.
SHOP = Schema(
    (
        Categorical("user", group=True),
        Categorical("item", dtype="integer"),
        Weight("shown"),
        Label("click"),
        Label("ordered", positive="yes"),
    )
)


def write_shop(folder, rows=None, schema=SHOP):
    """train.csv, valid.csv and test.csv of SHOP: some users are unknown, some rows weigh 0."""
    truth = np.random.default_rng(7).normal(0, 1, (2, 30))
    for seed, (split, count) in enumerate((rows or ROWS).items()):
        rng = np.random.default_rng(seed)
        users, items = rng.integers(0, 30, (2, count))
        logits = truth[0, users] + truth[1, items] - 1
        clicks = rng.random(count) < 1 / (1 + np.exp(-logits))
        orders = rng.random(count) < 1 / (1 + np.exp(logits + 1))
        cells = {
            "user": [f"u{user}" if rng.random() < 0.9 else "" for user in users],
            "item": items.tolist(),
            "shown": rng.choice([0, 0.5, 1, 4], count).tolist(),
            "click": clicks.astype(int).tolist(),
            "ordered": np.where(orders, "yes", "no").tolist(),
        }
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            names = [column.name for column in schema.columns]
            writer.writerow(names)
            writer.writerows(zip(*(cells[name] for name in names), strict=True))
