"""The private parts of TensorFlow and Keras that Headrace uses are as it expects them.

A failure here comes from another version of TensorFlow or Keras. Each message says what the
part is for and what to do; until that is done the old version has to stay pinned.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import pytest
import tensorflow as tf

from headrace.tensorflow import internals

pytestmark = pytest.mark.timeout(120)

WHERE = "src/headrace/tensorflow/internals.py"


def parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_a_variable_can_be_made_of_a_handle() -> None:
    needed = {
        "trainable",
        "shape",
        "dtype",
        "handle",
        "name",
        "handle_name",
        "unique_id",
        "in_graph_mode",
        "aggregation",
        "synchronization",
    }
    found = parameters(internals.BaseResourceVariable.__init__)
    assert needed <= found, (
        f"BaseResourceVariable.__init__ no longer takes {sorted(needed - found)}. "
        "ParameterServerVariable passes them to wrap the handle of a variable on a server; "
        "see how tensorflow/python/ops/resource_variable_ops.py restores variables of a "
        "SavedModel, which wraps handles too, and adapt ps_variable.py."
    )


def test_a_handle_with_data_tells_its_shape_inside_a_function() -> None:
    like = tf.zeros((2, 3))

    def handle() -> Any:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[2, 3], shared_name="pinned")

    shapes: list[Any] = []
    made = internals.with_handle_data(handle(), like)

    def read() -> Any:
        value = tf.raw_ops.ReadVariableOp(resource=made, dtype=tf.float32)
        shapes.append(value.shape.as_list())
        return value

    tf.raw_ops.AssignVariableOp(resource=made, value=like)
    tf.function(read)()
    assert shapes == [[2, 3]], (
        "A raw handle with `_handle_data` no longer tells shape and type in tf.function, so "
        "models on parameter servers cannot be traced. Look for the successor of "
        f"handle_data_util.create_handle_data and mend with_handle_data in {WHERE}."
    )


def test_a_function_of_a_dataset_ends_it() -> None:
    def fetch(number: Any) -> Any:
        if number == 3:
            raise StopIteration
        return number

    found = internals.map_in_place(
        tf.data.Dataset.counter(), lambda n: tf.numpy_function(fetch, [n], tf.int64)
    )
    assert [int(each) for each in found] == [0, 1, 2], (
        "StopIteration no longer ends a dataset of map_op._MapDataset. ctx.dataset ends that "
        f"way; see how tf.data.Dataset.from_generator does, and mend map_in_place in {WHERE}. "
        "Then measure `python -m benchmarks.tf_dataset`: without use_inter_op_parallelism="
        "False every batch is handed to a further thread."
    )


def test_the_device_in_scope_is_told() -> None:
    assert internals.device_in_scope() == ""
    with tf.device("/job:ps/replica:0/task:1/device:CPU:0"):
        found = internals.device_in_scope()
    assert found.startswith("/job:ps/replica:0/task:1"), (
        "context.context().device_name no longer has the device of the tf.device scope, by "
        "which slots of optimizers are put beside their variables. Mend device_in_scope in "
        f"{WHERE}."
    )


def test_a_client_can_choose_how_long_a_server_keeps_what_is_its_own() -> None:
    from tensorflow.python.eager import context

    found = parameters(context.Context.set_server_def)
    assert {"server_def", "keep_alive_secs"} <= found, (
        "Context.set_server_def has lost keep_alive_secs, which frees the memory of dead "
        "clients in a parameter server. See tf.config.experimental_connect_to_cluster for "
        f"what replaces it, and mend connect in {WHERE}."
    )
    assert hasattr(context.context(), "config"), f"Context.config has moved; {WHERE}: connect"


_STARTED = """
import tensorflow as tf
from headrace.tensorflow import internals
before = internals.is_started()
tf.constant(1)
print(before, internals.is_started())
"""


def test_it_can_be_waited_for_what_was_sent_to_other_processes() -> None:
    tf.constant(1.0)  # the context is there
    try:
        internals.wait_for_servers()  # nothing was sent
    except AttributeError as error:
        msg = (
            f"{error}: Context.sync_executors is gone. By it a worker on parameter servers "
            "waits for its updates before a checkpoint. tf.experimental.async_scope does the "
            f"same at its end: see what it calls now, and adapt wait_for_servers in {WHERE}."
        )
        raise AssertionError(msg) from error


def test_it_can_be_told_whether_tensorflow_has_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STARTED], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"], (
        "Context._context_handle no longer tells whether the devices were made, after which "
        f"the number of threads cannot be set. Mend is_started in {WHERE}."
    )


def test_keras_asks_one_function_whether_to_compile_by_xla() -> None:
    from keras.src.trainers.trainer import Trainer

    assert hasattr(Trainer, "_resolve_auto_jit_compile"), (
        "Trainer._resolve_auto_jit_compile, by which jit_compile='auto' is settled, has moved. "
        "XLA cannot use variables of another process: find what decides now and mend "
        f"leave_xla_out in {WHERE}."
    )
    source = inspect.getsource(Trainer)
    assert "_resolve_auto_jit_compile(self)" in source.replace("model_supports_jit", ""), (
        "Keras no longer asks _resolve_auto_jit_compile(model); see leave_xla_out."
    )


def test_keras_makes_the_functions_of_fit_in_one_place() -> None:
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    assert parameters(TensorFlowTrainer._make_function) == {"self", "step_function"}, (
        "TensorFlowTrainer._make_function has moved, where fit puts a step into a graph. Mend "
        f"let_steps_wait_for_their_batch in {WHERE}, or drop it if "
        "test_fit_trains_on_every_row_of_every_pass holds without it."
    )


def test_a_keras_variable_follows_the_variable_it_was_moved_to() -> None:
    iterations = keras.optimizers.SGD().iterations
    place = tf.Variable(41, dtype=tf.int64)
    internals.move_variable(iterations, place)
    place.assign_add(1)
    assert int(iterations.numpy()) == 42, (
        "A Keras variable no longer has its value in `_value`, by which the steps of all "
        f"workers are counted together. Mend move_variable in {WHERE}."
    )


def test_an_optimizer_makes_its_variables_in_build_and_beside_a_reference() -> None:
    kind = keras.optimizers.Optimizer
    assert {"self", "variables"} == parameters(kind.build), (
        "Optimizer.build takes other arguments; see adopt_optimizers in ps_scope.py."
    )
    assert "reference_variable" in parameters(kind.add_variable_from_reference), (
        "Optimizer.add_variable_from_reference takes other arguments; see adopt_optimizers in "
        "ps_scope.py."
    )
    asked: list[Any] = []

    class Asked(keras.optimizers.Adam):  # type: ignore[misc] # has no types
        def add_variable_from_reference(
            self, reference_variable: Any, *a: Any, **k: Any
        ) -> Any:
            asked.append(reference_variable)
            return super().add_variable_from_reference(reference_variable, *a, **k)

    variable = keras.Variable([1.0, 2.0])
    optimizer = Asked()
    assert not optimizer.built
    optimizer.build([variable])
    assert asked == [variable, variable], (
        "Adam no longer makes its two slots by add_variable_from_reference, so they would not "
        "be put beside their variable on a parameter server; see adopt_optimizers in "
        "ps_scope.py."
    )


def test_an_optimizer_updates_each_variable_by_update_step_and_counts_by_assign_add() -> None:
    variable = keras.Variable([1.0, 2.0])
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build([variable])
    updated: list[Any] = []
    counted: list[Any] = []
    update, count = optimizer.update_step, optimizer.iterations.assign_add

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        updated.append(variable)
        return update(gradient, variable, learning_rate)

    def assign_add(value: Any) -> Any:
        counted.append(value)
        return count(value)

    optimizer.update_step = update_step
    optimizer.iterations.assign_add = assign_add
    optimizer.apply([tf.constant([1.0, 1.0])], [variable])
    assert len(updated) == 1, (
        "Optimizer.apply no longer calls update_step(gradient, variable, learning_rate) of the "
        "object; see _update_on_the_servers in ps_scope.py."
    )
    assert len(counted) == 1, (
        "Optimizer.apply no longer counts by iterations.assign_add of the object; see "
        "_count_together in ps_scope.py."
    )
    assert variable.numpy().tolist() == [0.5, 1.5]


@pytest.mark.parametrize("call", ["fit", "apply_gradients", "apply"])
def test_every_way_to_step_goes_through_apply_of_the_object(call: str) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(), "mse")
    optimizer = model.optimizer
    calls: list[int] = []
    apply = optimizer.apply

    def counted(grads: Any, trainable_variables: Any = None) -> None:
        calls.append(1)
        apply(grads, trainable_variables)

    optimizer.apply = counted
    grads = [tf.zeros_like(v.value) for v in model.trainable_variables]
    if call == "fit":
        rows = tf.data.Dataset.from_tensors((tf.ones((2, 1)), tf.ones((2, 1))))
        model.fit(rows, shuffle=False, verbose=0)
    elif call == "apply":
        optimizer.apply(grads, model.trainable_variables)
    else:
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
    assert calls, (
        f"{call} no longer goes through optimizer.apply, which ctx.data_parallel replaces; see "
        "Lockstep in lockstep.py."
    )


def test_a_step_that_xla_compiles_is_known_when_it_is_traced() -> None:
    told: list[str] = []
    end = internals.watch_optimizers(lambda: told.append("made"), lambda: told.append("traced"))
    try:
        variable = keras.Variable([1.0, 2.0])
        optimizer = keras.optimizers.SGD(0.5)
        optimizer.build([variable])

        def step(gradient: Any) -> None:
            optimizer.apply([gradient], [variable])

        step(tf.ones(2))
        tf.function(step)(tf.ones(2))
        for _ in range(2):
            tf.function(step, jit_compile=True)(tf.ones(2))
    finally:
        end()
    step(tf.ones(2))
    assert told == ["made", "made", "traced", "traced"], (
        "control_flow_util.GraphOrParentsInXlaContext no longer tells that XLA compiles, which "
        "cannot call back into Python. See OptionalXlaContext in tensorflow/python/eager/"
        f"polymorphic_function, and mend watch_optimizers in {WHERE}."
    )
    assert variable.numpy().tolist() == [-1.5, -0.5]


def test_metrics_seeds_and_learning_rates_are_known_by_what_their_variables_say() -> None:
    made: list[tuple[str, bool]] = []

    def note(next_creator: Any, **arguments: Any) -> Any:
        is_metric = arguments.get("synchronization") is tf.VariableSynchronization.ON_READ
        made.append((str(arguments.get("name")), is_metric))
        return next_creator(**arguments)

    with tf.variable_creator_scope(note):
        keras.metrics.Mean()
        keras.layers.Dropout(0.5, seed=1)
        keras.optimizers.SGD()
        keras.layers.Dense(1).build((None, 1))
    assert [is_metric for _, is_metric in made[:2]] == [True, True], made
    names = [name for name, is_metric in made if not is_metric]
    assert names == ["seed_generator_state", "iteration", "learning_rate", "kernel", "bias"], (
        f"Keras names its variables {names}: those of one process would be shared by all "
        "workers. Adapt _is_of_one_process in ps_scope.py."
    )


def test_a_variable_can_be_looked_at_where_it_lies() -> None:
    variable = tf.Variable([1.0, 2.0])
    variable.scatter_nd_update([[0]], [3.0])  # from now on `read_value` copies
    views = [internals.view_of(variable) for _ in range(2)]
    assert views[0].tolist() == [3.0, 2.0]
    addresses = {each.__array_interface__["data"][0] for each in views}
    assert len(addresses) == 1, (
        "np.asarray(variable.read_value_no_copy()) copies, so a checkpoint keeps a training "
        "waiting for two copies of its variables in place of one. See how "
        "`_serialize_to_tensors` in tensorflow/python/ops/resource_variable_ops.py reads a "
        f"variable for tf.train.Checkpoint, and mend view_of in {WHERE}."
    )


def test_the_seeds_that_follow_from_a_global_one_can_be_kept() -> None:
    tf.random.set_seed(1)
    tf.random.uniform(())
    kept = internals.operation_seeds()
    assert kept is not None
    expected = float(tf.random.uniform(()))
    tf.random.set_seed(2)
    internals.set_operation_seeds(*kept)
    assert float(tf.random.uniform(())) == expected, (
        "Context._rng and _seed, from which operations get their seeds, have moved, so numbers "
        "of tf.random behind a restored checkpoint are others. See set_global_seed in "
        f"tensorflow/python/eager/context.py, and mend operation_seeds in {WHERE}."
    )


def test_the_global_seed_of_keras_is_seen_from_another_thread() -> None:
    keras.utils.set_random_seed(1)
    seeds = internals.KerasSeeds()
    assert seeds.state() is None
    keras.random.uniform(())
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(seeds.state).result()
    assert kept is not None, (
        "Keras no longer keeps its global seed generator in the attributes of a thread, so it "
        "is in no checkpoint. See keras/src/backend/common/global_state.py and "
        f"keras/src/random/seed_generator.py, and mend KerasSeeds in {WHERE}."
    )
    expected = float(keras.random.uniform(()))
    keras.utils.set_random_seed(2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(seeds.set_state, kept).result()
    assert float(keras.random.uniform(())) == expected
    keras.utils.clear_session()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(seeds.state).result() is None
    keras.random.uniform(())
    assert seeds.state() is not None


def test_the_global_generator_of_tensorflow_is_seen_without_being_made() -> None:
    tf.random.set_global_generator(None)
    assert internals.global_generator() is None
    made = tf.random.get_global_generator()
    assert internals.global_generator() is made, (
        "stateful_random_ops.global_generator has moved; see tf.random.get_global_generator "
        f"and mend global_generator in {WHERE}."
    )
    tf.random.set_global_generator(None)
