import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepfm_jax import UserError
from deepfm_jax.heads import HEADS, Head, OneTask, SharedBottom, build_head
from tests import references

TASKS = ("click", "order")
HIDDEN = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
LOGIT = jnp.zeros(5)


def test_each_task_has_a_tower_of_its_own():
    head = SharedBottom(TASKS, mlp_dims=(3,))
    params = head.init(jax.random.key(0), LOGIT, HIDDEN)["params"]
    logits = head.apply({"params": params}, LOGIT, HIDDEN)
    chex.assert_shape(logits, (5, 2))
    towers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected = [references.tower(towers[f"tower_{task}"], HIDDEN) for task in range(2)]
    chex.assert_trees_all_close(logits, np.stack(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_mean_over_tasks_of_the_labelled_examples():
    logits = jnp.asarray([[0.5, -1.0], [2.0, 0.3], [-0.7, 1.1]])
    labels = jnp.asarray([[1.0, jnp.nan], [0.0, 1.0], [1.0, 0.0]])
    mask = jnp.asarray([1.0, 1.0, 0.0])
    loss = SharedBottom(TASKS).loss(logits, labels, mask)
    click = references.logloss([0.5, 2.0], [1, 0])
    order = references.logloss([0.3], [1])
    assert float(loss) == pytest.approx((click + order) / 2, rel=1e-6)


def test_a_missing_label_gives_no_gradient():
    labels = jnp.asarray([[1.0, jnp.nan], [0.0, jnp.nan]])
    gradient = jax.grad(lambda z: SharedBottom(TASKS).loss(z, labels, jnp.ones(2)))(
        jnp.ones((2, 2))
    )
    chex.assert_tree_all_finite(gradient)
    assert (gradient[:, 0] != 0).all()
    assert not gradient[:, 1].any()


def test_the_number_of_tasks_chooses_the_head():
    assert build_head("", ["click"], {}) == OneTask(("click",))
    assert build_head("", TASKS, {"mlp_dims": (8,)}) == SharedBottom(TASKS, (8,))


@pytest.mark.parametrize(
    ("name", "tasks", "hyperparameters", "message"),
    [
        ("mmoe", TASKS, {}, r"head.name='mmoe' is unknown; use one of \['one_task', 'shared"),
        ("one_task", TASKS, {}, "head.name='one_task' predicts one label, but data.labels has 2"),
        ("", TASKS, {"mlp_dim": (3,)}, "head.mlp_dim: shared_bottom has no such hyperparameter"),
        ("", TASKS, {"mlp_dims": "8"}, "head.mlp_dims='8' must be a list, each item a whole"),
        ("", TASKS, {"dropout": 1.0}, "head.dropout=1.0 must be a finite number of at least 0"),
    ],
)
def test_a_head_that_does_not_fit_its_tasks_is_refused(
    unchecked_types, name, tasks, hyperparameters, message
):
    with pytest.raises(UserError, match=message):
        build_head(name, tasks, hyperparameters)


def test_a_new_head_is_a_class_and_an_entry(monkeypatch):
    class Shifted(Head):
        shift: float = 1.0

        def __call__(self, logit, hidden, *, train=False):
            del hidden, train
            return jnp.stack([logit, logit + self.shift], axis=1)

    monkeypatch.setitem(HEADS, "shifted", Shifted)
    head = build_head("shifted", TASKS, {"shift": 2.0})
    chex.assert_trees_all_equal(head.apply({}, LOGIT, HIDDEN)[0], np.array([0.0, 2.0]))
