"""Definitions, workloads and blobs: moeprof's own against FlashInfer-Bench, and broken ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from moeprof.definition import Definition, Workload
from moeprof.errors import UsageError
from moeprof.problem.blobs import read_tensors, round_to_bfloat16, write_routing_blob
from moeprof.problem.dataset import Dataset, custom_workload, dataset_root, own_root

REAL = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e32_h7168_i2048"
TINY = "moe_fp8_block_scale_ds_routing_topk8_ng8_kg4_e8_h256_i256"
CHECKOUT = Path(__file__).resolve().parents[1]
PUBLISHED = CHECKOUT.parent / "shared" / "data" / "flashinfer-trace"
needs_published = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="no copy of the published definition beside this checkout"
)


def dataset_files(root: Path) -> None:
    """What FlashInfer-Bench looks at, without moeprof's own records."""
    for folder in ("definitions", "workloads", "solutions", "traces"):
        if not (own_root() / folder).exists():
            continue
        shutil.copytree(own_root() / folder, root / folder)


@pytest.fixture
def copy(tmp_path: Path) -> Dataset:
    dataset_files(tmp_path)
    return Dataset(tmp_path)


def edit(path: Path, change: Callable[[Any], None], line: int | None = None) -> None:
    """Apply ``change`` to the JSON of a file, or of one line of it."""
    lines = path.read_text().splitlines() if line is not None else [path.read_text()]
    data = json.loads(lines[line or 0])
    change(data)
    lines[line or 0] = json.dumps(data)
    path.write_text("\n".join(lines))


def one_line(call: Callable[[], Any], *parts: str) -> None:
    """``call`` raises UsageError, in one line that holds every part."""
    with pytest.raises(UsageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


# --- what is there ---


def test_real_definition_has_the_published_sizes() -> None:
    definition = Dataset(own_root()).definition(REAL)
    assert dict(definition.constants) == {
        "num_experts": 256,
        "num_local_experts": 32,
        "hidden_size": 7168,
        "intermediate_size": 2048,
        "gemm1_out_size": 4096,
        "num_hidden_blocks": 56,
        "num_intermediate_blocks": 16,
        "num_gemm1_out_blocks": 32,
    }
    assert definition.variables == ("seq_len",)
    assert len(definition.inputs) == 10
    assert definition.alias == "dsv3"


def test_real_workloads() -> None:
    dataset = Dataset(own_root())
    found = dataset.workloads(dataset.definition("dsv3"))
    assert sorted((w.seq_len, w.local_expert_offset) for w in found) == [
        *((1, 32), (7, 192), (14, 0), (15, 32), (16, 224), (32, 32), (52, 160), (53, 32)),
        *((54, 128), (55, 128), (56, 64), (57, 96), (58, 64), (59, 160), (62, 96), (80, 96)),
        *((901, 96), (11948, 128), (14107, 32)),
    ]
    assert {w.routed_scaling_factor for w in found} == {2.5}
    assert found[0].uuid == "b8f4f012-a32e-4356-b4e1-7665b3d598af"


def test_tiny_keeps_the_structure() -> None:
    dataset = Dataset(own_root())
    tiny, real = dataset.definition("tiny"), dataset.definition("dsv3")
    assert tiny.name == TINY
    assert tiny.reference == real.reference  # so what the tests prove of one holds for the other
    assert tiny.constants["num_hidden_blocks"] >= 2
    assert tiny.constants["num_experts"] // tiny.constants["num_local_experts"] == 8
    found = dataset.workloads(tiny)
    assert [w.seq_len for w in found] == [1, 7, 13, 33, 70]
    assert len({w.local_expert_offset for w in found}) == 5


def test_reads_with_flashinfer_bench(copy: Dataset) -> None:
    """Fails where the package is missing, on purpose: what nobody else can read is no dataset."""
    from flashinfer_bench.data import TraceSet

    traces = TraceSet.from_path(str(copy.root))
    assert set(traces.definitions) == {REAL, TINY}
    for name, theirs in traces.definitions.items():
        ours = copy.definition(name)
        assert theirs.const_axes == dict(ours.constants)
        assert list(theirs.inputs) == [spec.name for spec in ours.inputs]
        for length in (1, 14107):
            shapes = [
                None if spec.shape is None else list(ours.shape_of(spec, length))
                for spec in ours.inputs
            ]
            found = theirs.get_input_shapes({"seq_len": length})
            assert [None if shape is None else list(shape) for shape in found] == shapes
        workloads = copy.workloads(ours)
        assert [t.workload.uuid for t in traces.workloads[name]] == [w.uuid for w in workloads]


@needs_published
def test_real_definition_equals_the_published_one(copy: Dataset) -> None:
    from flashinfer_bench.data import TraceSet

    published_root = copy.root / "published"
    for source, target in (
        ("definition.json", f"definitions/moe/{REAL}.json"),
        ("workloads.jsonl", f"workloads/moe/{REAL}.jsonl"),
    ):
        (published_root / target).parent.mkdir(parents=True)
        shutil.copy(PUBLISHED / source, published_root / target)
    ours, theirs = (TraceSet.from_path(str(root)) for root in (copy.root, published_root))
    for part in ("axes", "inputs", "outputs"):
        a, b = (
            {
                name: spec.model_dump(exclude={"description"})
                for name, spec in getattr(traces.definitions[REAL], part).items()
            }
            for traces in (ours, theirs)
        )
        assert list(a.items()) == list(b.items())
    a, b = ([t.model_dump() for t in traces.workloads[REAL]] for traces in (ours, theirs))
    assert a == b
    assert Dataset(published_root).definition("dsv3").name == REAL  # an alias it does not carry


# --- the definition's reference ---


def reference_of(text: str) -> Callable[..., torch.Tensor]:
    namespace: dict[str, Any] = {}
    exec(text, namespace)
    run: Callable[..., torch.Tensor] = namespace["run"]
    return run


def tiny_inputs(tokens: int, offset: int, seed: int = 0) -> dict[str, Any]:
    from moeprof.measure.inputs import make_activations, make_weights
    from moeprof.problem.routing import make_routing, parse_spec

    tiny = Dataset(own_root()).definition("tiny")
    workload = custom_workload(tiny, tokens, offset)
    routing = make_routing(parse_spec("uniform"), tiny, workload, seed)
    weights = make_weights(tiny, "quantised", seed, "cpu")
    made = weights | make_activations(tiny, workload, routing, "quantised", seed, "cpu")
    return {spec.name: made[spec.name] for spec in tiny.inputs}


def test_reference_equals_a_loop_over_tokens() -> None:
    """Float64, token by token and expert by expert, with scales applied block by block."""
    from moeprof.problem.routing import select

    inputs = tiny_inputs(33, 16)
    output = reference_of(Dataset(own_root()).definition("tiny").reference)(**inputs)
    as_numpy = {n: v.float().numpy() for n, v in inputs.items() if isinstance(v, torch.Tensor)}
    ids, weights = select(as_numpy["routing_logits"], as_numpy["routing_bias"], 2.5)

    def scaled(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
        return values.astype(np.float64) * np.kron(scales, np.ones((128, 128)))

    expected = np.zeros((33, 256))
    for token in range(33):
        factors = np.repeat(as_numpy["hidden_states_scale"][:, token], 128)
        x = as_numpy["hidden_states"][token].astype(np.float64) * factors
        for expert, weight in zip(ids[token] - 16, weights[token], strict=True):
            if 0 <= expert < 8:
                w1, w2 = (
                    scaled(as_numpy[f"{g}_weights"][expert], as_numpy[f"{g}_weights_scale"][expert])
                    for g in ("gemm1", "gemm2")
                )
                up, gate = np.split(w1 @ x, 2)
                expected[token] += weight * (w2 @ (gate / (1 + np.exp(-gate)) * up))
    assert output.dtype == torch.bfloat16
    assert np.abs(expected).max() > 5
    np.testing.assert_allclose(output.float().numpy(), expected, rtol=2**-8, atol=1e-4)
    assert (output.float().abs().sum(1) == 0).sum() > 0  # tokens without a local expert


@needs_published
def test_reference_equals_the_published_one_at_tiny_sizes() -> None:
    text = json.loads((PUBLISHED / "definition.json").read_text())["reference"]
    for real, small in (
        ("H = 7168", "H = 256"),
        ("I = 2048", "I = 256"),
        ("H == 7168", "H == 256"),
        ("I == 2048", "I == 256"),
        ("E_global == 256", "E_global == 64"),
        ("E_local == 32", "E_local == 8"),
    ):
        assert text.count(real) == 1
        text = text.replace(real, small)
    inputs = tiny_inputs(70, 40)
    ours, theirs = (
        reference_of(t)(**inputs) for t in (Dataset(own_root()).definition("tiny").reference, text)
    )
    assert theirs.float().abs().max() > 5
    torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=1e-3)


# --- choosing ---


def test_choosing_a_definition(copy: Dataset) -> None:
    assert copy.definition("tiny") == copy.definition(TINY)
    one_line(lambda: copy.definition("tinny"), "unknown definition 'tinny'", "did you mean tiny")


def test_choosing_a_workload(copy: Dataset) -> None:
    real = copy.definition("dsv3")
    assert copy.workload(real, "5e8dc11c").seq_len == 14107
    assert copy.workload(real, "E05C").seq_len == 1
    one_line(lambda: copy.workload(real, "e"), "ambiguous", "e05c6c03", "eedc63b2")
    one_line(lambda: copy.workload(real, "5e8dc11d"), "unknown workload", "known: ")
    one_line(lambda: copy.workload(real, ""), "unknown workload ''")


def test_choosing_by_size(copy: Dataset) -> None:
    real = copy.definition("dsv3")
    assert copy.workload_of_size(real, 901).uuid.startswith("1a4c6ba1")
    elsewhere = copy.workload_of_size(real, 901, 32)
    assert elsewhere.local_expert_offset == 32 and not elsewhere.uuid.startswith("1a4c6ba1")
    custom = copy.workload_of_size(real, 100)
    assert (custom.seq_len, custom.local_expert_offset) == (100, 0)
    assert custom == custom_workload(real, 100) != custom_workload(real, 101)
    assert custom.uuid == "0d0a0e06-c15d-5a2d-9fa8-0230cd4b9267"
    assert copy.recorded_routing(custom) is None


@pytest.mark.parametrize("tokens", [0, -1, 1_000_001])
def test_absurd_sizes(copy: Dataset, tokens: int) -> None:
    one_line(lambda: copy.workload_of_size(copy.definition("tiny"), tokens), "1 to 1,000,000")


@pytest.mark.parametrize("offset", [-1, 57])
def test_absurd_offsets(copy: Dataset, offset: int) -> None:
    tiny = copy.definition("tiny")
    one_line(lambda: copy.workload_of_size(tiny, 5, offset), "local_expert_offset", "0 to 56")


def test_dataset_root() -> None:
    assert dataset_root(None, {}) == CHECKOUT / "traces"
    assert dataset_root(None, {"FIB_DATASET_PATH": "/a"}) == Path("/a")
    assert dataset_root("/b", {"FIB_DATASET_PATH": "/a"}) == Path("/b")


# --- broken folders ---


def test_a_folder_that_is_no_dataset(tmp_path: Path) -> None:
    one_line(
        lambda: Dataset(tmp_path / "none").definition("tiny"), "no definitions/moe", "--dataset"
    )


def more_inputs(data: Any) -> None:
    for name in ("top_k", "n_group", "topk_group"):
        data["inputs"][name] = {"shape": None, "dtype": "int32"}


def other_layout(data: Any) -> None:
    data["inputs"]["hidden_states_scale"]["shape"].reverse()


def odd_block(data: Any) -> None:
    data["axes"]["num_hidden_blocks"]["value"] = 3


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (more_inputs, "13 inputs, not 10"),
        (other_layout, "input 3 is hidden_states_scale [seq_len, num_hidden_blocks]"),
        (odd_block, "num_hidden_blocks is 3"),
        (lambda d: d["outputs"].clear(), "it returns nothing"),
        (lambda d: d["axes"].update(top_k={"type": "const", "value": 8}), "differ in top_k"),
        (lambda d: d["axes"]["num_experts"].update(value=60), "60 experts"),
        (lambda d: d["axes"]["num_local_experts"].update(value=0), "0 local experts"),
        (lambda d: d["axes"]["num_experts"].update(value="64"), "an integer"),
        (lambda d: d.pop("reference"), "reference = null"),
        (lambda d: d.update(name="other"), "defines other"),
    ],
)
def test_a_definition_with_another_contract(
    copy: Dataset, change: Callable[[Any], None], part: str
) -> None:
    edit(copy.root / f"definitions/moe/{TINY}.json", change)
    one_line(lambda: copy.definition(TINY), part)


def test_a_foreign_definition_does_not_hide_the_others(copy: Dataset) -> None:
    edit(copy.root / f"definitions/moe/{TINY}.json", more_inputs)
    assert [d.name for d in copy.definitions()] == [REAL]


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_definition_that_is_no_json(copy: Dataset, text: bytes) -> None:
    (copy.root / f"definitions/moe/{TINY}.json").write_bytes(text)
    one_line(lambda: copy.definition(TINY), f"{TINY}.json")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda d: d["workload"]["axes"].update(seq_len=0), "seq_len 0"),
        (lambda d: d["workload"]["axes"].update(seq_len=True), "seq_len = true"),
        (lambda d: d["workload"]["axes"].clear(), "seq_len = null"),
        (
            lambda d: d["workload"]["inputs"].pop("local_expert_offset"),
            "local_expert_offset = null",
        ),
        (lambda d: d["workload"]["inputs"]["local_expert_offset"].update(value=57), "0 to 56"),
        (lambda d: d["workload"]["inputs"]["local_expert_offset"].update(value=0.5), "an integer"),
        (lambda d: d["workload"]["inputs"]["gemm1_weights"].update(type="zeros"), "'zeros'"),
        (
            lambda d: d["workload"]["inputs"]["routing_bias"].update(type="safetensors"),
            "path = null",
        ),
        (lambda d: d.update(definition=REAL), f"a workload of {REAL}"),
        (lambda d: d.update(workload=None), "workload = null"),
    ],
)
def test_a_broken_workload(copy: Dataset, change: Callable[[Any], None], part: str) -> None:
    path = copy.root / f"workloads/moe/{TINY}.jsonl"
    edit(path, change, line=2)
    one_line(lambda: copy.workloads(copy.definition("tiny")), f"{TINY}.jsonl:3", part)


def test_a_truncated_workload_file(copy: Dataset) -> None:
    path = copy.root / f"workloads/moe/{TINY}.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    one_line(lambda: copy.workloads(copy.definition("tiny")), f"{TINY}.jsonl:5 is not JSON")


def test_a_repeated_workload(copy: Dataset) -> None:
    path = copy.root / f"workloads/moe/{TINY}.jsonl"
    path.write_text(path.read_text() * 2)
    one_line(lambda: copy.workloads(copy.definition("tiny")), "twice")


def test_a_definition_without_workloads(copy: Dataset) -> None:
    tiny = copy.definition("tiny")
    (copy.root / f"workloads/moe/{TINY}.jsonl").unlink()
    assert copy.workloads(tiny) == ()
    assert copy.workload_of_size(tiny, 13).seq_len == 13


# --- blobs ---


def recorded_tiny(copy: Dataset) -> tuple[Definition, Workload, Path]:
    """The first tiny workload of 13 tokens, its routing said to be recorded."""
    blob = f"./blob/workloads/moe/{TINY}/{TINY}_0123.safetensors"

    def change(data: Any) -> None:
        for name in ("routing_logits", "routing_bias"):
            spec = {"type": "safetensors", "path": blob, "tensor_key": name}
            data["workload"]["inputs"][name] = spec

    edit(copy.root / f"workloads/moe/{TINY}.jsonl", change, line=2)
    tiny = copy.definition("tiny")
    path = copy.root / blob
    path.parent.mkdir(parents=True)
    return tiny, copy.workload_of_size(tiny, 13), path


def test_flashinfer_bench_reads_our_blob(copy: Dataset) -> None:
    from flashinfer_bench.bench.utils import load_safetensors
    from flashinfer_bench.data import TraceSet

    _, workload, path = recorded_tiny(copy)
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((13, 64), dtype=np.float32)
    bias = round_to_bfloat16(generator.standard_normal(64, dtype=np.float32))
    write_routing_blob(path, logits, bias)
    traces = TraceSet.from_path(str(copy.root))
    theirs = next(t.workload for t in traces.workloads[TINY] if t.workload.uuid == workload.uuid)
    read = load_safetensors(traces.definitions[TINY], theirs, copy.root)
    assert torch.equal(read["routing_logits"], torch.from_numpy(logits))
    assert read["routing_bias"].dtype == torch.bfloat16
    assert torch.equal(read["routing_bias"].float(), torch.from_numpy(bias))


@example([1 + 2**-8, 1 + 3 * 2**-8])  # ties: to the even one below, to the even one above
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_rounding_to_bfloat16_equals_torch(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    expected = torch.from_numpy(array).to(torch.bfloat16).float().numpy()
    assert np.array_equal(round_to_bfloat16(array), expected)


def test_every_bfloat16_survives_a_blob(tmp_path: Path) -> None:
    import safetensors.torch

    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    bias = every[torch.isfinite(every)]
    path = tmp_path / "bias.safetensors"
    safetensors.torch.save_file({"routing_bias": bias}, path)
    read = read_tensors(path, ["routing_bias"])["routing_bias"]
    assert read.dtype == "bfloat16"
    assert np.array_equal(read.values.view(np.uint32), bias.float().numpy().view(np.uint32))
    write_routing_blob(path, np.zeros((1, 3), dtype=np.float32), read.values)
    again = safetensors.torch.load_file(path)["routing_bias"]
    assert torch.equal(again.view(torch.int16), bias.view(torch.int16))


def test_a_bias_that_is_not_bfloat16_is_not_written(tmp_path: Path) -> None:
    bias = np.array([0.1], dtype=np.float32)
    path = tmp_path / "b.safetensors"
    one_line(lambda: write_routing_blob(path, bias[None], bias), "not bfloat16")
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.safetensors", b"", "no safetensors file"),
        ("a.safetensors", b"version https://git-lfs.github.com/spec/v1\noid 1", "no safetensors"),
        ("a.npz", b"PK\x03\x04", "no .npz file"),
        ("a.npz", b"", "no .npz file"),
        ("a.pt", b"", "neither .safetensors nor .npz"),
    ],
)
def test_a_broken_blob(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    (tmp_path / name).write_bytes(content)
    one_line(lambda: read_tensors(tmp_path / name, ["routing_bias"]), part)


def test_a_missing_blob_or_key(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    one_line(lambda: read_tensors(path, ["routing_bias"]), "No such file")
    write_routing_blob(path, np.zeros((1, 8), np.float32), np.zeros(8, np.float32))
    one_line(lambda: read_tensors(path, ["routing_biass"]), "did you mean routing_bias or")


def test_npz_types(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, half=np.float16([0.1]), whole=np.int32([1]), double=np.float64([0.1]))
    assert read_tensors(path, ["half"])["half"].values == np.float32(np.float16(0.1))
    one_line(lambda: read_tensors(path, ["whole"]), "int32", "float32 or float16")
    one_line(lambda: read_tensors(path, ["double"]), "float64")
