"""libsvm and libffm line by line, as plainly as can be: what the reader is compared with."""

import math
import re


def number(token):
    if not re.fullmatch(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", token):
        raise ValueError
    if not math.isfinite(float(token)):
        raise ValueError
    return float(token)


def whole(token):
    if not re.fullmatch(rb"-?\d+", token) or not 0 <= int(token) < 2**63:
        raise ValueError
    return int(token)


def naive(content, with_fields=False, width=None):
    """Rows (line, label, features), and the lines that are none."""
    rows, bad = [], []
    for line, text in enumerate(content.split(b"\n"), start=1):
        tokens = text.split(b"#")[0].split()
        if not tokens:
            continue
        try:
            features = []
            for token in tokens[1:]:
                *front, value = token.split(b":")
                if len(front) != 1 + with_fields:
                    raise ValueError
                features.append((*map(whole, front), number(value)))
            if width is not None and len(features) != width:
                raise ValueError
            rows.append((line, number(tokens[0]), features))
        except ValueError:
            bad.append(line)
    return rows, bad
