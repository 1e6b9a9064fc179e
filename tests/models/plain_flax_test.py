"""Every model as a plain Flax module: on meshes, in every dtype, under JAX's transformations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from deepfm_jax import MODELS, DeepFM, Feature, UserError
from deepfm_jax.layers import MLP
from tests.model_variants import VARIANTS, drawn, reference
from tests.small_models import SMALL, small_model

DEVICES = 8
BATCH = 16
# Numbers of rows that eight devices can split. To Wide & Deep the last field is a cross.
FIELDS = [
    8,
    Feature(16, slots=2, pooling="mean"),
    Feature(size=2),
    Feature(16, slots=2, pooling="sqrtn", shared_with=1),
    Feature(8, dim=2),
    16,
]
ONE_SLOT = [8, 16, 16]
every_model = pytest.mark.parametrize("name", sorted(MODELS))
every_variant = pytest.mark.parametrize("variant", VARIANTS)
# Sums of float32 in another order.
close = functools.partial(chex.assert_trees_all_close, rtol=2e-5, atol=1e-5)
# Sums of a bfloat16 table's gradients, which are rounded to bfloat16 at another place.
nearly = functools.partial(chex.assert_trees_all_close, rtol=2e-2, atol=2e-3)


def options(name, dtype):
    """Hyperparameters of a model that computes and stores as much as it can in ``dtype``."""
    has_tower = "mlp_dims" in SMALL[name]
    return {"table_dtype": dtype, **({"compute_dtype": dtype} if has_tower else {})}


@functools.cache
def case(name, dtype="float32", several=True):
    """A model, its variables, and inputs: ids with empty slots, values and dense numbers."""
    rng = np.random.default_rng(0)
    model = small_model(name, FIELDS if several else ONE_SLOT, **options(name, dtype))
    tops = (8, 16, 16, 16, 16, 8, 16) if several else ONE_SLOT
    ids = np.stack([rng.integers(0, top, BATCH) for top in tops], axis=1).astype(np.int32)
    inputs = (ids,)
    if several:
        values = rng.normal(1, 0.5, ids.shape).astype(np.float32)
        empty = rng.random(ids.shape) < 0.4
        empty[:, [0, 5, 6]] = False
        empty[0] = [False, True, True, True, True, False, False]
        ids[empty], values[empty] = -1, 0
        inputs = (ids, values, rng.normal(size=(BATCH, 2)).astype(np.float32))
    variables = model.init(jax.random.key(0), *inputs)
    moved = jax.tree.map(lambda leaf: leaf + rng.normal(0, 0.3, leaf.shape), variables)
    variables = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), moved, variables)
    return model, variables, inputs


def loss_of(model):
    """The mean logloss of logits, against labels that alternate, and the logits."""

    def loss(variables, *inputs):
        logits = model.apply(variables, *inputs)
        signs = jnp.where(inputs[0][:, 0] % 2 == 0, 1.0, -1.0)
        return jnp.mean(jax.nn.softplus(signs * logits)), logits

    return jax.value_and_grad(loss, has_aux=True)


@functools.cache
def expected(name, dtype="float32", several=True):
    """Logits and gradient on one device."""
    model, variables, inputs = case(name, dtype, several)
    (_, logits), gradient = jax.jit(loss_of(model))(variables, *inputs)
    return jax.device_get((logits, gradient))


def laid_out(variables, inputs, table=None, mesh=None):
    """Inputs split over the batch; the table's arrays as told, all else on every device."""
    mesh = jax.sharding.get_mesh() if mesh is None else mesh

    def put(path, leaf):
        spec = table if table and "table" in jax.tree_util.keystr(path) else P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    inputs = [jax.device_put(array, NamedSharding(mesh, P("d"))) for array in inputs]
    return jax.tree.map_with_path(put, variables), inputs


# ------------------------------------------------------------------------------------------ meshes


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


@every_model
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


# ------------------------------------------------------------------------------------- debug_nans


@every_model
def test_no_nan_is_made_of_valid_inputs(name):
    model, variables, inputs = case(name)
    assert (inputs[0] == -1).any()
    with jax.debug_nans(True):
        logits = model.apply(variables, *inputs)
    close(logits, expected(name)[0])


def test_nor_of_their_gradient_compiled_or_not():
    model, variables, inputs = case("fm")
    with jax.debug_nans(True):
        _, gradient = loss_of(model)(variables, *inputs)
        _, compiled = jax.jit(loss_of(model))(variables, *inputs)
    close(gradient, expected("fm")[1])
    close(compiled, expected("fm")[1])


@pytest.mark.parametrize(("slot", "wrong"), [(0, -1), (0, 8), (1, 16), (5, 8), (6, 16)])
def test_an_id_out_of_range_is_still_nan(slot, wrong):
    model, variables, (ids, values, dense) = case("deepfm")
    ids, values = ids.copy(), values.copy()
    ids[3, slot], values[3, slot] = wrong, 1.0
    logits = jax.jit(model.apply)(variables, ids, values, dense)
    chex.assert_trees_all_equal(np.isnan(logits), np.arange(BATCH) == 3)


def test_padding_with_a_value_is_still_nan():
    model, variables, (ids, values, dense) = case("deepfm")
    values = np.where(ids == -1, np.float32(1.0), values)
    logits = jax.jit(model.apply)(variables, ids, values, dense)
    chex.assert_trees_all_equal(np.isnan(logits), (ids == -1).any(axis=1))


# ---------------------------------------------------------------------------------------- float64


@every_variant
def test_float64_equals_the_reference(variant):
    with jax.enable_x64(True):
        model, params, ids, values = drawn(variant, table_dtype="float64")
        values = values + np.random.default_rng(1).normal(0, 1e-9, values.shape)
        chex.assert_tree_all_finite(params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float64"}
        logits = jax.jit(model.apply)({"params": params}, ids, values)
        chex.assert_trees_all_close(
            np.asarray(logits), reference(variant, params, ids, values), rtol=1e-12, atol=1e-12
        )


@every_model
def test_float64_reaches_every_kind_of_field(name):
    with jax.enable_x64(True):
        model, inputs, variables = in_float64(name)
        apply = jax.jit(model.apply)
        logits = apply(variables, *inputs)
        found = jax.tree.leaves((variables, logits))
        assert {leaf.dtype.name for leaf in found} == {"float64"}
        # What float32 would round off moves the logits.
        ids, *numbers = inputs
        moved = apply(variables, ids, *(x * (1 + 1e-10) for x in numbers))
        assert 0 < np.abs(moved - logits).max() < 1e-6


def in_float64(name):
    model = small_model(name, FIELDS, table_dtype="float64")
    _, _, (ids, *numbers) = case(name)
    inputs = (ids, *(x.astype(np.float64) for x in numbers))
    variables = jax.jit(model.init)(jax.random.key(0), *inputs)
    return model, inputs, jax.tree.map(lambda leaf: leaf + 0.1, variables)


def test_a_float64_gradient_equals_differences_too_fine_for_float32():
    with jax.enable_x64(True):
        model, inputs, variables = in_float64("deepfm")
        step = jax.jit(loss_of(model))
        _, gradient = step(variables, *inputs)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {"float64"}
        # Along the gradient itself the loss rises by its square.
        sides = [
            step(jax.tree.map(lambda x, g, by=by: x + by * g, variables, gradient), *inputs)[0][0]
            for by in (1e-6, -1e-6)
        ]
        square = sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))
        chex.assert_trees_all_close((sides[0] - sides[1]) / 2e-6, square, rtol=1e-7)


def test_statistics_of_batches_stay_in_float64():
    with jax.enable_x64(True):
        model = small_model("deepfm", ONE_SLOT, table_dtype="float64", batch_norm=True)
        _, _, (ids,) = case("deepfm", several=False)
        variables = model.init(jax.random.key(0), ids)
        _, moved = model.apply(variables, ids, train=True, mutable=["batch_stats"])
        chex.assert_trees_all_equal_shapes_and_dtypes(
            moved["batch_stats"], variables["batch_stats"]
        )
        assert moved["batch_stats"]["tower"]["batch_norm_0"]["mean"].dtype == np.float64


@every_model
def test_a_float32_model_stays_one_in_64_bit_mode(name):
    model, variables, (ids, values, dense) = case(name)
    with jax.enable_x64(True):
        inputs = (ids.astype(np.int64), values.astype(np.float64), dense.astype(np.float64))
        first = jax.eval_shape(model.init, jax.random.key(0), *inputs)
        logits = jax.jit(model.apply)(variables, *inputs)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, jax.eval_shape(lambda: variables))
    assert logits.dtype == np.float32
    close(logits, expected(name)[0])


def test_float64_is_refused_without_64_bit_mode():
    model = DeepFM([3, 4], table_dtype="float64")
    with pytest.raises(UserError, match="table_dtype='float64' needs JAX's 64-bit mode: set JAX"):
        model.init(jax.random.key(0), np.zeros((1, 2), np.int32))


def test_products_in_bfloat16_of_float64_are_refused():
    with jax.enable_x64(True):
        model = DeepFM([3, 4], table_dtype="float64", compute_dtype="bfloat16")
        with pytest.raises(UserError, match="compute_dtype='bfloat16' rounds what is float64"):
            model.init(jax.random.key(0), np.zeros((1, 2), np.int32))
        chosen = DeepFM([3, 4], table_dtype="float64", compute_dtype="auto")
        assert chosen.init_with_output(jax.random.key(0), np.zeros((1, 2), int))[0].dtype == float


def test_a_layer_alone_follows_its_inputs():
    inputs = np.random.default_rng(0).normal(size=(3, 4))
    for is_64_bit, name in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(is_64_bit):
            out, variables = MLP((5,)).init_with_output(jax.random.key(0), inputs)
            assert {leaf.dtype.name for leaf in jax.tree.leaves((out, variables))} == {name}


# ---------------------------------------------------------- hyperparameters and transformations


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
