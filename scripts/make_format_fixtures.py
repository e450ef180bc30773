#!/usr/bin/env python3
"""Write tests/fixtures/formats: what other programs make of tiny models in their formats.

    python3 -m venv reference
    reference/bin/pip install torch==2.13.0 transformers==5.23.0 gguf==0.19.0 compressed-tensors==0.20.0 numpy
    pip download --no-deps --no-binary :all: --no-build-isolation autoawq==0.2.9 gptqmodel==7.7.0   and unpack both;
    reference/bin/pip install   what `import gptqmodel` then asks for (logbar, pypcre, tokenicer, device-smi, defuser,
                                torchao, pillow, accelerate, threadpoolctl)
    reference/bin/python scripts/make_format_fixtures.py --autoawq autoawq-0.2.9 --gptqmodel gptqmodel-7.7.0

    reference/bin/python scripts/make_format_fixtures.py --compare FILE.gguf FOLDER
        the logits of an exported GGUF file, read by transformers, and those of the folder it was exported from

What is in the fixtures:

    logits.npz      FORMAT/MODEL: float32 (tokens, vocabulary) of every sample of `scripts/formats/samples.py`, computed
                    by transformers with the weights as the format's own program unpacks them
    samples.json    a checksum of the bytes of every sample: the tests draw them again
    packers.npz     small matrices as GPTQModel and compressed-tensors pack floats, and what they unpack them to
    tables.npz      float8 numbers by torch; float32 rows and their Q8_0 blocks by the gguf package
    reference.gguf  a file by the gguf package, with every type of tensor, every type of value and a tokenizer
    reference.npz   the numbers of its tensors
    tokenizer.json  the tokenizer in it
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from gguf import quants  # noqa: E402

from scripts.formats import references, samples  # noqa: E402
from tests.text import tiny  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "formats"
ROWS, COLUMNS, GROUP = 32, 64, 32  # of the matrices in packers.npz


def make_logits(programs: references.Programs) -> None:
    found, checksums = {}, {}
    for model in samples.CONFIGS:
        for form in (*samples.HUB_FORMATS, *samples.GGUF_FORMATS):
            is_hub = form in samples.HUB_FORMATS
            weights = references.hub_weights(programs, form, model) if is_hub else references.gguf_weights(form, model)
            found[f"{form}/{model}"] = references.logits(weights, model)
            checksums[f"{form}/{model}"] = samples.checksum(form, model)
            print(f"{form}/{model}: standard deviation {found[f'{form}/{model}'].std():.3f}")
    np.savez_compressed(FIXTURES / "logits.npz", **found)
    (FIXTURES / "samples.json").write_text(json.dumps(checksums, indent=1) + "\n")


def make_packers(programs: references.Programs) -> None:
    found: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((ROWS, COLUMNS)) * 0.02).astype(np.float32)
    for bits in (2, 3, 4, 8):
        for sym in (True, False):
            for desc_act in (False, True):
                name = f"gptq_{bits}_{'sym' if sym else 'asym'}{'_sorted' if desc_act else ''}"
                found |= {f"{name}/{k}": v for k, v in gptq_case(programs, weight, bits, sym, desc_act).items()}
    for bits in (4, 8):
        for sym in (True, False):
            name = f"ct_{bits}_{'sym' if sym else 'asym'}"
            found |= {f"{name}/{k}": v for k, v in compressed_case(weight, bits, sym).items()}
    np.savez_compressed(FIXTURES / "packers.npz", **found)


def gptq_case(
    programs: references.Programs, weight: np.ndarray, bits: int, sym: bool, desc_act: bool
) -> dict[str, np.ndarray]:
    """A matrix as GPTQModel packs it, in both versions of the format, and as it unpacks it."""
    top = (1 << bits) - 1
    order = np.arange(COLUMNS, dtype=np.int32) // GROUP
    if desc_act:
        order = np.random.default_rng(bits).permutation(order)
    scales, zeros = (np.empty((ROWS, COLUMNS // GROUP), np.float32) for _ in range(2))
    for j in range(COLUMNS // GROUP):
        low, high = weight[:, order == j].min(1), weight[:, order == j].max(1)
        if sym:
            scales[:, j], zeros[:, j] = 2 * np.maximum(-low, high) / top, 1 << bits - 1
        else:
            scales[:, j] = (high - low) / top
            zeros[:, j] = np.clip(np.rint(-low / scales[:, j]), 0, top)
    if not sym:  # a zero point of 0 is where the versions of the format differ most
        zeros[::5, 0] = 0
    scales = scales.astype(np.float16).astype(np.float32)
    module = programs.gptq_module(bits, GROUP, sym, desc_act, COLUMNS, ROWS)
    linear = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = torch.from_numpy(weight)
    module.pack(linear, torch.from_numpy(scales), torch.from_numpy(zeros), torch.from_numpy(order))
    module.post_init()
    found = {name: getattr(module, name).numpy().copy() for name in ("qweight", "qzeros", "scales")}
    found["g_idx"] = order
    programs.to_v1(module, references.gptq_config(bits))
    found["qzeros_v1"] = module.qzeros.numpy().copy()
    settings = {"bits": bits, "group_size": GROUP, "sym": sym, "desc_act": desc_act, "checkpoint_format": "gptq_v2"}
    parts = {name: torch.from_numpy(found[name]) for name in ("qweight", "qzeros", "scales", "g_idx")}
    found["values"] = programs.dequantize("gptq", parts, settings)
    return found


def compressed_case(weight: np.ndarray, bits: int, sym: bool) -> dict[str, np.ndarray]:
    """A matrix as compressed-tensors packs and unpacks it."""
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    group = {
        "targets": ["Linear"],
        "weights": {"num_bits": bits, "type": "int", "symmetric": sym, "strategy": "group", "group_size": GROUP},
    }
    scheme = QuantizationScheme(**group)
    grouped = weight.reshape(ROWS, -1, GROUP)
    low, high = grouped.min(-1), grouped.max(-1)
    half = 1 << bits - 1
    scale = (np.maximum(-low, high) / (half - 0.5) if sym else (high - low) / (2 * half - 1)).astype(np.float16)
    zero = np.zeros_like(low) if sym else np.clip(np.rint(-low / scale.astype(np.float32)) - half, -half, half - 1)
    state = {"weight": torch.from_numpy(weight), "weight_scale": torch.from_numpy(scale.astype(np.float32))}
    state["weight_zero_point"] = torch.from_numpy(zero.astype(np.int8))
    packed = PackedQuantizationCompressor.compress(state, scheme)
    values = PackedQuantizationCompressor.decompress(packed, scheme)["weight"].numpy()
    found = {name: tensor.numpy() for name, tensor in packed.items() if name.startswith("weight")}
    return found | {"weight_scale": scale, "values": values}


def make_tables() -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((8, 64)) * rng.choice([1e-4, 1.0, 100.0], (8, 1))).astype(np.float32)
    rows[3, :32] = 0
    rows[4, :32] = np.arange(-16, 16) * 0.5  # halves, which round away from zero
    rows[4, 31] = 127 * 0.5
    np.savez_compressed(
        FIXTURES / "tables.npz",
        e4m3=codes.view(torch.float8_e4m3fn).float().numpy(),
        e8m0=codes.view(torch.float8_e8m0fnu).float().numpy(),
        rows=rows,
        q8_0=quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0),
        bf16=torch.from_numpy(rows).bfloat16().view(torch.uint16).numpy(),
    )


def make_gguf() -> None:
    """A file with one tensor of every type that is imported, one value of every type, and a tokenizer."""
    description = tiny.description(gap=0)
    (FIXTURES / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    added = {token["id"]: token for token in description["added_tokens"]}
    tokens = {number: token for token, number in description["model"]["vocab"].items()}
    tokens |= {number: token["content"] for number, token in added.items()}
    count = len(tokens) + 6  # the embedding is often longer than the vocabulary
    writer = gguf.GGUFWriter(FIXTURES / "reference.gguf", "qwen3")
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(count)])
    writer.add_token_types(
        [(3 if added[n]["special"] else 4) if n in added else 1 if n in tokens else 5 for n in range(count)]
    )
    writer.add_token_merges([" ".join(pair) for pair in description["model"]["merges"]])
    writer.add_eos_token_id(next(n for n, token in added.items() if token["content"] == "<|im_end|>"))
    writer.add_pad_token_id(next(n for n, token in added.items() if token["content"] == "<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    writer.add_uint8("test.uint8", 200)
    writer.add_int8("test.int8", -100)
    writer.add_uint16("test.uint16", 60000)
    writer.add_int16("test.int16", -30000)
    writer.add_uint32("test.uint32", 4_000_000_000)
    writer.add_int32("test.int32", -2_000_000_000)
    writer.add_uint64("test.uint64", 2**63 + 1)
    writer.add_int64("test.int64", -(2**62))
    writer.add_float32("test.float32", 0.1)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.string", "naïve 你好")
    writer.add_array("test.numbers", [1, -2, 3])
    writer.add_array("test.floats", [0.5, 0.25])
    writer.add_array("test.texts", ["a", "", "ü"])
    values = {}
    for kind in samples.BLOCKS:
        raw = samples.draw_rows(kind, samples.generator("reference", kind), 2, 512)
        values[kind] = references.gguf_values(kind, raw, (2, 512))
        data = raw.view({"F32": np.float32, "F16": np.float16}.get(kind, np.uint8))
        writer.add_tensor(f"values.{kind}", data, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    np.savez_compressed(FIXTURES / "reference.npz", **values)


def compare(file: Path, folder: Path) -> None:
    """Print how far an exported file is from the folder of safetensors that it came from."""
    from safetensors.numpy import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reader = gguf.GGUFReader(file)
    own = reader.fields["general.architecture"].contents()
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == own)
    print(f"{file.name}: gguf reads {len(reader.tensors)} tensors and {len(reader.fields)} keys")
    values = {
        tensor.name: quants.dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist())))
        for tensor in reader.tensors
    }
    names = gguf.get_tensor_name_map(arch, reader.fields[f"{own}.block_count"].contents())
    off = []
    for name, array in load_file(folder / "model.safetensors").items():
        module, _, part = name.rpartition(".")
        expert = re.search(r"experts\.(\d+)\.", module)
        found = values[f"{names.get_name(module.replace(expert[0], 'experts.') if expert else module)}.{part}"]
        off.append(float(np.abs((found[int(expert[1])] if expert else found) - array).max() / array.std()))
    print(f"weights: largest difference {max(off):.3g} of their standard deviation, in {len(off)} tensors")
    ours, theirs = (
        AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name),
        AutoTokenizer.from_pretrained(folder),
    )
    text = "Hello, world! 你好 12 <|im_start|>user"
    print(f"tokens equal: {ours(text)['input_ids'] == theirs(text)['input_ids']}")
    print(f"template equal: {ours.chat_template == theirs.chat_template}")
    # It ignores key_length and expert_feed_forward_length, so heads of 128 and no experts are what it can read.
    exported = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    original = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(2, 26)[None]
    with torch.no_grad():
        a, b = exported(ids).logits, original(ids).logits
    print(f"logits: largest difference {(a - b).abs().max():.3g}, standard deviation {b.std():.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoawq", type=Path, help="folder of its source")
    parser.add_argument("--gptqmodel", type=Path, help="folder of its source")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("FILE", "FOLDER"))
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.compare:
        compare(*args.compare)
        return
    FIXTURES.mkdir(parents=True, exist_ok=True)
    programs = references.Programs(args.autoawq, args.gptqmodel)
    make_tables()
    make_gguf()
    make_packers(programs)
    make_logits(programs)
    size = sum(file.stat().st_size for file in FIXTURES.iterdir())
    print(f"{size:,} bytes in {FIXTURES}")


if __name__ == "__main__":
    main()
