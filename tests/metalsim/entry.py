"""The function that the runtime calls for every thread: it hands the kernel its buffers and attributes."""

from __future__ import annotations

from tests.metalsim.signature import ATTRIBUTES, Signature

# In the order of `struct Attributes` in runtime/interface.h.
_TRIPLES = (
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threadgroups_per_grid",
    "threads_per_grid",
    "threads_per_threadgroup",
    "dispatch_threads_per_threadgroup",
    "grid_origin",
    "grid_size",
)
_SINGLE = (
    "thread_index_in_threadgroup",
    "thread_index_in_simdgroup",
    "simdgroup_index_in_threadgroup",
    "simdgroups_per_threadgroup",
    "threads_per_simdgroup",
    "thread_execution_width",
    "thread_index_in_quadgroup",
    "quadgroup_index_in_threadgroup",
    "quadgroups_per_threadgroup",
    "dispatch_simdgroups_per_threadgroup",
    "dispatch_quadgroups_per_threadgroup",
)
assert {**dict.fromkeys(_TRIPLES, "uint3"), **dict.fromkeys(_SINGLE, "uint")} == ATTRIBUTES


def entry(signature: Signature) -> str:
    """C++ for `sim_entry(buffers, attributes)`. Its own accesses are not watched."""
    arguments = []
    for i, parameter in enumerate(signature.parameters):
        if parameter.type.endswith("&"):
            arguments.append(f"*({parameter.type[:-1]}*)buffers[{i}]")
        else:
            arguments.append(f"({parameter.type})buffers[{i}]")
    arguments += [f"attributes->{name}" for name in signature.attributes]
    return (
        '\n#line 1 "entry"\n'
        f"struct __sim_attributes {{ uint3 {', '.join(_TRIPLES)}; uint {', '.join(_SINGLE)}; }};\n"
        'extern "C" __attribute__((visibility("default"), no_sanitize("thread")))\n'
        "void sim_entry(void** buffers, const __sim_attributes* attributes) {\n"
        f"  {signature.instance}({', '.join(arguments)});\n"
        "}\n"
    )
