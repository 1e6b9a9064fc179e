"""Naive float64 NumPy, written as loops from the papers' formulas: what the layers must equal."""

import numpy as np


def fm_pairwise(e):
    """Rendle 2010, Eq. 1, the double sum over i < j; e [B, S, D] -> [B]."""
    e = np.asarray(e, np.float64)
    batch, fields, dim = e.shape
    out = np.zeros(batch)
    for b in range(batch):
        for i in range(fields):
            for j in range(i + 1, fields):
                for d in range(dim):
                    out[b] += e[b, i, d] * e[b, j, d]
    return out


def tower(params, x, epsilon=1e-5, batch_stats=None, activation="relu"):
    """Guo et al. 2017, Eq. 4: a(W x + b) layer by layer; the last one linear. [B, X] -> [B]"""
    hidden = hidden_layers(params, x, epsilon, batch_stats, activation)
    return np.array([affine(params["out"], row)[0] for row in hidden])


def hidden_layers(params, x, epsilon=1e-5, batch_stats=None, activation="relu"):
    """The same up to the last hidden layer, [B, X] -> [B, H].

    With ``batch_stats`` each layer is normalised by them before its activation.
    """
    act = {"relu": lambda h: max(0.0, h), "tanh": np.tanh}[activation]
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
            hidden = np.array([act(h) for h in hidden])
        out.append(hidden)
    return np.array(out)


def affine(params, x):
    kernel = np.asarray(params["kernel"], np.float64)
    bias = np.asarray(params.get("bias", np.zeros(kernel.shape[1])), np.float64)
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


def flat(e):
    return np.array([np.concatenate(list(row)) for row in e])


def deepfm(params, field_dims, ids, values, shared=True):
    e = scaled_embeddings(params, field_dims, ids, values)
    half = e.shape[2] if shared else e.shape[2] // 2
    second_order = fm_pairwise(e[:, :, :half])
    deep = tower(params["tower"], flat(e if shared else e[:, :, half:]))
    return lr(params, field_dims, ids, values) + second_order + deep


def dnn(params, field_dims, ids, values):
    """Guo et al. 2017, Eq. 3 and 4 alone."""
    return tower(params["tower"], flat(scaled_embeddings(params, field_dims, ids, values)))


def fnn(params, field_dims, ids, values, activation="tanh"):
    """Zhang et al. 2016, Sec. 3.1: z = (w_0, z_1, ..., z_n), z_i = (w_i, v_i)."""
    weights = look_up(params["table"]["first_order"], field_dims, ids)
    e = scaled_embeddings(params, field_dims, ids, values)
    z = []
    for b in range(len(ids)):
        row = [float(params["bias"])]
        for i in range(e.shape[1]):
            row.append(weights[b, i] * float(values[b, i]))
            row.extend(e[b, i])
        z.append(row)
    return tower(params["tower"], np.array(z), activation=activation)


def inner_products(e):
    """Qu et al. 2016, IPNN: <f_i, f_j>, i < j. [B, S, D] -> [B, P]"""
    _, fields, dim = e.shape
    return np.array(
        [
            [
                sum(row[i, d] * row[j, d] for d in range(dim))
                for i in range(fields)
                for j in range(i + 1, fields)
            ]
            for row in e
        ]
    )


def outer_product_of_sum(e):
    """Qu et al. 2016, OPNN: sum_i sum_j f_i f_j^T, flat. [B, S, D] -> [B, D D]"""
    _, fields, dim = e.shape
    out = []
    for row in e:
        p = np.zeros((dim, dim))
        for i in range(fields):
            for j in range(fields):
                for a in range(dim):
                    for c in range(dim):
                        p[a, c] += row[i, a] * row[j, c]
        out.append([p[a, c] for a in range(dim) for c in range(dim)])
    return np.array(out)


def kernel_products(kernel, e):
    """Qu et al. 2018: f_i^T K_ij f_j, i < j. [B, S, D] -> [B, P]"""
    kernel = np.asarray(kernel, np.float64)
    _, fields, dim = e.shape
    out = []
    for row in e:
        products, pair = [], 0
        for i in range(fields):
            for j in range(i + 1, fields):
                total = 0.0
                for a in range(dim):
                    for c in range(dim):
                        total += row[i, a] * kernel[pair, a, c] * row[j, c]
                products.append(total)
                pair += 1
        out.append(products)
    return np.array(out)


def pnn(params, field_dims, ids, values, products=("inner",)):
    e = scaled_embeddings(params, field_dims, ids, values)
    signals = [flat(e)]
    if "inner" in products:
        signals.append(inner_products(e))
    if "outer" in products:
        signals.append(outer_product_of_sum(e))
    if "kernel" in products:
        signals.append(kernel_products(params["kernel_products"]["kernel"], e))
    return tower(params["tower"], np.concatenate(signals, axis=1))


def wide_deep(params, field_dims, ids, values, crosses=0):
    """Cheng et al. 2016, Eq. 3; the last ``crosses`` fields are phi(x), wide alone."""
    deep = len(field_dims) - crosses
    e = scaled_embeddings(params, field_dims[:deep], ids[:, :deep], values[:, :deep])
    return lr(params, field_dims, ids, values) + tower(params["tower"], flat(e))


def cin(params, e, widths, split_half=True):
    """Lian et al. 2018, Eq. 6 to 8. [B, S, D] -> [B, maps]"""
    fields, dim = e.shape[1:]
    out = []
    for x0 in e:
        maps, pooled = x0, []
        for layer, width in enumerate(widths):
            w = np.asarray(params[f"layer_{layer}_kernel"], np.float64)
            new = np.zeros((width, dim))
            for h in range(width):
                for i in range(len(maps)):
                    for j in range(fields):
                        for d in range(dim):
                            new[h, d] += w[i, j, h] * maps[i, d] * x0[j, d]
            passed_on = put_out = range(width)
            if split_half and layer < len(widths) - 1:
                passed_on, put_out = range(width // 2), range(width // 2, width)
            pooled += [sum(new[h, d] for d in range(dim)) for h in put_out]
            maps = new[list(passed_on)]
        out.append(pooled)
    return np.array(out)


def xdeepfm(params, field_dims, ids, values, cin_dims=(), split_half=True, mlp_dims=(1,)):
    """Lian et al. 2018, Eq. 9."""
    e = scaled_embeddings(params, field_dims, ids, values)
    logits = lr(params, field_dims, ids, values)
    if cin_dims:
        maps = cin(params["cin"], e, cin_dims, split_half)
        logits = logits + [affine(params["cin_out"], row)[0] for row in maps]
    return logits + tower(params["tower"], flat(e)) if mlp_dims else logits


def interacting(params, e, residual=True, scaled=False):
    """Song et al. 2019, Eq. 5 to 8: e^Res [B, S, N A] and the attention [B, N, S, S]."""
    kernels = {name: np.asarray(value, np.float64) for name, value in params.items()}
    _, heads, width = kernels["query_kernel"].shape
    batch, fields, dim = e.shape
    out = np.zeros((batch, fields, heads * width))
    attention = np.zeros((batch, heads, fields, fields))

    def project(name, vector, head):
        kernel = kernels[f"{name}_kernel"]
        return [sum(vector[d] * kernel[d, head, a] for d in range(dim)) for a in range(width)]

    for b in range(batch):
        for n in range(heads):
            for m in range(fields):
                query = project("query", e[b, m], n)
                psi = []
                for k in range(fields):
                    key = project("key", e[b, k], n)
                    product = sum(q * c for q, c in zip(query, key, strict=True))
                    psi.append(product / np.sqrt(width) if scaled else product)
                weights = np.exp(psi) / np.sum(np.exp(psi))
                attention[b, n, m] = weights
                for k in range(fields):
                    value = project("value", e[b, k], n)
                    for a in range(width):
                        out[b, m, n * width + a] += weights[k] * value[a]
                if residual:
                    out[b, m, n * width : (n + 1) * width] += project("residual", e[b, m], n)
    return np.maximum(out, 0.0), attention


def autoint(params, field_dims, ids, values, residual=True, scaled=False):
    """Song et al. 2019, Eq. 9, and a tower beside it where there is one."""
    e = scaled_embeddings(params, field_dims, ids, values)
    attended, layer = e, 0
    while f"interacting_{layer}" in params:
        attended, _ = interacting(params[f"interacting_{layer}"], attended, residual, scaled)
        layer += 1
    logits = np.array([affine(params["out"], row)[0] for row in flat(attended)])
    return logits + tower(params["tower"], flat(e)) if "tower" in params else logits


def cross_network(params, x):
    """Wang et al. 2021, Eq. 1. [B, X] -> [B, X]"""
    out = []
    for x0 in np.asarray(x, np.float64):
        crossed = x0
        for layer in range(len(params)):
            projected = affine(params[f"cross_{layer}"], crossed)
            crossed = np.array([x0[i] * projected[i] + crossed[i] for i in range(len(x0))])
        out.append(crossed)
    return np.array(out)


def low_rank_cross_network(params, x):
    """Wang et al. 2021, Eq. 3 and 4, tanh for g and a softmax gate. [B, X] -> [B, X]"""
    layers = sum(name.startswith("bias_") for name in params)
    out = []
    for x0 in np.asarray(x, np.float64):
        crossed = x0
        for layer in range(layers):
            v, c, u = (np.asarray(params[f"{n}_{layer}_kernel"], np.float64) for n in "vcu")
            bias = np.asarray(params[f"bias_{layer}"], np.float64)
            scores = affine(params[f"gate_{layer}"], crossed)
            gate = np.exp(scores) / np.sum(np.exp(scores))
            new = crossed.copy()
            for i in range(len(v)):
                low = np.tanh([float(np.dot(v[i, :, r], crossed)) for r in range(v.shape[2])])
                low = np.tanh([float(np.dot(c[i, :, q], low)) for q in range(c.shape[2])])
                for k in range(len(x0)):
                    new[k] += gate[i] * x0[k] * (float(np.dot(u[i, :, k], low)) + bias[k])
            crossed = new
        out.append(crossed)
    return np.array(out)


def dcn_v2(params, field_dims, ids, values, rank=0, structure="parallel"):
    x = flat(scaled_embeddings(params, field_dims, ids, values))
    network = low_rank_cross_network if rank else cross_network
    crossed = network(params["cross"], x)
    if structure == "stacked":
        final = hidden_layers(params["tower"], crossed)
    elif "tower" in params:
        final = np.concatenate([crossed, hidden_layers(params["tower"], x)], axis=1)
    else:
        final = crossed
    return np.array([affine(params["out"], row)[0] for row in final])


def feature_gate(params, e, context=None):
    """Mao et al. 2023, feature selection. [B, X] -> [B, X]"""
    out = []
    for b, row in enumerate(np.asarray(e, np.float64)):
        seen = np.asarray(params["context"])[0] if context is None else context[b]
        hidden = hidden_layers(params["gate"], [seen])[0]
        gate = affine(params["gate"]["out"], hidden)
        out.append([2.0 / (1.0 + np.exp(-g)) * x for g, x in zip(gate, row, strict=True)])
    return np.array(out)


def bilinear_fusion(params, first, second):
    """Mao et al. 2023, multi-head bilinear fusion. [B, H_1], [B, H_2] -> [B]"""
    kernel = np.asarray(params["kernel"], np.float64)
    heads, g, h = kernel.shape
    out = []
    for one, two in zip(first, second, strict=True):
        logit = affine(params["first"], one)[0] + affine(params["second"], two)[0]
        for n in range(heads):
            for i in range(g):
                for j in range(h):
                    logit += one[n * g + i] * kernel[n, i, j] * two[n * h + j]
        out.append(logit)
    return np.array(out)


def final_mlp(
    params,
    field_dims,
    ids,
    values,
    context=(),
    second_context=(),
    gated=True,
    shared_context=True,
):
    e = scaled_embeddings(params, field_dims, ids, values)
    half = e.shape[2] if shared_context else e.shape[2] // 2
    e, for_gates = e[:, :, :half], e if shared_context else e[:, :, half:]
    outputs = []
    for index, fields in enumerate((context, second_context)):
        inputs = flat(e)
        if gated:
            seen = flat(for_gates[:, list(fields)]) if fields else None
            inputs = feature_gate(params[f"gates_{index}"], inputs, seen)
        outputs.append(hidden_layers(params[f"streams_{index}"], inputs))
    return bilinear_fusion(params["fusion"], *outputs)


MODELS = {
    "lr": lr,
    "fm": fm,
    "dnn": dnn,
    "fnn": fnn,
    "pnn": pnn,
    "wide_deep": wide_deep,
    "deepfm": deepfm,
    "xdeepfm": xdeepfm,
    "autoint": autoint,
    "dcn_v2": dcn_v2,
    "final_mlp": final_mlp,
}


def logloss(logits, labels):
    """Guo et al. 2017, Table 2's metric, as the mean of -log of the label's probability."""
    total = 0.0
    for z, y in zip(logits, labels, strict=True):
        p = 1.0 / (1.0 + np.exp(-z))
        total -= np.log(p if y else 1.0 - p)
    return total / len(labels)


def numeric_gradient(function, array, step=1e-5, entries=None):
    """Central differences of a scalar function of a float64 array; of ``entries`` alone, flat."""
    array = np.array(array, np.float64)
    places = list(np.ndindex(array.shape))
    if entries is not None:
        places = [places[entry] for entry in entries]
    slopes = []
    for index in places:
        kept = array[index]
        array[index] = kept + step
        above = function(array)
        array[index] = kept - step
        slopes.append((above - function(array)) / (2 * step))
        array[index] = kept
    return np.array(slopes) if entries is not None else np.reshape(slopes, array.shape)
