"""Tuples of vectors, one per channel: planes of eight pixels, interleaved pixels, weighted sums."""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from heads.raster.simd.maths import sum_of_lanes
from heads.raster.simd.vector import (
    I32,
    I64,
    WIDTH,
    Vec,
    call,
    element_ir,
    elements,
    pointer_to,
    splat_value,
    tuple_of,
    vector_ir,
    vector_pointer,
)


@intrinsic
def splats(typingctx, array, index, like):
    """Tuple of ``len(like)`` vectors: ``array[index]`` in all eight lanes, then ``array[index + 1]``, and so on."""
    result = types.UniTuple(Vec(array.dtype), len(like))

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        values = []
        for k in range(len(like)):
            pointer = pointer_to(context, builder, sig.args[0], args[0], builder.add(at, ir.Constant(I64, k)))
            values.append(splat_value(builder, builder.load(pointer)))
        return tuple_of(context, builder, result, values)

    return result(array, index, like), codegen


def _planes(context, builder, sig, args, count):
    """Pointers to the vectors ``planes[at + k * stride]``; arguments 0, 1, 2 are planes, at, stride."""
    at = context.cast(builder, args[1], sig.args[1], types.int64)
    stride = context.cast(builder, args[2], sig.args[2], types.int64)
    for k in range(count):
        step = builder.add(at, builder.mul(stride, ir.Constant(I64, k)))
        yield vector_pointer(context, builder, sig.args[0], args[0], step)


@intrinsic
def add_to_planes(typingctx, planes, at, stride, weight, colors):
    """``planes[at + k * stride] += weight * colors[k]`` for each channel k."""

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        values = elements(builder, args[4], len(colors))
        for value, pointer in zip(values, _planes(context, builder, sig, args, len(colors))):
            old = builder.load(pointer, align=align)
            builder.store(call(builder, "llvm.fmuladd", args[3], value, old), pointer, align=align)
        return context.get_dummy_value()

    return types.void(planes, at, stride, weight, colors), codegen


def _totals_of_eight(builder, values):
    """One vector with the sums of eight vectors: neighbours are folded into each other, 8 -> 4 -> 2 -> 1.

    The first two folds stay within quarters of four lanes, which AVX shuffles in one instruction.
    """
    fold = ([0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15])
    halves = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    for orders in (fold, fold, halves):
        masks = [ir.Constant(ir.VectorType(I32, WIDTH), order) for order in orders]
        values = [
            builder.fadd(builder.shuffle_vector(a, b, masks[0]), builder.shuffle_vector(a, b, masks[1]))
            for a, b in zip(values[::2], values[1::2])
        ]
    return values[0]


@intrinsic
def store_totals(typingctx, array, index, sums):
    """``array[index + k] = total(sums[k])`` for a tuple of vectors."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        values = elements(builder, args[2], len(sums))
        whole = len(values) // WIDTH * WIDTH
        for k in range(0, whole, WIDTH):
            step = builder.add(at, ir.Constant(I64, k))
            pointer = vector_pointer(context, builder, sig.args[0], args[0], step)
            packed = _totals_of_eight(builder, values[k : k + WIDTH])
            builder.store(packed, pointer, align=sig.args[0].dtype.bitwidth // 8)
        for k in range(whole, len(values)):
            pointer = pointer_to(context, builder, sig.args[0], args[0], builder.add(at, ir.Constant(I64, k)))
            builder.store(sum_of_lanes(builder, values[k]), pointer)
        return context.get_dummy_value()

    return types.void(array, index, sums), codegen


@intrinsic
def joined(typingctx, first, second):
    """One tuple of the vectors of two tuples."""
    result = types.UniTuple(first.dtype, len(first) + len(second))

    def codegen(context, builder, sig, args):
        values = elements(builder, args[0], len(first)) + elements(builder, args[1], len(second))
        return tuple_of(context, builder, result, values)

    return result(first, second), codegen


@intrinsic
def store_pixels(typingctx, array, index, values):
    """Write eight pixels of ``len(values)`` channels, interleaved, to ``array[index : index + 8 * channels]``."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        channels, element = len(values), sig.args[0].dtype
        pixels = _interleaved(builder, elements(builder, args[2], channels))
        pointer = pointer_to(context, builder, sig.args[0], args[0], at)
        pointer = builder.bitcast(pointer, pixels.type.as_pointer())
        builder.store(pixels, pointer, align=element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, values), codegen


def _interleaved(builder, values):
    """All lanes of the first pixel, then of the second, ... as one long vector."""
    joined_values, count = values[0], 1
    for value in values[1:]:
        # A shuffle takes operands of equal length, so the next channel is widened first.
        length = WIDTH * count
        widen = ir.Constant(ir.VectorType(I32, length), [k if k < WIDTH else 0 for k in range(length)])
        value = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), widen)
        order = list(range(length)) + list(range(length, length + WIDTH))
        joined_values = builder.shuffle_vector(joined_values, value, ir.Constant(ir.VectorType(I32, len(order)), order))
        count += 1
    order = [channel * WIDTH + lane for lane in range(WIDTH) for channel in range(count)]
    undefined = ir.Constant(joined_values.type, ir.Undefined)
    return builder.shuffle_vector(joined_values, undefined, ir.Constant(ir.VectorType(I32, len(order)), order))


@intrinsic
def load_pixels(typingctx, array, index, like):
    """Tuple of ``len(like)`` vectors: eight pixels of interleaved channels from ``array[index]`` on."""
    result = types.UniTuple(Vec(array.dtype), len(like))

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        channels, element = len(like), sig.args[0].dtype
        kind = ir.VectorType(element_ir(element), WIDTH * channels)
        pointer = builder.bitcast(pointer_to(context, builder, sig.args[0], args[0], at), kind.as_pointer())
        pixels = builder.load(pointer, align=element.bitwidth // 8)
        values = []
        for channel in range(channels):
            order = [lane * channels + channel for lane in range(WIDTH)]
            mask = ir.Constant(ir.VectorType(I32, WIDTH), order)
            values.append(builder.shuffle_vector(pixels, ir.Constant(kind, ir.Undefined), mask))
        return tuple_of(context, builder, result, values)

    return result(array, index, like), codegen


@intrinsic
def load_planes(typingctx, planes, at, stride, like):
    """Tuple of the vectors ``planes[at + k * stride]`` for k below ``len(like)``."""
    result = types.UniTuple(Vec(planes.dtype), len(like))

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        pointers = _planes(context, builder, sig, args, len(like))
        return tuple_of(context, builder, result, [builder.load(pointer, align=align) for pointer in pointers])

    return result(planes, at, stride, like), codegen


@intrinsic
def store_planes(typingctx, planes, at, stride, values):
    """``planes[at + k * stride] = values[k]`` for each vector k."""

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        vectors = elements(builder, args[3], len(values))
        for value, pointer in zip(vectors, _planes(context, builder, sig, args, len(values))):
            builder.store(value, pointer, align=align)
        return context.get_dummy_value()

    return types.void(planes, at, stride, values), codegen


@intrinsic
def fma_tuples(typingctx, x, weight, z):
    """Tuple of ``x[k] * weight + z[k]`` for a vector weight."""

    def codegen(context, builder, sig, args):
        pairs = zip(elements(builder, args[0], len(x)), elements(builder, args[2], len(x)))
        values = [call(builder, "llvm.fmuladd", a, args[1], b) for a, b in pairs]
        return tuple_of(context, builder, x, values)

    return x(x, weight, z), codegen


@intrinsic
def dot_tuples(typingctx, x, y):
    """Sum over k of ``x[k] * y[k]``."""

    def codegen(context, builder, sig, args):
        values = list(zip(elements(builder, args[0], len(x)), elements(builder, args[1], len(x))))
        result = builder.fmul(*values[0])
        for a, b in values[1:]:
            result = call(builder, "llvm.fmuladd", a, b, result)
        return result

    return x.dtype(x, y), codegen


@intrinsic
def zeros_like(typingctx, colors):
    """A tuple of zero vectors as long as ``colors``, a tuple of vectors."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(vector_ir(colors.dtype.element), [0.0] * WIDTH)
        return tuple_of(context, builder, colors, [zero] * len(colors))

    return colors(colors), codegen
