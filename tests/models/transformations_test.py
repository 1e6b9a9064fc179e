"""Every model under JAX's transformations, with lists as hyperparameters, and in NNX."""

import chex
import jax
import jax.numpy as jnp
from flax import nnx
from jax import export

from deepfm_jax import MODELS
from tests.plain_models import case, close, every_model, expected, options
from tests.small_models import SMALL


@every_model
def test_lists_are_hyperparameters(name):
    given = {key: value for key, value in SMALL[name].items() if isinstance(value, tuple)}
    as_lists = {**SMALL[name], **{key: list(value) for key, value in given.items()}}
    same, variables, (ids,) = case(name, several=False)
    model = MODELS[name](field_dims=list(same.field_dims), **as_lists, **options(name, "float32"))
    assert model == same
    assert hash(model) == hash(same)
    apply = jax.jit(lambda model, *arguments: model.apply(*arguments), static_argnums=0)
    chex.assert_trees_all_equal(apply(model, variables, ids), apply(same, variables, ids))
    assert apply._cache_size() == 1


@every_model
def test_seeds_can_be_mapped_over(name):
    model, _, inputs = case(name)
    keys = jax.random.split(jax.random.key(0), 2)

    def first_logits(key):
        return model.apply(model.init(key, *inputs), *inputs)

    found = jax.jit(jax.vmap(first_logits))(keys)
    close(found[1], first_logits(keys[1]))


@every_model
def test_apply_can_be_exported_and_read_back(name):
    model, variables, inputs = case(name)
    exported = export.export(jax.jit(model.apply))(variables, *inputs)
    read_back = export.deserialize(exported.serialize())
    close(read_back.call(variables, *inputs), expected(name)[0])


def test_the_batch_of_an_exported_model_may_be_any():
    model, variables, inputs = case("deepfm")
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, x.shape[1]), x.dtype) for x in inputs]
    exported = export.export(jax.jit(model.apply))(variables, *shapes)
    some = [array[:5] for array in inputs]
    close(exported.call(variables, *some), expected("deepfm")[0][:5])


@every_model
def test_it_serves_as_an_nnx_module_with_all_kinds_of_fields(name):
    model, variables, inputs = case(name)
    wrapped = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0)).lazy_init(*inputs)
    nnx.update(wrapped, jax.tree.map(nnx.Param, variables["params"]))
    close(wrapped(*inputs), expected(name)[0])


def test_gradients_may_be_rematerialised():
    model, variables, inputs = case("deepfm")

    def logits(variables):
        return jax.checkpoint(model.apply)(variables, *inputs)

    labels = jnp.where(inputs[0][:, 0] % 2 == 0, 1.0, -1.0)
    gradient = jax.jit(jax.grad(lambda v: jnp.mean(jax.nn.softplus(labels * logits(v)))))(variables)
    close(gradient, expected("deepfm")[1])
