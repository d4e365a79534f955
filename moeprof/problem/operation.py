"""The operation moeprof profiles: what every definition it runs must have in common.

FlashInfer-Bench and FlashInfer's own trace templates use one name for two contracts (10 inputs,
or 13 and more with the routing constants among them), so a definition is judged by its contents,
never by its name. Reading definitions from disk is ``dataset``'s work.
"""

from __future__ import annotations

from moeprof.contract import BLOCK, ROUTING
from moeprof.definition import Definition, TensorSpec
from moeprof.errors import UsageError

OP_TYPE = "moe"
VARIABLE_AXIS = "seq_len"
CONSTANT_AXES = (
    "num_experts",
    "num_local_experts",
    "hidden_size",
    "intermediate_size",
    "gemm1_out_size",
    "num_hidden_blocks",
    "num_intermediate_blocks",
    "num_gemm1_out_blocks",
)
ROUTING_INPUTS = ("routing_logits", "routing_bias")
INPUTS = (
    TensorSpec("routing_logits", ("seq_len", "num_experts"), "float32"),
    TensorSpec("routing_bias", ("num_experts",), "bfloat16"),
    TensorSpec("hidden_states", ("seq_len", "hidden_size"), "float8_e4m3fn"),
    TensorSpec("hidden_states_scale", ("num_hidden_blocks", "seq_len"), "float32"),
    TensorSpec(
        "gemm1_weights", ("num_local_experts", "gemm1_out_size", "hidden_size"), "float8_e4m3fn"
    ),
    TensorSpec(
        "gemm1_weights_scale",
        ("num_local_experts", "num_gemm1_out_blocks", "num_hidden_blocks"),
        "float32",
    ),
    TensorSpec(
        "gemm2_weights", ("num_local_experts", "hidden_size", "intermediate_size"), "float8_e4m3fn"
    ),
    TensorSpec(
        "gemm2_weights_scale",
        ("num_local_experts", "num_hidden_blocks", "num_intermediate_blocks"),
        "float32",
    ),
    TensorSpec("local_expert_offset", None, "int32"),
    TensorSpec("routed_scaling_factor", None, "float32"),
)
OUTPUTS = (TensorSpec("output", ("seq_len", "hidden_size"), "bfloat16"),)


def check_operation(definition: Definition) -> None:
    """Raise UsageError unless ``definition`` is an instance of this operation."""
    problem = _contract_problem(definition) or _geometry_problem(definition)
    if problem:
        raise UsageError(
            f"definition {definition.name} is another operation than its name says: {problem}",
            do="take the file of that name from a FlashInfer-Bench dataset",
        )


def _contract_problem(definition: Definition) -> str | None:
    names = [spec.name for spec in definition.inputs]
    if len(names) != len(INPUTS):
        return f"it has {len(names)} inputs, not {len(INPUTS)}"
    for position, (found, expected) in enumerate(zip(definition.inputs, INPUTS, strict=True)):
        if found != expected:
            return f"input {position} is {_phrase(found)}, not {_phrase(expected)}"
    if definition.outputs != OUTPUTS:
        found_outputs = ", ".join(_phrase(spec) for spec in definition.outputs) or "nothing"
        return f"it returns {found_outputs}, not {_phrase(OUTPUTS[0])}"
    if definition.variables != (VARIABLE_AXIS,):
        return f"its variable axes are {', '.join(definition.variables) or 'none'}"
    extra = sorted(set(definition.constants) ^ set(CONSTANT_AXES))
    return f"its constant axes differ in {', '.join(extra)}" if extra else None


def _phrase(spec: TensorSpec) -> str:
    shape = "scalar" if spec.shape is None else f"[{', '.join(spec.shape)}]"
    return f"{spec.name} {shape} {spec.dtype}"


def _geometry_problem(definition: Definition) -> str | None:
    axes = definition.constants
    blocks = {
        "num_hidden_blocks": axes["hidden_size"],
        "num_intermediate_blocks": axes["intermediate_size"],
        "num_gemm1_out_blocks": axes["gemm1_out_size"],
    }
    for name, size in blocks.items():
        if size <= 0 or size != axes[name] * BLOCK:
            return f"{name} is {axes[name]} for {size} columns in blocks of {BLOCK}"
    if axes["gemm1_out_size"] != 2 * axes["intermediate_size"]:
        return f"gemm1_out_size {axes['gemm1_out_size']} is not twice intermediate_size"
    experts, local = axes["num_experts"], axes["num_local_experts"]
    group, remainder = divmod(experts, ROUTING.num_groups)
    if remainder or group < max(2, ROUTING.top_k // ROUTING.topk_groups):
        return f"{experts} experts do not make {ROUTING.num_groups} groups for top {ROUTING.top_k}"
    if not 0 < local <= experts:
        return f"{local} local experts of {experts}"
    return None
