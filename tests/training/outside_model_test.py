"""Models from outside the package: a class and an entry in ``MODELS`` are all."""

import csv
import itertools

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest

from deepfm_jax import MODELS, Categorical, Feature, Label, MultiValued, Schema, UserError
from deepfm_jax.annotations import PositiveFloat
from deepfm_jax.datasets.options import BuildOptions
from deepfm_jax.datasets.prepare import prepare
from deepfm_jax.distributed.partitioning import Placement, create_mesh
from deepfm_jax.features import by_slot
from deepfm_jax.heads import SharedBottom
from deepfm_jax.input.pipeline import PreparedData
from deepfm_jax.models import EmbeddingModel, Outputs, build_model
from deepfm_jax.serving import Predictor
from deepfm_jax.training import workdir as workdirs
from deepfm_jax.training.checkpoint import restore_best
from deepfm_jax.training.loop import train
from deepfm_jax.training.network import Network
from deepfm_jax.training.state import weights_layout
from experiments.recipe import complete
from tests import experiment_settings


class SoftMaxFM(EmbeddingModel):
    """An FM whose pairs add a smooth maximum over dimensions, each pair with a weight of its own.

    logit = w_0 + sum_i w_i x_i + sum_{i<j} r_ij tau log sum_d exp(e_id e_jd / tau)

    Attributes:
      temperature: tau; towards 0 the smooth maximum becomes the maximum.
    """

    temperature: PositiveFloat = 1.0

    def check_together(self):
        if len(self.features) < 2:
            raise UserError("model.name='soft_max_fm' pairs fields, and there is only one")

    @nn.compact
    def interact(self, fields, *, train):
        first, second = np.triu_indices(fields.embeddings.shape[1], k=1)
        products = fields.embeddings[:, first] * fields.embeddings[:, second]
        tau = self.temperature
        pairs = tau * jax.nn.logsumexp(products / tau, axis=2)
        kernel = self.param("pair_kernel", nn.initializers.ones, (len(first),))
        return Outputs(self.first_order_logit(fields) + pairs @ kernel, pairs)


def reference(model, params, ids, values):
    """The formula as loops in float64; a field's vector is the sum over its slots."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    first_rows = by_slot(model.features, np.array(model.layout.spaces[0].first_rows))
    field = by_slot(model.features, np.arange(len(model.features)))
    logits = []
    for rows, x in zip(first_rows + ids, np.asarray(values, np.float64), strict=True):
        logit, e = params["bias"], np.zeros((len(model.features), model.embed_dim))
        for slot in np.flatnonzero(x):
            logit = logit + params["table"]["first_order"][rows[slot]] * x[slot]
            e[field[slot]] += params["table"]["embedding"][rows[slot]] * x[slot]
        pairs = itertools.combinations(range(len(e)), 2)
        for weight, (i, j) in zip(params["pair_kernel"], pairs, strict=True):
            total = sum(np.exp(e[i, d] * e[j, d] / model.temperature) for d in range(e.shape[1]))
            logit = logit + weight * model.temperature * np.log(total)
        logits.append(logit)
    return np.array(logits)


@pytest.fixture(scope="module", autouse=True)
def models():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "soft_max_fm", SoftMaxFM)
        yield


DIMS = (4, Feature(6, slots=3), 5)
IDS = np.array([[3, 0, 5, -1, 4], [0, 2, -1, -1, 1], [1, -1, -1, -1, 0]], np.int32)
VALUES = np.array([[1, 0.5, 2, 0, 1], [1, 1, 0, 0, 0.3], [-1, 0, 0, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def drawn():
    hyperparameters = {"embed_dim": 3, "init_std": 0.5, "temperature": 0.25}
    model = build_model("soft_max_fm", DIMS, hyperparameters)
    params = model.init(jax.random.key(0), IDS, VALUES)["params"]
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    leaves = [leaf + rng.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves]
    return model, jax.tree.unflatten(tree, leaves)


def test_it_equals_its_reference_over_fields_of_several_slots(drawn):
    model, params = drawn
    logits = jax.jit(model.apply)({"params": params}, IDS, VALUES)
    chex.assert_trees_all_close(logits, reference(model, params, IDS, VALUES), rtol=1e-5, atol=1e-5)


def test_its_gradient_is_finite_and_reaches_every_parameter(drawn):
    model, params = drawn
    gradient = jax.grad(lambda p: model.apply({"params": p}, IDS, VALUES, train=True).sum())(params)
    chex.assert_tree_all_finite(gradient)
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    ("fields", "hyperparameters", "message"),
    [
        (DIMS, {"temperatur": 0.5}, "model.temperatur: soft_max_fm has no .* mean 'temperature'"),
        (DIMS, {"temperature": 0}, "model.temperature=0 must be a finite number above 0$"),
        (DIMS, {"temperature": "1"}, "model.temperature='1' must be a finite number above 0$"),
        ((4,), {}, "model.name='soft_max_fm' pairs fields, and there is only one$"),
    ],
)
def test_a_wrong_hyperparameter_is_named_in_one_line(fields, hyperparameters, message):
    with pytest.raises(UserError, match=message) as refusal:
        build_model("soft_max_fm", fields, hyperparameters)
    assert "\n" not in str(refusal.value)


def test_flags_reach_its_hyperparameters():
    config = complete(data={"name": "tabular"}, model={"name": "soft_max_fm", "embed_dim": 3})
    assert (config.model.embed_dim, config.model.temperature) == (3, 1.0)


def test_several_tasks_share_it(drawn):
    network = Network(drawn[0], SharedBottom(("click", "order")))
    params, _ = network.init(jax.random.key(0))
    batch = {"ids": IDS, "values": VALUES, "labels": np.eye(3, 2), "mask": np.ones(3)}
    loss = jax.jit(lambda p: network.loss(p, {}, batch, jax.random.key(0))[0])
    gradient = jax.grad(loss)(params)
    chex.assert_tree_all_finite(gradient)
    assert gradient["table"]["embedding"].any()


TAGS = MultiValued("tags", max_length=3, combiner="sum")
SCHEMA = Schema((Label("click"), Categorical("user"), TAGS, Categorical("item")))
ROWS = {"train": 400, "valid": 80, "test": 80}


@pytest.fixture(scope="module")
def prepared_tags(tmp_path_factory):
    """Prepared rows whose label follows the user and one of the tags."""
    source, out = tmp_path_factory.mktemp("tags"), tmp_path_factory.mktemp("tags_prepared")
    rng = np.random.default_rng(0)
    for split, count in ROWS.items():
        with (source / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([column.name for column in SCHEMA.columns])
            for _ in range(count):
                user, item, *tags = rng.integers(0, 8, rng.integers(2, 6)).tolist()
                click = int(rng.random() < 1 / (1 + np.exp(4 - user - 3 * (0 in tags))))
                writer.writerow([click, user, "|".join(map(str, tags)), item])
    prepare("tabular", out, source=source, options=BuildOptions(schema=SCHEMA.to_dict()))
    return out


@pytest.fixture(scope="module")
def run(prepared_tags, tmp_path_factory):
    """Results and workdir of a short run."""
    experiment = experiment_settings.small(
        prepared_tags,
        data={"name": "tabular"},
        model={"name": "soft_max_fm", "embed_dim": 3, "temperature": 0.5},
        optimizer={"learning_rate": 0.05, "table": "sparse", "l2": {"interaction": 1e-3}},
        loop={"batch_size": 40, "eval_batch_size": 80, "checkpoint_steps": 50},
    )
    workdir = tmp_path_factory.mktemp("run")
    return train(experiment, workdir), workdir


def test_it_trains_and_is_evaluated_by_its_name_on_the_sparse_path(run):
    results, _ = run
    assert results["table"]["name"] == "sparse"
    assert results["metrics"]["test"]["auc"] > 0.7


def test_the_predictor_scores_with_the_restored_weights(run, prepared_tags):
    _, workdir = run
    experiment, encoder = workdirs.read(workdir)
    network = experiment.build_network(encoder)
    alone = Placement(create_mesh(jax.devices()[:1]))
    params = restore_best(workdir, weights_layout(network, alone)).params
    (batch,) = PreparedData("tabular", prepared_tags).batches("test", 80)
    found = Predictor(workdir).score({"ids": batch["ids"], "values": batch["values"]})
    expected = reference(network.model, params, batch["ids"], batch["values"])
    chex.assert_trees_all_close(found[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0.5


def test_raw_rows_are_predicted(run):
    rows = {"user": ["7", "0"], "tags": ["0|2", "3"], "item": ["1", "1"]}
    likely, unlikely = Predictor(run[1]).predict(rows)
    assert 0 < unlikely < likely < 1
