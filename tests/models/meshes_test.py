"""Every model on explicit and automatic meshes, and in ``jax.shard_map``."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from deepfm_jax import MODELS
from tests.plain_models import (
    DEVICES,
    ONE_SLOT,
    case,
    close,
    every_model,
    expected,
    laid_out,
    loss_of,
    nearly,
)
from tests.small_models import ONE_OF_EACH_KIND_OF_TABLE, small_model


def test_the_mesh_that_jax_makes_by_default_is_explicit():
    assert jax.make_mesh((DEVICES,), ("d",)).axis_types == (AxisType.Explicit,)


def on_mesh(kind, name, table, dtype="float32", tolerance=close):
    """Compares logits and gradients on a mesh with those of one device, and returns their types."""
    model, variables, inputs = case(name, dtype)
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("d",), axis_types=(kind,))):
        variables, inputs = laid_out(variables, inputs, table)
        (_, logits), gradient = jax.jit(loss_of(model))(variables, *inputs)
        types = jax.tree.map(jax.typeof, (variables, inputs[0]))
    tolerance((logits, gradient), expected(name, dtype))
    return types, jax.tree.map(jax.typeof, (gradient, logits))


@pytest.mark.parametrize(
    ("name", "table"),
    [*((name, P("d")) for name in sorted(MODELS)), *((name, P()) for name in ("lr", "deepfm"))],
)
def test_an_explicit_mesh_gives_the_logits_and_gradients_of_one_device(name, table):
    (of_variables, of_ids), (of_gradient, of_logits) = on_mesh(AxisType.Explicit, name, table)
    assert of_gradient == of_variables
    assert of_ids.sharding.spec == P("d", None)
    assert of_logits.sharding.spec == P("d")


@pytest.mark.parametrize("name", ["deepfm", "fm"])
def test_so_does_an_explicit_mesh_in_bfloat16(name):
    on_mesh(AxisType.Explicit, name, P("d"), "bfloat16", nearly)


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND_OF_TABLE)
def test_so_does_an_auto_mesh(name):
    on_mesh(AxisType.Auto, name, P("d"))


@pytest.mark.parametrize("name", ["lr", "fnn", "deepfm"])
def test_nothing_need_be_compiled_on_an_explicit_mesh(name):
    model, variables, inputs = case(name, several=False)
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("d",))):
        variables, inputs = laid_out(variables, inputs, P("d"))
        logits = model.apply(variables, *inputs)
    close(logits, expected(name, several=False)[0])


def test_a_gradient_need_not_be_compiled_either():
    model, variables, inputs = case("fm")
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("d",))):
        variables, inputs = laid_out(variables, inputs, P("d"))
        (_, logits), gradient = loss_of(model)(variables, *inputs)
    close((logits, gradient), expected("fm"))


def test_an_explicit_mesh_need_not_be_set():
    model, variables, inputs = case("fnn")
    mesh = jax.make_mesh((DEVICES,), ("d",))
    variables, inputs = laid_out(variables, inputs, P("d"), mesh)
    (_, logits), gradient = jax.jit(loss_of(model))(variables, *inputs)
    close((logits, gradient), expected("fnn"))


@pytest.mark.parametrize("name", ["deepfm", "final_mlp"])
def test_training_on_an_explicit_mesh_drops_the_same_units_and_moves_the_same_statistics(name):
    model = small_model(name, ONE_SLOT, dropout=0.5, batch_norm=True)
    variables = model.init(jax.random.key(1), case(name, several=False)[2][0])

    @jax.jit
    def step(variables, ids):
        def loss(params):
            logits, moved = model.apply(
                {**variables, "params": params},
                ids,
                train=True,
                rngs={"dropout": jax.random.key(2)},
                mutable=["batch_stats"],
            )
            return jnp.mean(jax.nn.softplus(logits)), moved

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    ids = case(name, several=False)[2]
    whole = jax.device_get(step(variables, *ids))
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("d",))):
        variables, ids = laid_out(variables, ids, P("d"))
        close(step(variables, *ids), whole)


def test_optax_trains_on_an_explicit_mesh_from_its_first_weights_on():
    model, _, inputs = case("deepfm")
    optimizer = optax.adam(0.05)

    @jax.jit
    def step(variables, state, *inputs):
        (loss, _), gradient = loss_of(model)(variables, *inputs)
        updates, state = optimizer.update(gradient, state, variables)
        return optax.apply_updates(variables, updates), state, loss

    def losses(inputs):
        variables = jax.jit(model.init)(jax.random.key(0), *inputs)
        state, found = optimizer.init(variables), []
        for _ in range(5):
            variables, state, loss = step(variables, state, *inputs)
            found.append(loss)
        return jax.device_get(found)

    alone = losses(inputs)
    assert alone[-1] < alone[0] - 0.05
    with jax.set_mesh(jax.make_mesh((DEVICES,), ("d",))):
        close(losses(laid_out({}, inputs)[1]), alone)


@every_model
def test_bfloat16_runs_in_shard_map_with_its_checks(name):
    model, variables, inputs = case(name, "bfloat16")
    mesh = jax.make_mesh((DEVICES,), ("d",))

    def shard(variables, *inputs):
        (_, logits), gradient = loss_of(model)(variables, *inputs)
        # Of weights that all devices have, the gradient is already the sum over them.
        return logits, jax.tree.map(lambda leaf: leaf / DEVICES, gradient)

    specs = (P(), *(P("d"),) * len(inputs))
    mapped = jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=(P("d"), P()))
    variables, inputs = laid_out(variables, inputs, mesh=mesh)
    nearly(jax.jit(mapped)(variables, *inputs), expected(name, "bfloat16"))


def test_so_does_float32_with_dropout():
    model = small_model("deepfm", ONE_SLOT, dropout=0.5)
    _, _, inputs = case("deepfm", several=False)
    variables = model.init(jax.random.key(1), *inputs)

    @jax.jit
    def shard(variables, ids):
        def loss(variables):
            rngs = {"dropout": jax.random.key(2)}
            return jnp.sum(model.apply(variables, ids, train=True, rngs=rngs))

        return jax.grad(loss)(variables)

    mesh = jax.make_mesh((DEVICES,), ("d",))
    mapped = jax.shard_map(shard, mesh=mesh, in_specs=(P(), P("d")), out_specs=P())
    parts = [jax.device_get(shard(variables, part)) for part in np.split(inputs[0], DEVICES)]
    variables, inputs = laid_out(variables, inputs, mesh=mesh)
    close(jax.jit(mapped)(variables, *inputs), jax.tree.map(lambda *leaves: sum(leaves), *parts))
