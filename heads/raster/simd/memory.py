"""Vectors to and from memory: contiguous arrays, eight indices at a time, and prefetching."""

# mypy: disable-error-code="no-untyped-def,misc"
# Numba gives kernels their types.
from __future__ import annotations

from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from heads.raster.simd.vector import (
    I32,
    I64,
    LANES,
    WIDTH,
    Vec,
    element_ir,
    pointer_to,
    vector_ir,
    vector_pointer,
)


@intrinsic
def load(typingctx, array, index):
    """``array[index : index + 8]`` of a contiguous 1-D float array, at any alignment."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        pointer = vector_pointer(context, builder, sig.args[0], args[0], at)
        return builder.load(pointer, align=sig.args[0].dtype.bitwidth // 8)

    return Vec(array.dtype)(array, index), codegen


@intrinsic
def store(typingctx, array, index, value):
    """``array[index : index + 8] = value`` of a contiguous 1-D float array."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        pointer = vector_pointer(context, builder, sig.args[0], args[0], at)
        builder.store(args[2], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def lanes(typingctx, first, last):
    """Indices ``first ... first + 7``, at most ``last``: the tail repeats the last item, which is harmless."""

    def codegen(context, builder, sig, args):
        start = context.cast(builder, args[0], sig.args[0], types.int64)
        end = context.cast(builder, args[1], sig.args[1], types.int64)
        result = ir.Constant(ir.VectorType(I64, WIDTH), ir.Undefined)
        for lane in range(WIDTH):
            at = builder.add(start, ir.Constant(I64, lane))
            at = builder.select(builder.icmp_signed("<", at, end), at, end)
            result = builder.insert_element(result, at, ir.Constant(I32, lane))
        return result

    return LANES(first, last), codegen


def _each_address(context, builder, sig, args):
    stride = context.cast(builder, args[2], sig.args[2], types.int64)
    offset = context.cast(builder, args[3], sig.args[3], types.int64)
    for lane in range(WIDTH):
        at = builder.extract_element(args[1], ir.Constant(I32, lane))
        at = builder.add(builder.mul(at, stride), offset)
        yield lane, pointer_to(context, builder, sig.args[0], args[0], at)


@intrinsic
def gather_as(typingctx, array, at, stride, offset, like):
    """``array[at * stride + offset]`` for the eight indices ``at``, in the element type of the array ``like``."""
    element = like.dtype

    def codegen(context, builder, sig, args):
        result = ir.Constant(vector_ir(element), ir.Undefined)
        for lane, pointer in _each_address(context, builder, sig, args):
            number = builder.load(pointer)
            if isinstance(array.dtype, types.Integer):
                number = builder.sitofp(number, element_ir(element))
            result = builder.insert_element(result, number, ir.Constant(I32, lane))
        return result

    return Vec(element)(array, at, stride, offset, like), codegen


@intrinsic
def gather(typingctx, array, at, stride, offset):
    """``array[at * stride + offset]`` for the eight indices ``at``, of a contiguous 1-D float array."""

    def codegen(context, builder, sig, args):
        result = ir.Constant(vector_ir(sig.args[0].dtype), ir.Undefined)
        for lane, pointer in _each_address(context, builder, sig, args):
            result = builder.insert_element(result, builder.load(pointer), ir.Constant(I32, lane))
        return result

    return Vec(array.dtype)(array, at, stride, offset), codegen


@intrinsic
def scatter(typingctx, array, at, stride, offset, value):
    """``array[at * stride + offset] = value`` for the eight indices ``at``; integers are rounded down."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        for lane, pointer in _each_address(context, builder, sig, args):
            number = builder.extract_element(args[4], ir.Constant(I32, lane))
            if isinstance(dtype, types.Integer):
                number = builder.fptosi(number, ir.IntType(dtype.bitwidth))
            builder.store(number, pointer)
        return context.get_dummy_value()

    return types.void(array, at, stride, offset, value), codegen


@intrinsic
def halves_added(typingctx, value):
    """The upper four lanes of a vector added to the lower four; the sums are in both halves of the result."""

    def codegen(context, builder, sig, args):
        undefined = ir.Constant(args[0].type, ir.Undefined)
        half = WIDTH // 2

        def repeated(first):
            order = ir.Constant(ir.VectorType(I32, WIDTH), [first + lane % half for lane in range(WIDTH)])
            return builder.shuffle_vector(args[0], undefined, order)

        return builder.fadd(repeated(0), repeated(half))

    return value(value), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Prefetch ``array[index]`` into the cache."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(pointer_to(context, builder, sig.args[0], args[0], at), byte)
        name = "llvm.prefetch.p0" if llvm_version_info[0] >= 15 else "llvm.prefetch.p0i8"
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [pointer, *(ir.Constant(I32, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, index), codegen
