"""The inner loop of pointwise convolutions: six pixels times sixteen outputs, as LLVM's ``<16 x float>``.

That is one register of AVX-512 and two of AVX2, where the kernels' usual eight lanes would leave half of AVX-512 unused.
"""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils  # part of numba's documented low-level extension interface
from numba.extending import intrinsic

from heads.raster.simd.vector import FLAGS, I32, I64, pointer_to

TILE = 6  # pixels: with 16 outputs each, 12 sums fit the 16 registers of AVX2
OUT = 16  # outputs
_VECTOR = ir.VectorType(ir.FloatType(), OUT)
_UNDEFINED, _ZEROS = ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(I32, OUT), [0] * OUT)
_NONE = ir.Constant(_VECTOR, [0.0] * OUT)


def _tile(reads: int):
    """The kernel's part that adds nothing, one number or the largest of 2 x 2 numbers (``reads``: 0, 1, 4) to each sum."""

    @intrinsic
    def tile(
        typingctx, rows, first, depth, parameters, weights, bias, slopes, maps, where, added, pixel, out, line, width
    ):
        def codegen(context, builder, sig, args):
            def whole(k):
                return context.cast(builder, args[k], sig.args[k], types.int64)

            def address(array, at):
                return pointer_to(context, builder, sig.args[array], args[array], at)

            def vector(array, at):
                return builder.bitcast(address(array, at), _VECTOR.as_pointer())

            def read(array, at):
                return builder.load(vector(array, at), align=4)

            def larger(a, b):
                return builder.select(builder.fcmp_ordered(">", a, b), a, b)

            count, weight, here = whole(2), whole(4), whole(11)
            kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
            add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{OUT}f32")
            start = read(3, whole(5))
            sums = [cgutils.alloca_once(builder, _VECTOR) for _ in range(TILE)]
            for value in sums:
                builder.store(start, value)
            with cgutils.for_range(builder, count, intp=I64) as loop:
                factors = read(3, builder.add(weight, builder.mul(loop.index, ir.Constant(I64, OUT))))
                place = builder.add(whole(1), loop.index)
                for value in sums:
                    lane = builder.insert_element(_UNDEFINED, builder.load(address(0, place)), ir.Constant(I32, 0))
                    spread = builder.shuffle_vector(lane, _UNDEFINED, _ZEROS)
                    builder.store(builder.call(add, [spread, factors, builder.load(value)]), value)
                    place = builder.add(place, count)
            bend = read(3, whole(6))
            for k, held in enumerate(sums):
                at, value = builder.add(whole(10), ir.Constant(I64, k)), builder.load(held)
                if reads:
                    own = builder.add(builder.load(address(9, at)), here)
                    other = read(7, own)
                    if reads == 4:
                        below = builder.add(own, whole(12))
                        other = larger(other, read(7, builder.add(own, whole(13))))
                        other = larger(other, read(7, below))
                        other = larger(other, read(7, builder.add(below, whole(13))))
                    value = builder.fadd(value, other, flags=FLAGS)
                bent = builder.fmul(value, bend, flags=FLAGS)
                value = builder.select(builder.fcmp_ordered(">", value, _NONE), value, bent)
                to = builder.add(builder.load(address(8, at)), here)
                builder.store(value, vector(7, to), align=4)
            return context.get_dummy_value()

        kinds = rows, first, depth, parameters, weights, bias, slopes, maps, where, added, pixel, out, line, width
        return types.void(*kinds), codegen

    tile.__doc__ = f"""Six pixels of a pointwise convolution, {reads} numbers of the layer's input added, and the PReLU.

    ``maps[where[pixel + p] + out : ...] = prelu(bias + sum over k of rows[first + p depth + k] * weights[16 k : ...] + own)``

    Args:
        rows: float32; first: of the first pixel's numbers, ``depth`` of each.
        parameters: float32; weights, bias, slopes: where those of the sixteen outputs start in it.
        maps: float32; where, added: int64, where in it the pixels' results go and their own inputs start.
        pixel: of the first pixel in ``where``; out: the first output.
        line, width: numbers from one row and one pixel of what is added to the next.
    """
    return tile


alone, summed, pooled = _tile(0), _tile(1), _tile(4)
