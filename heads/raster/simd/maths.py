"""Arithmetic of vectors beyond their operators: fused products, exponentials, selection, sums over lanes."""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from heads.raster.simd.vector import I32, LOG2E, WIDTH, Mask, Vec, as_vec, call, splat_value, vector_ir


@intrinsic
def splat(typingctx, array, number):
    """A vector with ``number`` in all lanes, in the element type of ``array``."""

    def codegen(context, builder, sig, args):
        return splat_value(builder, context.cast(builder, args[1], sig.args[1], sig.args[0].dtype))

    return Vec(array.dtype)(array, number), codegen


@intrinsic
def ramp(typingctx, array):
    """(0, 1, ... 7) in the element type of ``array``."""

    def codegen(context, builder, sig, args):
        return ir.Constant(vector_ir(sig.args[0].dtype), [float(lane) for lane in range(WIDTH)])

    return Vec(array.dtype)(array), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x*y + z, fused where the machine can; each may be a vector or a number, one must be a vector."""
    vec = next((t for t in (x, y, z) if isinstance(t, Vec)), None)
    if vec is None:
        return None

    def codegen(context, builder, sig, args):
        operands = [as_vec(context, builder, a, t, vec) for a, t in zip(args, sig.args)]
        return call(builder, "llvm.fmuladd", *operands)

    return vec(x, y, z), codegen


def _unary(name: str, doc: str):
    @intrinsic
    def function(typingctx, x):
        if not isinstance(x, Vec):
            return None

        def codegen(context, builder, sig, args):
            return call(builder, name, args[0])

        return x(x), codegen

    function.__doc__ = doc
    return function


sqrt = _unary("llvm.sqrt", "Square root.")
absolute = _unary("llvm.fabs", "Absolute value.")
ceil = _unary("llvm.ceil", "Rounded up.")
floor = _unary("llvm.floor", "Rounded down.")
log = _unary("llvm.log", "Natural logarithm (one call of libm per lane: keep it out of inner loops).")


@intrinsic
def exp_fast(typingctx, x):
    """exp(x): in float32 by powers of two (relative error 2e-7, x clamped to [-87, 88]); libm in float64."""

    def codegen(context, builder, sig, args):
        if x.element == types.float64:
            return call(builder, "llvm.exp", args[0])
        kind = vector_ir(x.element)

        def constant(number):
            return ir.Constant(kind, [number] * WIDTH)

        value = call(builder, "llvm.maxnum", args[0], constant(-87.0))
        value = call(builder, "llvm.minnum", value, constant(88.0))
        power = call(builder, "llvm.floor", call(builder, "llvm.fmuladd", value, constant(LOG2E), constant(0.5)))
        # ln 2 in two parts, so that the remainder keeps all its bits
        rest = call(builder, "llvm.fmuladd", power, constant(-0.693359375), value)
        rest = call(builder, "llvm.fmuladd", power, constant(2.12194440e-4), rest)
        result = constant(1.0 / 5040)
        for coefficient in (1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0):
            result = call(builder, "llvm.fmuladd", result, rest, constant(coefficient))
        whole = builder.fptosi(power, ir.VectorType(I32, WIDTH))
        bias = ir.Constant(ir.VectorType(I32, WIDTH), [127] * WIDTH)
        shift = ir.Constant(ir.VectorType(I32, WIDTH), [23] * WIDTH)
        scale = builder.bitcast(builder.shl(builder.add(whole, bias), shift), kind)
        return builder.fmul(result, scale)

    return x(x), codegen


@intrinsic
def select(typingctx, mask, yes, no):
    """``yes`` where ``mask`` holds, else ``no``; either may be a number."""
    vec = yes if isinstance(yes, Vec) else no
    if not isinstance(mask, Mask) or not isinstance(vec, Vec):
        return None

    def codegen(context, builder, sig, args):
        a = as_vec(context, builder, args[1], sig.args[1], vec)
        b = as_vec(context, builder, args[2], sig.args[2], vec)
        return builder.select(args[0], a, b)

    return vec(mask, yes, no), codegen


@intrinsic
def any_lane(typingctx, mask):
    """Whether any lane of a mask holds."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(WIDTH), 0))

    return types.boolean(mask), codegen


@intrinsic
def all_lanes(typingctx, mask):
    """Whether all lanes of a mask hold."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(WIDTH))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(WIDTH), (1 << WIDTH) - 1))

    return types.boolean(mask), codegen


def sum_of_lanes(builder, value):
    width = WIDTH
    while width > 1:
        width //= 2
        undefined = ir.Constant(value.type, ir.Undefined)
        low = ir.Constant(ir.VectorType(I32, width), list(range(width)))
        high = ir.Constant(ir.VectorType(I32, width), list(range(width, 2 * width)))
        value = builder.fadd(
            builder.shuffle_vector(value, undefined, low), builder.shuffle_vector(value, undefined, high)
        )
    return builder.extract_element(value, ir.Constant(I32, 0))


@intrinsic
def total(typingctx, x):
    """Sum of the eight lanes, pairwise: the two halves first."""

    def codegen(context, builder, sig, args):
        return sum_of_lanes(builder, args[0])

    return x.element(x), codegen


# p(s) ~ exp(-s/8) on [0, ln 255], lowest power first: minimax relative error 8e-8 with p(0) = 1 exactly.
_EXP_ROOT = (
    1.0,
    -0.12499937415122986,
    0.007810991257429123,
    -0.00032430762075819075,
    9.736273568705656e-06,
    -1.802107476578385e-07,
)


@intrinsic
def exp_negative(typingctx, s):
    """exp(-s) for 0 <= s <= ln 255: in float32 p(s)^8 with p of degree 5 (relative error 2e-6); exact in float64."""

    def codegen(context, builder, sig, args):
        if s.element == types.float64:
            return call(builder, "llvm.exp", builder.fneg(args[0]))
        c = [ir.Constant(vector_ir(s.element), [coefficient] * WIDTH) for coefficient in _EXP_ROOT]
        x = args[0]
        # Estrin's scheme: a chain a third shorter than Horner's for one more multiplication.
        square = builder.fmul(x, x)
        high = call(builder, "llvm.fmuladd", c[5], x, c[4])
        middle = call(builder, "llvm.fmuladd", c[3], x, c[2])
        low = call(builder, "llvm.fmuladd", c[1], x, c[0])
        value = call(builder, "llvm.fmuladd", call(builder, "llvm.fmuladd", high, square, middle), square, low)
        for _ in range(3):
            value = builder.fmul(value, value)
        return value

    return s(s), codegen
