"""The graphs of whole models, counted in a process of their own."""

import json

import pytest

from qwen_mlx.cli.main import main
from qwen_mlx.errors import QwenError
from qwen_mlx.evaluation.launches import Question, count
from tests.models import tiny


def by_engine(question):
    return {one.engine: one for one in count(question)}


# Launches of a layer of mlx-lm's models, counted by hand in their source.
@pytest.mark.parametrize(
    ("model", "kv_bits", "ours", "theirs"),
    [("Qwen3-0.6B", None, 12, 19), ("Qwen3-0.6B", "4", 12, 28), ("Qwen3-30B-A3B", None, 17, 27)],
)
def test_published_models(model, kv_bits, ours, theirs):
    pytest.importorskip("mlx_lm")
    counts = by_engine(Question(model, context=1000, kv_bits=kv_bits))
    assert counts["mlx-lm"].layers == (theirs,)
    assert counts["qwen-mlx"].layers[0] <= ours
    assert counts["qwen-mlx"].sampling <= 3
    assert not counts["qwen-mlx"].unlisted
    if kv_bits is None:
        assert counts["qwen-mlx"].least == counts["mlx-lm"].least
        assert counts["qwen-mlx"].moved <= counts["mlx-lm"].moved


def test_a_folder(tmp_path, capsys, monkeypatch):
    decoder = tiny.decoder(tiny.QWEN3)
    from qwen_mlx.checkpoints.save import hub_tensors

    folder = tiny.save(tmp_path / "model", tiny.QWEN3, hub_tensors(decoder))
    assert main(["bench", "--launches", "--model", str(folder), "--against", "nothing", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert [answer["kv_bits"] for answer in answers] == [None, "4"]
    for answer in answers:
        (ours,) = answer["counts"]
        assert ours["launches"] == sum(ours["by_name"].values())
        assert ours["by_name"]["kernel add_rms_norm"] == 2 * len(decoder.layers)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(QwenError, match="counting failed"):
        count(Question(str(tmp_path / "nothing"), peer=False))
