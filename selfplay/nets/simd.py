"""Sixteen float32 lanes as a numba value, so that kernels say what LLVM's vectoriser does not find by itself.

`load(array, i)` and `store(array, i, v)` address the flat memory of a C-contiguous array, without bounds checks.
Arrays of float32 hold float32; arrays of uint16 hold bfloat16 (the upper half of a float32). Lanes add, subtract and
clamp at zero. LLVM lowers the sixteen lanes to whatever registers the processor has.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, overload, register_model

#: Lanes in a vector.
LANES = 16

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_WORDS = ir.VectorType(ir.IntType(32), LANES)
_HALVES = ir.VectorType(ir.IntType(16), LANES)


class Lanes(types.Type):
    """The numba type of a vector."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """In LLVM it is a plain vector."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def _splat(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * LANES)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: ir.VectorType) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _is_array(array: Any) -> bool:
    return isinstance(array, types.Array) and array.dtype in (types.float32, types.uint16) and array.layout == "C"


@intrinsic
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """Sixteen entries from flat position `index` on."""
    if not (_is_array(array) and isinstance(index, types.Integer)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = context.cast(builder, arguments[1], index, types.intp)
        if array.dtype == types.float32:
            return builder.load(_address(context, builder, array, arguments[0], at, _FLOATS), align=4)
        halves = builder.load(_address(context, builder, array, arguments[0], at, _HALVES), align=2)
        return builder.bitcast(builder.shl(builder.zext(halves, _WORDS), _splat(_WORDS, 16)), _FLOATS)

    return lanes(array, index), code


@intrinsic
def store(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Writes sixteen entries from flat position `index` on; bfloat16 is rounded to the nearest, ties away from 0."""
    if not (_is_array(array) and isinstance(index, types.Integer) and isinstance(value, Lanes)):
        return None

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        at = context.cast(builder, arguments[1], index, types.intp)
        if array.dtype == types.float32:
            builder.store(arguments[2], _address(context, builder, array, arguments[0], at, _FLOATS), align=4)
        else:
            words = builder.add(builder.bitcast(arguments[2], _WORDS), _splat(_WORDS, 0x8000))
            halves = builder.trunc(builder.lshr(words, _splat(_WORDS, 16)), _HALVES)
            builder.store(halves, _address(context, builder, array, arguments[0], at, _HALVES), align=2)
        return context.get_dummy_value()

    return types.void(array, index, value), code


@intrinsic
def _add(typing_context: Any, a: Any, b: Any) -> Any:
    return lanes(a, b), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def _subtract(typing_context: Any, a: Any, b: Any) -> Any:
    return lanes(a, b), lambda context, builder, signature, arguments: builder.fsub(*arguments)


@intrinsic
def relu(typing_context: Any, a: Any) -> Any:
    """The larger of each lane and 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(_FLOATS, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered(">", arguments[0], zero), arguments[0], zero)

    return lanes(a), code


@overload(operator.add)
def _overload_add(a, b):  # type: ignore[no-untyped-def]  # numba compares the signatures
    if isinstance(a, Lanes) and isinstance(b, Lanes):
        return lambda a, b: _add(a, b)
    return None


@overload(operator.sub)
def _overload_sub(a, b):  # type: ignore[no-untyped-def]
    if isinstance(a, Lanes) and isinstance(b, Lanes):
        return lambda a, b: _subtract(a, b)
    return None
