"""When a kernel runs, and what happens when it should not have."""

import json
import logging

import mlx.core as mx
import pytest

from qwen_mlx import device
from qwen_mlx.cli.main import main
from qwen_mlx.errors import UsageError
from qwen_mlx.kernels import catalogue, launch
from qwen_mlx.kernels import kernel as module
from qwen_mlx.kernels.kernel import Kernel, difference
from qwen_mlx.kernels.launch import Program, scalar
from tests.kernels.harness import needs_simulator, same_bits
from tests.metalsim.simulated import simulated_kernels
from tests.models import tiny

pytestmark = needs_simulator
GOOD = "uint i = thread_position_in_grid.x; y[i] = x[i] * factor;"
WRONG = "uint i = thread_position_in_grid.x; y[i] = x[i] + factor;"
BROKEN = "uint i = thread_position_in_grid.x; y[i] = x[i] * facto;"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("QWEN_MLX_KERNELS", raising=False)
    monkeypatch.setenv("QWEN_MLX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_kernels", dict(catalogue.all_kernels()))
    module._wanted_names.cache_clear()
    yield
    module._wanted_names.cache_clear()  # which has seen kernels that are gone now
    module._Record.of_this_device.cache_clear()


@pytest.fixture
def make(tmp_path):
    """A kernel that multiplies, made from this source."""
    module._wanted_names.cache_clear()

    def kernel(source, name="times", experimental=False):
        (tmp_path / f"{name}.metal").write_text(source)
        program = Program(tmp_path, name, ["x", "factor"], ["y"])

        def run(x, *, factor):
            return tuple(
                program(
                    [x, factor],
                    output_shapes=[x.shape],
                    output_dtypes=[x.dtype],
                    grid=(x.size, 1, 1),
                    threadgroup=(min(x.size, 64), 1, 1),
                )
            )

        return Kernel(
            name=name,
            equals="x * factor",
            programs=[program],
            run=run,
            reference=lambda x, *, factor: (x * factor,),
            eligible=lambda x, *, factor: x.size > 0,
            configuration=lambda x, *, factor: (x.ndim,),
            example=lambda configuration: ((mx.arange(1.0, 9.0),), {"factor": 3.0}),
            experimental=experimental,
        )

    return kernel


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


X = mx.array([1.0, 2.0, 4.0])


def test_a_good_kernel_runs_where_there_is_a_builder(make):
    times = make(GOOD)
    assert not times.runs(X, factor=2.5)  # this machine has no GPU
    assert times(X, factor=2.5)[0].tolist() == [2.5, 5.0, 10.0]
    with simulated_kernels():
        assert times.runs(X, factor=2.5)
        assert times(X, factor=2.5)[0].tolist() == [2.5, 5.0, 10.0]
        assert not times.runs(X[:0], factor=2.5)


@pytest.mark.parametrize(("source", "words"), [(WRONG, "result 0 differs by"), (BROKEN, "facto")])
def test_a_kernel_that_fails_is_replaced_by_its_reference_and_said_so_once(make, caplog, source, words):
    times = make(source)
    with simulated_kernels():
        for _ in range(3):
            assert not times.runs(X, factor=2.0)
            assert times(X, factor=2.0)[0].tolist() == [2.0, 4.0, 8.0]
    (line,) = warnings(caplog)
    assert "times" in line and "using plain MLX instead" in line and words in line
    assert "\n" not in line


def test_a_result_of_another_shape_or_number_is_wrong(make, caplog):
    times = make(GOOD)
    run = times.run
    for wrong in (lambda *a, **o: (run(*a, **o)[0][:1],), lambda *a, **o: (*run(*a, **o), X)):
        times.run, times._proved = wrong, {}
        with simulated_kernels():
            assert not times.runs(X, factor=2.0)
    assert "instead of" in warnings(caplog)[0] and "2 results instead of 1" in warnings(caplog)[1]


def test_configurations_are_proved_apart(make, caplog):
    times = make(GOOD)
    example = times.example
    times.example = lambda configuration: example(configuration) if configuration == (1,) else ((X,), {})
    with simulated_kernels():
        assert times.runs(X, factor=2.0)
        assert not times.runs(X[None], factor=2.0)  # its example lacks an argument
        assert times.runs(X, factor=2.0)


def test_the_gradient_is_that_of_the_reference(make):
    times = make(GOOD)
    with simulated_kernels():
        gradient = mx.grad(lambda x: (times(x, factor=3.0)[0] ** 2).sum())(X)
        assert mx.allclose(gradient, 18 * X)


def test_a_decoder_leaves_the_gradient_out_where_it_continues_a_text(monkeypatch):
    model, ids = tiny.decoder(tiny.QWEN3), mx.array([[3, 1, 4]])
    kernel = catalogue.all_kernels()["add_rms_norm"]
    seen = []
    run = kernel.run
    monkeypatch.setattr(kernel, "run", lambda *a, **o: seen.append(launch.gradients()) or run(*a, **o))
    monkeypatch.setattr(kernel, "_differentiable", kernel._with_gradient)
    with simulated_kernels(checked=False):
        expected = model(ids)
        assert set(seen) == {True}
        seen.clear()
        found = model(ids, cache=model.make_cache())
        assert set(seen) == {False} and launch.gradients()
        assert mx.allclose(found, expected, atol=1e-4)


# ------------------------------------------------------------------------------------------------------ wishes


@pytest.mark.parametrize(
    ("wish", "runs"),
    [
        ("", ("first",)),
        ("default", ("first",)),
        ("off", ()),
        ("all", ("first", "second")),
        ("second", ("second",)),
        (" second , first ", ("first", "second")),
        ("default,second", ("first", "second")),
    ],
)
def test_wishes(make, monkeypatch, wish, runs):
    kernels = {"first": make(GOOD, "first"), "second": make(GOOD, "second", experimental=True)}
    monkeypatch.setenv("QWEN_MLX_KERNELS", wish)
    with simulated_kernels():
        assert tuple(name for name, kernel in kernels.items() if kernel.runs(X, factor=2.0)) == runs
        assert {"first", "second"} & set(catalogue.in_use()) == set(runs)


def test_an_unknown_wish_is_a_mistake_of_the_person(make, monkeypatch):
    times = make(GOOD)
    monkeypatch.setenv("QWEN_MLX_KERNELS", "times,tmes")
    with simulated_kernels(), pytest.raises(UsageError, match=r"QWEN_MLX_KERNELS names tmes; expected off, all"):
        times(X, factor=2.0)
    with pytest.raises(UsageError, match="tmes"):
        catalogue.in_use()  # also where no kernel can run


def test_the_command_line_says_it_in_one_line(monkeypatch, capsys):
    monkeypatch.setenv("QWEN_MLX_KERNELS", "tmes")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr()
    lines = [line for line in (shown.out + shown.err).splitlines() if "names tmes" in line]
    assert len(lines) == 1 and "expected off, all" in lines[0]
    assert "Traceback" not in shown.out + shown.err


def test_doctor_lists_them(monkeypatch, capsys):
    with simulated_kernels():
        main(["doctor"])
        assert "add_rms_norm" in capsys.readouterr().out
        monkeypatch.setenv("QWEN_MLX_KERNELS", "off")
        main(["doctor"])
        assert "none: pure MLX" in capsys.readouterr().out


def test_experimental_kernels_are_off():
    kernels = catalogue.all_kernels()
    assert not any(kernels[name].wanted for name in kernels if kernels[name].experimental)
    assert {"add_rms_norm", "router_topk", "sample_topk"} <= {name for name in kernels if kernels[name].wanted}


# ------------------------------------------------------------------------------------------------- what was proved


@pytest.fixture
def some_gpu(monkeypatch):
    """A device to remember things of; kernels are simulated."""
    monkeypatch.setattr(device, "backend", lambda: "metal")
    monkeypatch.setattr(mx, "device_info", lambda: {"device_name": "Imaginary M9"})
    module._Record.of_this_device.cache_clear()
    with simulated_kernels():
        yield


def forget():
    """What a new process has not."""
    module._Record.of_this_device.cache_clear()


def proofs(make, monkeypatch, source=GOOD):
    """Whether a new process proves the kernel again."""
    forget()
    times = make(source)
    seen = []
    prove = times._prove
    monkeypatch.setattr(times, "_prove", lambda configuration: seen.append(1) or prove(configuration))
    assert times.runs(X, factor=2.0)
    return len(seen)


def test_what_was_proved_is_remembered_until_the_source_changes(make, monkeypatch, tmp_path, some_gpu):
    assert proofs(make, monkeypatch) == 1
    assert proofs(make, monkeypatch) == 0
    assert proofs(make, monkeypatch, GOOD + " // changed") == 1
    monkeypatch.setattr(mx, "device_info", lambda: {"device_name": "Imaginary M10"})
    assert proofs(make, monkeypatch) == 1
    record = json.loads((tmp_path / "cache" / "kernels.json").read_text())
    assert sorted(key.split(",")[0] for key in record) == ["Imaginary M10", "Imaginary M9"]


def test_what_failed_is_not_remembered(make, tmp_path, some_gpu):
    assert not make(WRONG).runs(X, factor=2.0)
    assert not (tmp_path / "cache" / "kernels.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"a": 1}', '{"a": {"b": 2}}', "\x00\xff"])
def test_a_damaged_record_is_ignored_and_replaced(make, monkeypatch, tmp_path, some_gpu, content):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kernels.json").write_text(content, encoding="latin-1")
    assert proofs(make, monkeypatch) == 1
    assert proofs(make, monkeypatch) == 0


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(make, monkeypatch, tmp_path, some_gpu):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert proofs(make, monkeypatch) == 1
    assert proofs(make, monkeypatch) == 1


# ------------------------------------------------------------------------------------------------------ parts


def test_difference():
    nan, inf = float("nan"), float("inf")
    assert difference(mx.array([1.0, 2.0]), mx.array([1.0, 2.0])) == 0
    assert difference(mx.array([100.0]), mx.array([101.0])) == pytest.approx(1 / 101)
    assert difference(mx.array([0.001]), mx.array([0.002])) == pytest.approx(0.001)
    assert difference(mx.array([inf, 1.0]), mx.array([inf, 1.0])) == 0
    assert difference(mx.array([1.0]), mx.array([inf])) == inf
    assert not difference(mx.array([nan]), mx.array([1.0])) <= 1
    assert difference(mx.array([1, 2]), mx.array([1, 3])) == inf
    assert difference(mx.zeros((0,)), mx.zeros((0,))) == 0


def test_scalars_are_made_once_for_each_kind():
    assert scalar(2) is scalar(2)
    assert [scalar(x).dtype for x in (1, 1.0, True)] == [mx.int32, mx.float32, mx.bool_]


def test_without_a_builder_a_program_says_so(tmp_path):
    (tmp_path / "p.metal").write_text(GOOD)
    with pytest.raises(RuntimeError, match="no GPU"):
        Program(tmp_path, "p", ["x"], ["y"])(
            [X], output_shapes=[(3,)], output_dtypes=[mx.float32], grid=(3, 1, 1), threadgroup=(3, 1, 1)
        )


def test_a_bare_builder_skips_the_self_test(make):
    times = make(WRONG)

    def build(**_):
        return lambda **arguments: [mx.zeros(shape) for shape in arguments["output_shapes"]]

    with launch.building_with(build, bare=True):
        assert same_bits(times(X, factor=2.0)[0], mx.zeros((3,)))
    assert not launch.bare()
