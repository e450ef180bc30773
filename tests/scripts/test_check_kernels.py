"""The script that checks kernels on a GPU, as far as that can be seen without one."""

import pytest

from qwen_mlx.kernels.catalogue import all_kernels
from scripts import check_kernels
from tests.kernels.harness import needs_simulator
from tests.metalsim.simulated import simulated_kernels


def test_without_a_gpu_it_says_so(capsys):
    assert check_kernels.main([]) == check_kernels.NO_GPU
    assert capsys.readouterr().out == "no GPU on this machine: nothing was checked\n"


@pytest.mark.parametrize("name", sorted(all_kernels()))
def test_every_configuration_is_one_of_its_kernel(name):
    """Its example can be made, and is eligible and of that configuration."""
    kernel, found = all_kernels()[name], list(check_kernels.configurations(name))
    assert {configuration[0] for configuration in found} == {"bfloat16", "float16", "float32"}
    for configuration in found[:1] + found[-1:]:
        arrays, options = kernel.example(configuration)
        assert kernel.eligible(*arrays, **options)
        assert kernel.configuration(*arrays, **options) == configuration


@needs_simulator
def test_a_table(capsys):
    with simulated_kernels(checked=False):
        assert check_kernels.main(["--kernel", "router_topk", "--repeat", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| router_topk |") for line in lines) == 12
    assert not any("FAILED" in line or "TOO FAR" in line for line in lines)


@needs_simulator
def test_what_fails_is_said(capsys, monkeypatch):
    kernel = all_kernels()["router_topk"]
    run = kernel.run
    monkeypatch.setattr(kernel, "run", lambda *a, **o: tuple(x + 1 for x in run(*a, **o)))
    monkeypatch.setitem(check_kernels._CONFIGURATIONS, "router_topk", [("float32", 60, 4, True)])
    with simulated_kernels(checked=False):
        assert check_kernels.main(["--kernel", "router_topk", "--repeat", "1"]) == 1
    assert "TOO FAR" in capsys.readouterr().out
