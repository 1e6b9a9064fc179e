"""Naive float64 NumPy, written as loops from the papers' formulas: what the layers must equal."""

import numpy as np


def fm_pairwise(e):
    """Rendle 2010, Eq. 1, the double sum over i < j; e [B, S, D] -> [B]."""
    e = np.asarray(e, np.float64)
    batch, slots, dim = e.shape
    out = np.zeros(batch)
    for b in range(batch):
        for i in range(slots):
            for j in range(i + 1, slots):
                for d in range(dim):
                    out[b] += e[b, i, d] * e[b, j, d]
    return out


def tower(params, x, epsilon=1e-5, batch_stats=None):
    """Guo et al. 2017, Eq. 3: a(W x + b) layer by layer, ReLU; the last one linear. [B, W] -> [B]

    With ``batch_stats`` each hidden layer is normalised by them before its ReLU.
    """
    out = []
    for row in np.asarray(x, np.float64):
        hidden = row
        for layer in range(sum(name.startswith("dense_") for name in params)):
            hidden = affine(params[f"dense_{layer}"], hidden)
            if batch_stats is not None:
                name = f"batch_norm_{layer}"
                mean, var = (np.asarray(batch_stats[name][key], float) for key in ("mean", "var"))
                scale, shift = (np.asarray(params[name][key], float) for key in ("scale", "bias"))
                hidden = scale * (hidden - mean) / np.sqrt(var + epsilon) + shift
            hidden = np.array([max(0.0, h) for h in hidden])
        out.append(affine(params["out"], hidden)[0])
    return np.array(out)


def affine(params, x):
    kernel, bias = (np.asarray(params[key], np.float64) for key in ("kernel", "bias"))
    out = []
    for h in range(kernel.shape[1]):
        total = bias[h]
        for i in range(kernel.shape[0]):
            total += kernel[i, h] * x[i]
        out.append(total)
    return np.array(out)


def look_up(table, field_dims, ids):
    """Row offset[f] + id of each feature: [B, S, ...]."""
    table = np.asarray(table, np.float64)
    return np.array(
        [[table[sum(field_dims[:f]) + int(i)] for f, i in enumerate(row)] for row in ids]
    )


def lr(params, field_dims, ids, values):
    weights = look_up(params["table"]["first_order"], field_dims, ids)
    logits = []
    for row, x in zip(weights, np.asarray(values, np.float64), strict=True):
        logit = float(params["bias"])
        for w, value in zip(row, x, strict=True):
            logit += w * value
        logits.append(logit)
    return np.array(logits)


def scaled_embeddings(params, field_dims, ids, values):
    vectors = look_up(params["table"]["embedding"], field_dims, ids)
    return vectors * np.asarray(values, np.float64)[:, :, None]


def fm(params, field_dims, ids, values):
    e = scaled_embeddings(params, field_dims, ids, values)
    return lr(params, field_dims, ids, values) + fm_pairwise(e)


def deepfm(params, field_dims, ids, values):
    e = scaled_embeddings(params, field_dims, ids, values)
    flat = np.array([np.concatenate(list(row)) for row in e])
    return fm(params, field_dims, ids, values) + tower(params["tower"], flat)


MODELS = {"lr": lr, "fm": fm, "deepfm": deepfm}


def logloss(logits, labels):
    """Guo et al. 2017, Table 2's metric, as the mean of -log of the label's probability."""
    total = 0.0
    for z, y in zip(logits, labels, strict=True):
        p = 1.0 / (1.0 + np.exp(-z))
        total -= np.log(p if y else 1.0 - p)
    return total / len(labels)


def numeric_gradient(function, array, step=1e-5):
    """Central differences of a scalar function of a float64 array."""
    array = np.array(array, np.float64)
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = function(array)
        array[index] = kept - step
        gradient[index] = (above - function(array)) / (2 * step)
        array[index] = kept
    return gradient
