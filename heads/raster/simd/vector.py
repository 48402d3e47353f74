"""A numba type of eight lanes, which lowers to LLVM's ``<8 x float>`` (or double).

Loops over pixels and Gaussians are written with it, so that their speed does not depend on whether LLVM's
auto-vectoriser sees through index types, aliasing and trip counts. LLVM maps it to the machine's registers (one of AVX,
two of SSE or NEON).

``Vec`` values support + - * / and unary minus with vectors and scalars, comparisons with < <= > >= (giving a
``Mask``), ``&`` and ``|`` on masks, and the functions of :mod:`memory`, :mod:`maths` and :mod:`channels` beside this file.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils  # part of numba's documented low-level extension interface
from numba.extending import lower_builtin, models, register_model, type_callable

WIDTH = 8
FLAGS = ("contract", "reassoc", "nsz", "arcp", "afn")
I64 = ir.IntType(64)
I32 = ir.IntType(32)
LOG2E = 1.4426950408889634


class Vec(types.Type):
    """Eight floats (``element`` is numba's float32 or float64)."""

    def __init__(self, element: types.Type) -> None:
        self.element = element
        super().__init__(name=f"Vec8({element})")


class Mask(types.Type):
    """Eight truth values."""

    def __init__(self) -> None:
        super().__init__(name="Mask8")


class Lanes(types.Type):
    """Eight indices."""

    def __init__(self) -> None:
        super().__init__(name="Lanes8")


MASK = Mask()
LANES = Lanes()


def element_ir(element: types.Type) -> ir.Type:
    return ir.FloatType() if element == types.float32 else ir.DoubleType()


def vector_ir(element: types.Type) -> ir.VectorType:
    return ir.VectorType(element_ir(element), WIDTH)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, vector_ir(fe_type.element))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), WIDTH))


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(I64, WIDTH))


def splat_value(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    vector = ir.VectorType(scalar.type, WIDTH)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _is_number(ty: types.Type) -> bool:
    return isinstance(ty, types.Float | types.Integer)


def _pair(left: types.Type, right: types.Type) -> Vec | None:
    if isinstance(left, Vec) and (left == right or _is_number(right)):
        return left
    if isinstance(right, Vec) and _is_number(left):
        return right
    return None


def as_vec(context, builder, value, ty, vec: Vec):
    if isinstance(ty, Vec):
        return value
    return splat_value(builder, context.cast(builder, value, ty, vec.element))


def _register_binary(op, emit, result) -> None:
    @type_callable(op)
    def _typing(context):
        def typer(left, right):
            vec = _pair(left, right)
            return None if vec is None else result(vec)

        return typer

    def lowering(context, builder, sig, args):
        vec = _pair(*sig.args)
        left, right = (as_vec(context, builder, a, t, vec) for a, t in zip(args, sig.args))
        return emit(builder, left, right)

    for left, right in ((Vec, Vec), (Vec, types.Number), (types.Number, Vec)):
        lower_builtin(op, left, right)(lowering)


def _same(vec: Vec) -> Vec:
    return vec


_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "truediv": "fdiv"}
_COMPARISONS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">="}
for _op, _instruction in _ARITHMETIC.items():
    for _name in (_op, f"i{_op}"):
        _register_binary(
            getattr(operator, _name),
            lambda b, x, y, instruction=_instruction: getattr(b, instruction)(x, y, flags=FLAGS),
            _same,
        )
for _op, _symbol in _COMPARISONS.items():
    _register_binary(
        getattr(operator, _op),
        lambda b, x, y, symbol=_symbol: b.fcmp_ordered(symbol, x, y),
        lambda vec: MASK,
    )


@type_callable(operator.neg)
def _type_neg(context):
    def typer(value):
        return value if isinstance(value, Vec) else None

    return typer


@lower_builtin(operator.neg, Vec)
def _neg(context, builder, sig, args):
    return builder.fneg(args[0])


def _register_mask(op, name) -> None:
    @type_callable(op)
    def _typing(context):
        def typer(left, right):
            return MASK if (left, right) == (MASK, MASK) else None

        return typer

    @lower_builtin(op, Mask, Mask)
    def _lower(context, builder, sig, args):
        return getattr(builder, name)(*args)


_register_mask(operator.and_, "and_")
_register_mask(operator.or_, "or_")


def pointer_to(context, builder, array_type, array, index):
    """Address of ``array[index]`` of a contiguous one-dimensional array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def vector_pointer(context, builder, array_type, array, index):
    pointer = pointer_to(context, builder, array_type, array, index)
    return builder.bitcast(pointer, vector_ir(array_type.dtype).as_pointer())


def call(builder, name, *operands):
    kind = operands[0].type
    suffix = f"v{WIDTH}f{32 if isinstance(kind.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [o.type for o in operands]), f"{name}.{suffix}"
    )
    return builder.call(function, operands)


def tuple_of(context, builder, ty, values):
    return context.make_tuple(builder, ty, values)


def elements(builder, pack, count):
    return [builder.extract_value(pack, k) for k in range(count)]
