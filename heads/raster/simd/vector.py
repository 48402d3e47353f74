"""Eight numbers at a time, in numba: a vector type that lowers to LLVM's `<8 x float>` (or double).

Loops over pixels and Gaussians are written with it, so that their speed does not hang on whether LLVM's
auto-vectoriser sees through index types, aliasing and trip counts. LLVM maps it to what the machine has
(one AVX register, two SSE or NEON registers), without a compiler at run time.

`Vec` values support + - * / and unary minus with vectors and scalars, comparisons with < <= > >= (giving a
`Mask`), `&` and `|` on masks, and the functions below.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 8
_FLAGS = ("contract", "reassoc", "nsz", "arcp", "afn")
_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_LOG2E = 1.4426950408889634


class Vec(types.Type):
    """Eight floats (`element` is numba's float32 or float64)."""

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


def _element_ir(element: types.Type) -> ir.Type:
    return ir.FloatType() if element == types.float32 else ir.DoubleType()


def _vector_ir(element: types.Type) -> ir.VectorType:
    return ir.VectorType(_element_ir(element), WIDTH)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, _vector_ir(fe_type.element))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), WIDTH))


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(_I64, WIDTH))


def _splat(builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
    vector = ir.VectorType(scalar.type, WIDTH)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _is_number(ty: types.Type) -> bool:
    return isinstance(ty, types.Float | types.Integer)


def _pair(left: types.Type, right: types.Type) -> Vec | None:
    if isinstance(left, Vec) and (left == right or _is_number(right)):
        return left
    if isinstance(right, Vec) and _is_number(left):
        return right
    return None


def _as_vec(context, builder, value, ty, vec: Vec):
    if isinstance(ty, Vec):
        return value
    return _splat(builder, context.cast(builder, value, ty, vec.element))


def _register_binary(op, emit, result) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2:
                vec = _pair(*args)
                if vec is not None:
                    return signature(result(vec), *args)
            return None

    def lowering(context, builder, sig, args):
        vec = _pair(*sig.args)
        left, right = (_as_vec(context, builder, a, t, vec) for a, t in zip(args, sig.args))
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
            lambda b, x, y, instruction=_instruction: getattr(b, instruction)(x, y, flags=_FLAGS),
            _same,
        )
for _op, _symbol in _COMPARISONS.items():
    _register_binary(
        getattr(operator, _op),
        lambda b, x, y, symbol=_symbol: b.fcmp_ordered(symbol, x, y),
        lambda vec: MASK,
    )


@infer_global(operator.neg)
class _NegTemplate(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if len(args) == 1 and isinstance(args[0], Vec) else None


@lower_builtin(operator.neg, Vec)
def _neg(context, builder, sig, args):
    return builder.fneg(args[0])


def _register_mask(op, name) -> None:
    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            return signature(MASK, MASK, MASK) if tuple(args) == (MASK, MASK) else None

    @lower_builtin(op, Mask, Mask)
    def _lower(context, builder, sig, args):
        return getattr(builder, name)(*args)


_register_mask(operator.and_, "and_")
_register_mask(operator.or_, "or_")


def _pointer(context, builder, array_type, array, index):
    """Address of `array[index]` of a contiguous one-dimensional array."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _vector_pointer(context, builder, array_type, array, index):
    pointer = _pointer(context, builder, array_type, array, index)
    return builder.bitcast(pointer, _vector_ir(array_type.dtype).as_pointer())


@intrinsic
def load(typingctx, array, index):
    """`array[index : index + 8]` of a contiguous 1-D float array, at any alignment."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        pointer = _vector_pointer(context, builder, sig.args[0], args[0], at)
        return builder.load(pointer, align=sig.args[0].dtype.bitwidth // 8)

    return Vec(array.dtype)(array, index), codegen


@intrinsic
def store(typingctx, array, index, value):
    """`array[index : index + 8] = value` of a contiguous 1-D float array."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        pointer = _vector_pointer(context, builder, sig.args[0], args[0], at)
        builder.store(args[2], pointer, align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def lanes(typingctx, first, last):
    """Indices `first ... first + 7`, none beyond `last`: the tail repeats the last item, which is harmless."""

    def codegen(context, builder, sig, args):
        start = context.cast(builder, args[0], sig.args[0], types.int64)
        end = context.cast(builder, args[1], sig.args[1], types.int64)
        result = ir.Constant(ir.VectorType(_I64, WIDTH), ir.Undefined)
        for lane in range(WIDTH):
            at = builder.add(start, ir.Constant(_I64, lane))
            at = builder.select(builder.icmp_signed("<", at, end), at, end)
            result = builder.insert_element(result, at, ir.Constant(_I32, lane))
        return result

    return LANES(first, last), codegen


def _each_address(context, builder, sig, args):
    stride = context.cast(builder, args[2], sig.args[2], types.int64)
    offset = context.cast(builder, args[3], sig.args[3], types.int64)
    for lane in range(WIDTH):
        at = builder.extract_element(args[1], ir.Constant(_I32, lane))
        at = builder.add(builder.mul(at, stride), offset)
        yield lane, _pointer(context, builder, sig.args[0], args[0], at)


@intrinsic
def gather_as(typingctx, array, at, stride, offset, like):
    """`array[at * stride + offset]` for the eight indices `at`, in the element type of the array `like`."""
    element = like.dtype

    def codegen(context, builder, sig, args):
        result = ir.Constant(_vector_ir(element), ir.Undefined)
        for lane, pointer in _each_address(context, builder, sig, args):
            number = builder.load(pointer)
            if isinstance(array.dtype, types.Integer):
                number = builder.sitofp(number, _element_ir(element))
            result = builder.insert_element(result, number, ir.Constant(_I32, lane))
        return result

    return Vec(element)(array, at, stride, offset, like), codegen


@intrinsic
def gather(typingctx, array, at, stride, offset):
    """`array[at * stride + offset]` for the eight indices `at`, of a contiguous 1-D float array."""

    def codegen(context, builder, sig, args):
        result = ir.Constant(_vector_ir(sig.args[0].dtype), ir.Undefined)
        for lane, pointer in _each_address(context, builder, sig, args):
            result = builder.insert_element(result, builder.load(pointer), ir.Constant(_I32, lane))
        return result

    return Vec(array.dtype)(array, at, stride, offset), codegen


@intrinsic
def scatter(typingctx, array, at, stride, offset, value):
    """`array[at * stride + offset] = value` for the eight indices `at`; integers are rounded down."""

    def codegen(context, builder, sig, args):
        dtype = sig.args[0].dtype
        for lane, pointer in _each_address(context, builder, sig, args):
            number = builder.extract_element(args[4], ir.Constant(_I32, lane))
            if isinstance(dtype, types.Integer):
                number = builder.fptosi(number, ir.IntType(dtype.bitwidth))
            builder.store(number, pointer)
        return context.get_dummy_value()

    return types.void(array, at, stride, offset, value), codegen


@intrinsic
def splat(typingctx, array, number):
    """A vector of eight times `number`, in the element type of `array`."""

    def codegen(context, builder, sig, args):
        return _splat(builder, context.cast(builder, args[1], sig.args[1], sig.args[0].dtype))

    return Vec(array.dtype)(array, number), codegen


@intrinsic
def ramp(typingctx, array):
    """(0, 1, ... 7) in the element type of `array`."""

    def codegen(context, builder, sig, args):
        return ir.Constant(_vector_ir(sig.args[0].dtype), [float(lane) for lane in range(WIDTH)])

    return Vec(array.dtype)(array), codegen


@intrinsic
def fma(typingctx, x, y, z):
    """x*y + z, fused where the machine can; each may be a vector or a number, one must be a vector."""
    vec = next((t for t in (x, y, z) if isinstance(t, Vec)), None)
    if vec is None:
        return None

    def codegen(context, builder, sig, args):
        operands = [_as_vec(context, builder, a, t, vec) for a, t in zip(args, sig.args)]
        return _call(builder, "llvm.fmuladd", *operands)

    return vec(x, y, z), codegen


def _call(builder, name, *operands):
    kind = operands[0].type
    suffix = f"v{WIDTH}f{32 if isinstance(kind.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [o.type for o in operands]), f"{name}.{suffix}"
    )
    return builder.call(function, operands)


def _unary(name: str, doc: str):
    @intrinsic
    def function(typingctx, x):
        if not isinstance(x, Vec):
            return None

        def codegen(context, builder, sig, args):
            return _call(builder, name, args[0])

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
    """exp(x): in float32 by powers of two (relative error 2e-7, x cut to [-87, 88]); libm in float64."""

    def codegen(context, builder, sig, args):
        if x.element == types.float64:
            return _call(builder, "llvm.exp", args[0])
        kind = _vector_ir(x.element)

        def constant(number):
            return ir.Constant(kind, [number] * WIDTH)

        value = _call(builder, "llvm.maxnum", args[0], constant(-87.0))
        value = _call(builder, "llvm.minnum", value, constant(88.0))
        power = _call(builder, "llvm.floor", _call(builder, "llvm.fmuladd", value, constant(_LOG2E), constant(0.5)))
        # ln 2 in two parts, so that the remainder keeps all its bits
        rest = _call(builder, "llvm.fmuladd", power, constant(-0.693359375), value)
        rest = _call(builder, "llvm.fmuladd", power, constant(2.12194440e-4), rest)
        result = constant(1.0 / 5040)
        for coefficient in (1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0):
            result = _call(builder, "llvm.fmuladd", result, rest, constant(coefficient))
        whole = builder.fptosi(power, ir.VectorType(_I32, WIDTH))
        bias = ir.Constant(ir.VectorType(_I32, WIDTH), [127] * WIDTH)
        shift = ir.Constant(ir.VectorType(_I32, WIDTH), [23] * WIDTH)
        scale = builder.bitcast(builder.shl(builder.add(whole, bias), shift), kind)
        return builder.fmul(result, scale)

    return x(x), codegen


@intrinsic
def select(typingctx, mask, yes, no):
    """`yes` where `mask` holds, else `no`; either may be a number."""
    vec = yes if isinstance(yes, Vec) else no
    if not isinstance(mask, Mask) or not isinstance(vec, Vec):
        return None

    def codegen(context, builder, sig, args):
        a = _as_vec(context, builder, args[1], sig.args[1], vec)
        b = _as_vec(context, builder, args[2], sig.args[2], vec)
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


def _tuple_of(context, builder, ty, values):
    return context.make_tuple(builder, ty, values)


def _elements(builder, pack, count):
    return [builder.extract_value(pack, k) for k in range(count)]


@intrinsic
def splats(typingctx, array, index, like):
    """Tuple of `len(like)` vectors: eight times `array[index]`, eight times `array[index + 1]`, and so on."""
    result = types.UniTuple(Vec(array.dtype), len(like))

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        values = []
        for k in range(len(like)):
            pointer = _pointer(context, builder, sig.args[0], args[0], builder.add(at, ir.Constant(_I64, k)))
            values.append(_splat(builder, builder.load(pointer)))
        return _tuple_of(context, builder, result, values)

    return result(array, index, like), codegen


def _planes(context, builder, sig, args, count):
    """Pointers to the vectors `planes[at + k * stride]`; arguments 0, 1, 2 are planes, at, stride."""
    at = context.cast(builder, args[1], sig.args[1], types.int64)
    stride = context.cast(builder, args[2], sig.args[2], types.int64)
    for k in range(count):
        step = builder.add(at, builder.mul(stride, ir.Constant(_I64, k)))
        yield _vector_pointer(context, builder, sig.args[0], args[0], step)


@intrinsic
def add_to_planes(typingctx, planes, at, stride, weight, colors):
    """`planes[at + k * stride] += weight * colors[k]` for each channel k."""

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        values = _elements(builder, args[4], len(colors))
        for value, pointer in zip(values, _planes(context, builder, sig, args, len(colors))):
            old = builder.load(pointer, align=align)
            builder.store(_call(builder, "llvm.fmuladd", args[3], value, old), pointer, align=align)
        return context.get_dummy_value()

    return types.void(planes, at, stride, weight, colors), codegen


def _total(builder, value):
    width = WIDTH
    while width > 1:
        width //= 2
        undefined = ir.Constant(value.type, ir.Undefined)
        low = ir.Constant(ir.VectorType(_I32, width), list(range(width)))
        high = ir.Constant(ir.VectorType(_I32, width), list(range(width, 2 * width)))
        value = builder.fadd(
            builder.shuffle_vector(value, undefined, low), builder.shuffle_vector(value, undefined, high)
        )
    return builder.extract_element(value, ir.Constant(_I32, 0))


@intrinsic
def total(typingctx, x):
    """Sum of the eight lanes, in pairs (halves first)."""

    def codegen(context, builder, sig, args):
        return _total(builder, args[0])

    return x.element(x), codegen


def _totals_of_eight(builder, values):
    """One vector with the sums of eight vectors: neighbours are folded into each other, 8 -> 4 -> 2 -> 1.

    The first two folds stay within quarters of four lanes, which AVX shuffles in one instruction.
    """
    fold = ([0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15])
    halves = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    for orders in (fold, fold, halves):
        masks = [ir.Constant(ir.VectorType(_I32, WIDTH), order) for order in orders]
        values = [
            builder.fadd(builder.shuffle_vector(a, b, masks[0]), builder.shuffle_vector(a, b, masks[1]))
            for a, b in zip(values[::2], values[1::2])
        ]
    return values[0]


@intrinsic
def store_totals(typingctx, array, index, sums):
    """`array[index + k] = total(sums[k])` for a tuple of vectors."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        values = _elements(builder, args[2], len(sums))
        whole = len(values) // WIDTH * WIDTH
        for k in range(0, whole, WIDTH):
            step = builder.add(at, ir.Constant(_I64, k))
            pointer = _vector_pointer(context, builder, sig.args[0], args[0], step)
            packed = _totals_of_eight(builder, values[k : k + WIDTH])
            builder.store(packed, pointer, align=sig.args[0].dtype.bitwidth // 8)
        for k in range(whole, len(values)):
            pointer = _pointer(context, builder, sig.args[0], args[0], builder.add(at, ir.Constant(_I64, k)))
            builder.store(_total(builder, values[k]), pointer)
        return context.get_dummy_value()

    return types.void(array, index, sums), codegen


@intrinsic
def joined(typingctx, first, second):
    """One tuple of the vectors of two tuples."""
    result = types.UniTuple(first.dtype, len(first) + len(second))

    def codegen(context, builder, sig, args):
        values = _elements(builder, args[0], len(first)) + _elements(builder, args[1], len(second))
        return _tuple_of(context, builder, result, values)

    return result(first, second), codegen


@intrinsic
def store_pixels(typingctx, array, index, values):
    """Write eight pixels of `len(values)` channels, interleaved, to `array[index : index + 8 * channels]`."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        channels, element = len(values), sig.args[0].dtype
        pixels = _interleaved(builder, _elements(builder, args[2], channels))
        pointer = _pointer(context, builder, sig.args[0], args[0], at)
        pointer = builder.bitcast(pointer, pixels.type.as_pointer())
        builder.store(pixels, pointer, align=element.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, index, values), codegen


def _interleaved(builder, values):
    """All lanes of the first pixel, then of the second, ... as one long vector."""
    joined_values, count = values[0], 1
    for value in values[1:]:
        # Widen the next channel to the length of what is joined already, as a shuffle takes equal lengths.
        length = WIDTH * count
        widen = ir.Constant(ir.VectorType(_I32, length), [k if k < WIDTH else 0 for k in range(length)])
        value = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), widen)
        order = list(range(length)) + list(range(length, length + WIDTH))
        joined_values = builder.shuffle_vector(
            joined_values, value, ir.Constant(ir.VectorType(_I32, len(order)), order)
        )
        count += 1
    order = [channel * WIDTH + lane for lane in range(WIDTH) for channel in range(count)]
    undefined = ir.Constant(joined_values.type, ir.Undefined)
    return builder.shuffle_vector(joined_values, undefined, ir.Constant(ir.VectorType(_I32, len(order)), order))


@intrinsic
def load_pixels(typingctx, array, index, like):
    """Tuple of `len(like)` vectors: eight pixels of interleaved channels from `array[index]` on."""
    result = types.UniTuple(Vec(array.dtype), len(like))

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        channels, element = len(like), sig.args[0].dtype
        kind = ir.VectorType(_element_ir(element), WIDTH * channels)
        pointer = builder.bitcast(_pointer(context, builder, sig.args[0], args[0], at), kind.as_pointer())
        pixels = builder.load(pointer, align=element.bitwidth // 8)
        values = []
        for channel in range(channels):
            order = [lane * channels + channel for lane in range(WIDTH)]
            mask = ir.Constant(ir.VectorType(_I32, WIDTH), order)
            values.append(builder.shuffle_vector(pixels, ir.Constant(kind, ir.Undefined), mask))
        return _tuple_of(context, builder, result, values)

    return result(array, index, like), codegen


@intrinsic
def load_planes(typingctx, planes, at, stride, like):
    """Tuple of the vectors `planes[at + k * stride]` for k below `len(like)`."""
    result = types.UniTuple(Vec(planes.dtype), len(like))

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        pointers = _planes(context, builder, sig, args, len(like))
        return _tuple_of(context, builder, result, [builder.load(pointer, align=align) for pointer in pointers])

    return result(planes, at, stride, like), codegen


@intrinsic
def store_planes(typingctx, planes, at, stride, values):
    """`planes[at + k * stride] = values[k]` for each vector k."""

    def codegen(context, builder, sig, args):
        align = sig.args[0].dtype.bitwidth // 8
        vectors = _elements(builder, args[3], len(values))
        for value, pointer in zip(vectors, _planes(context, builder, sig, args, len(values))):
            builder.store(value, pointer, align=align)
        return context.get_dummy_value()

    return types.void(planes, at, stride, values), codegen


@intrinsic
def fma_tuples(typingctx, x, weight, z):
    """Tuple of `x[k] * weight + z[k]` for a vector weight."""

    def codegen(context, builder, sig, args):
        pairs = zip(_elements(builder, args[0], len(x)), _elements(builder, args[2], len(x)))
        values = [_call(builder, "llvm.fmuladd", a, args[1], b) for a, b in pairs]
        return _tuple_of(context, builder, x, values)

    return x(x, weight, z), codegen


@intrinsic
def dot_tuples(typingctx, x, y):
    """Sum over k of `x[k] * y[k]`."""

    def codegen(context, builder, sig, args):
        values = list(zip(_elements(builder, args[0], len(x)), _elements(builder, args[1], len(x))))
        result = builder.fmul(*values[0])
        for a, b in values[1:]:
            result = _call(builder, "llvm.fmuladd", a, b, result)
        return result

    return x.dtype(x, y), codegen


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for `array[index]` to be in the cache soon."""

    def codegen(context, builder, sig, args):
        at = context.cast(builder, args[1], sig.args[1], types.int64)
        byte = ir.IntType(8).as_pointer()
        pointer = builder.bitcast(_pointer(context, builder, sig.args[0], args[0], at), byte)
        name = "llvm.prefetch.p0" if llvm_version_info[0] >= 15 else "llvm.prefetch.p0i8"
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(function, [pointer, *(ir.Constant(_I32, n) for n in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, index), codegen


@intrinsic
def zeros_like(typingctx, colors):
    """A tuple of zero vectors as long as `colors`, a tuple of vectors."""

    def codegen(context, builder, sig, args):
        zero = ir.Constant(_vector_ir(colors.dtype.element), [0.0] * WIDTH)
        return _tuple_of(context, builder, colors, [zero] * len(colors))

    return colors(colors), codegen


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
            return _call(builder, "llvm.exp", builder.fneg(args[0]))
        c = [ir.Constant(_vector_ir(s.element), [coefficient] * WIDTH) for coefficient in _EXP_ROOT]
        x = args[0]
        # Pairs first (Estrin): a third shorter chain than Horner's for one more multiplication.
        square = builder.fmul(x, x)
        high = _call(builder, "llvm.fmuladd", c[5], x, c[4])
        middle = _call(builder, "llvm.fmuladd", c[3], x, c[2])
        low = _call(builder, "llvm.fmuladd", c[1], x, c[0])
        value = _call(builder, "llvm.fmuladd", _call(builder, "llvm.fmuladd", high, square, middle), square, low)
        for _ in range(3):
            value = builder.fmul(value, value)
        return value

    return s(s), codegen


def packed_instructions(assembly: str, register: str = "ymm") -> int:
    """How many vector arithmetic instructions a kernel's machine code holds: what the speed test counts."""
    return sum(
        1
        for line in assembly.splitlines()
        if register in line and line.split()[0].endswith("ps") and not line.split()[0].startswith("vmov")
    )


FLOATS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}
