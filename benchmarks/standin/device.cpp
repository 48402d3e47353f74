// A stand-in accelerator: the device type PrivateUse1 in host memory, as strict as CUDA.
//
// Every operator runs its CPU kernel on the same memory. What CUDA refuses is refused: operands on two devices, a
// generator of another device, a dtype that the device lacks. New memory is filled with NaNs. Launches, copies and
// waits of the host are counted, by operator.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Functions.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace standin {

using at::Tensor;
using c10::Device;
using c10::DeviceType;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::IValue;

const Device kDevice(DeviceType::PrivateUse1, 0);

// ------------------------------------------------------------------------------------------------------- counting

std::mutex count_lock;
std::map<std::string, int64_t> counts;  // "launch/aten::mul.Tensor", "wait/...", "to_host/...", "to_device/..."
std::atomic<bool> refuse_double{true};
std::atomic<int64_t> allocated{0};
std::atomic<int64_t> peak{0};

void count(const char* kind, const std::string& name) {
  std::lock_guard<std::mutex> guard(count_lock);
  counts[std::string(kind) + "/" + name] += 1;
}

// CUDA's kernels of these need a size that only the device knows: the host waits.
const std::set<std::string> kWaits = {
    "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::_unique", "aten::equal", "aten::repeat_interleave", "aten::bincount", "aten::_linalg_check_errors",
    "aten::nonzero_numpy", "aten::is_nonzero"};

// ----------------------------------------------------------------------------------------------------- allocators

void release(void* context) {
  auto* block = static_cast<char*>(context);
  int64_t bytes;
  std::memcpy(&bytes, block, sizeof(bytes));
  allocated -= bytes;
  c10::free_cpu(block);
}

struct DeviceAllocator final : c10::Allocator {
  static constexpr size_t kHeader = 64;  // keeps the data aligned as CPU kernels want it

  c10::DataPtr allocate(size_t bytes) override {
    auto* block = static_cast<char*>(c10::alloc_cpu(bytes + kHeader));
    const auto size = static_cast<int64_t>(bytes);
    std::memcpy(block, &size, sizeof(size));
    std::memset(block + kHeader, 0xff, bytes);  // NaN in every floating dtype: memory of a GPU is not zero either
    const auto now = allocated += size;
    auto before = peak.load();
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
    return {block + kHeader, block, &release, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr;  // the context is not the data
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
DeviceAllocator device_allocator;
REGISTER_ALLOCATOR(DeviceType::PrivateUse1, &device_allocator);

std::mutex pinned_lock;
std::map<const char*, size_t> pinned;

void release_pinned(void* pointer) {
  {
    std::lock_guard<std::mutex> guard(pinned_lock);
    pinned.erase(static_cast<const char*>(pointer));
  }
  c10::free_cpu(pointer);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> guard(pinned_lock);
    pinned[static_cast<const char*>(data)] = bytes;
    return {data, data, &release_pinned, Device(DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return &release_pinned;
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};
PinnedAllocator pinned_allocator;

bool is_pinned(const void* pointer) {
  std::lock_guard<std::mutex> guard(pinned_lock);
  const auto* address = static_cast<const char*>(pointer);
  auto next = pinned.upper_bound(address);
  if (next == pinned.begin()) {
    return false;
  }
  --next;
  return address < next->first + next->second;
}

// ----------------------------------------------------------------------------------------------- guard, generator

struct Guard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override {
    return DeviceType::PrivateUse1;
  }
  Device exchangeDevice(Device) const override {
    return kDevice;
  }
  Device getDevice() const override {
    return kDevice;
  }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}
  c10::Stream getStream(Device) const override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::Stream getDefaultStream(Device) const override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::Stream getNewStream(Device, int) const override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::Stream exchangeStream(c10::Stream) const override {
    return c10::Stream(c10::Stream::DEFAULT, kDevice);
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return 1;
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {
    count("wait", "synchronize");
  }
  void synchronizeEvent(void*) const override {
    count("wait", "synchronize");
  }
  void synchronizeDevice(const c10::DeviceIndex) const override {
    count("wait", "synchronize");
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(uint64_t seed) : at::CPUGeneratorImpl(seed) {
    device_ = kDevice;
    key_set_ = DispatchKeySet(DispatchKey::PrivateUse1);
  }
};

at::Generator& default_generator() {
  static at::Generator generator = at::make_generator<Generator>(uint64_t{67280421310721});
  return generator;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return true;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  c10::DeviceIndex deviceCount() const override {
    return 1;
  }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex getCurrentDevice() const override {
    return 0;
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override {
    return 0;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override {
    return 0;
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    return default_generator();
  }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<Generator>(c10::default_rng_seed_val);
  }
  Device getDeviceFromPtr(void*) const override {
    return kDevice;
  }
  bool isPinnedPtr(const void* pointer) const override {
    return is_pinned(pointer);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    return &pinned_allocator;
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto data = device_allocator.allocate(bytes);
    std::memcpy(data.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(data));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

// --------------------------------------------------------------------------------------- one memory, two devices

// A tensor of another device over the same storage; keeps the storage alive.
Tensor reinterpret(const Tensor& tensor, Device device, DispatchKey key) {
  const auto& storage = tensor.storage();
  auto* owner = new c10::Storage(storage);
  c10::DataPtr data(
      const_cast<void*>(storage.data()), owner, [](void* held) { delete static_cast<c10::Storage*>(held); }, device);
  c10::Allocator* allocator = device.is_cpu() ? c10::GetAllocator(DeviceType::CPU) : &device_allocator;
  auto impl = c10::make_intrusive<c10::StorageImpl>(
      c10::StorageImpl::use_byte_size_t(), storage.nbytes(), std::move(data), allocator, /*resizable=*/true);
  auto result = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(impl)), DispatchKeySet(key), tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  if (tensor.is_conj()) {
    result._set_conj(true);
  }
  if (tensor.is_neg()) {
    result._set_neg(true);
  }
  return result;
}

Tensor on_cpu(const Tensor& tensor) {
  TORCH_CHECK(tensor.layout() == c10::kStrided, "standin: only strided tensors, got ", tensor.layout());
  return reinterpret(tensor, Device(DeviceType::CPU), DispatchKey::CPU);
}

Tensor on_device(const Tensor& tensor) {
  return reinterpret(tensor, kDevice, DispatchKey::PrivateUse1);
}

// A view that a CPU kernel made of `base`'s memory, as a view of `base`.
Tensor view_on_device(const Tensor& base, const Tensor& view) {
  auto result =
      at::detail::make_tensor<c10::TensorImpl>(c10::Storage(base.storage()), base.key_set(), view.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
  return result;
}

void check_dtype(c10::ScalarType dtype, const std::string& name) {
  TORCH_CHECK_TYPE(
      !refuse_double || (dtype != at::kDouble && dtype != at::kComplexDouble), name,
      ": the device has no float64; use float32, or compute it on the CPU");
}

// ------------------------------------------------------------------------------------------------------- fallback

struct Call {
  const c10::OperatorHandle& op;
  std::string name;       // aten::index.Tensor
  std::string base;       // aten::index
  bool indexes;           // takes index tensors, which CUDA lets lie on the CPU
  bool joins;             // cat and stack take no scalar of the CPU
  std::vector<std::pair<size_t, Tensor>> inputs;  // argument, tensor on the device
  std::vector<std::pair<Tensor, Tensor>> aliases;  // tensor on the device, its alias on the CPU
};

Tensor take(Call& call, size_t argument, const Tensor& tensor) {
  if (!tensor.defined()) {
    return tensor;
  }
  if (tensor.device() == kDevice) {
    check_dtype(tensor.scalar_type(), call.name);
    auto alias = on_cpu(tensor);
    call.inputs.emplace_back(argument, tensor);
    call.aliases.emplace_back(tensor, alias);
    return alias;
  }
  if (call.indexes && argument > 0 && !tensor.is_floating_point()) {
    count("to_device", call.name);  // CUDA copies the index, and waits
    return tensor;
  }
  TORCH_CHECK(
      tensor.dim() == 0 && tensor.device().is_cpu() && !call.joins,
      "Expected all tensors to be on the same device, but found at least two devices, ", kDevice, " and ",
      tensor.device(), "! (", call.name, ", argument ", call.op.schema().arguments()[argument].name(), ")");
  return tensor;
}

IValue take_value(Call& call, size_t argument, const IValue& value) {
  if (value.isTensor()) {
    const auto& tensor = value.toTensor();
    if (call.indexes && argument > 0 && tensor.defined() && tensor.scalar_type() == at::kBool) {
      count("wait", call.name);
    }
    return take(call, argument, tensor);
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(take(call, argument, tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
      if (tensor.has_value() && tensor->defined() && tensor->scalar_type() == at::kBool) {
        count("wait", call.name);  // a mask becomes indices by nonzero
      }
      list.push_back(tensor.has_value() ? std::optional<Tensor>(take(call, argument, *tensor)) : std::nullopt);
    }
    return list;
  }
  if (value.isDevice()) {
    return Device(DeviceType::CPU);
  }
  return value;
}

// The device tensor that the CPU result stands for.
Tensor give(Call& call, const c10::Argument& declared, const Tensor& result) {
  if (!result.defined() || result.device() == kDevice) {
    return result;
  }
  for (auto& [tensor, alias] : call.aliases) {
    if (alias.is_same(result)) {
      if (tensor.sizes() != result.sizes()) {  // an out= argument that the kernel has resized
        tensor.set_(on_device(result));
      }
      return tensor;
    }
  }
  if (declared.alias_info() != nullptr) {
    TORCH_CHECK(!call.inputs.empty(), call.name, ": a view of nothing");
    return view_on_device(call.inputs.front().second, result);
  }
  check_dtype(result.scalar_type(), call.name);
  return on_device(result);
}

IValue give_value(Call& call, const c10::Argument& declared, const IValue& value) {
  if (value.isTensor()) {
    return give(call, declared, value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(give(call, declared, tensor));
    }
    return list;
  }
  return value;
}

void copy_random(at::CPUGeneratorImpl* from, at::CPUGeneratorImpl* to) {
  to->set_engine(from->engine());
  to->set_next_float_normal_sample(from->next_float_normal_sample());
  to->set_next_double_normal_sample(from->next_double_normal_sample());
}

// Runs the CPU kernel with the device's random numbers, which the CPU's generator must not feel.
void run_random(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t first, at::Generator generator) {
  const auto& arguments = op.schema().arguments();
  auto* device = static_cast<at::CPUGeneratorImpl*>(generator.unsafeGetGeneratorImpl());
  bool handed = false;
  at::Generator twin = at::make_generator<at::CPUGeneratorImpl>(uint64_t{0});
  auto* own = static_cast<at::CPUGeneratorImpl*>(twin.unsafeGetGeneratorImpl());
  std::lock_guard<std::mutex> guard(generator.mutex());
  copy_random(device, own);
  for (size_t k = 0; k < arguments.size(); ++k) {
    if (arguments[k].type()->str().find("Generator") != std::string::npos) {
      (*stack)[first + k] = twin;
      handed = true;
    }
  }
  if (handed) {
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
    copy_random(own, device);
    return;
  }
  const auto& shared = at::detail::getDefaultCPUGenerator();  // kernels without an argument for it, such as dropout
  auto* host = static_cast<at::CPUGeneratorImpl*>(shared.unsafeGetGeneratorImpl());
  at::Generator kept = at::make_generator<at::CPUGeneratorImpl>(uint64_t{0});
  auto* before = static_cast<at::CPUGeneratorImpl*>(kept.unsafeGetGeneratorImpl());
  copy_random(host, before);
  copy_random(own, host);
  op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  copy_random(host, device);
  copy_random(before, host);
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t number = schema.arguments().size();
  const size_t first = stack->size() - number;
  const std::string base = schema.name();
  Call call{op, schema.overload_name().empty() ? base : base + "." + schema.overload_name(), base,
            base.rfind("aten::index", 0) == 0 || base == "aten::_index_put_impl_" ||
                base == "aten::_unsafe_index" || base == "aten::_unsafe_index_put",
            base == "aten::cat" || base == "aten::stack", {}, {}};
  call.indexes = call.indexes && base.find("index_add") == std::string::npos &&
                 base.find("index_copy") == std::string::npos && base.find("index_select") == std::string::npos &&
                 base.find("index_fill") == std::string::npos && base.find("index_reduce") == std::string::npos;
  at::Generator generator = default_generator();
  for (size_t k = 0; k < number; ++k) {
    const IValue& value = (*stack)[first + k];
    if (value.isGenerator()) {
      generator = value.toGenerator();
      TORCH_CHECK(
          generator.device() == kDevice, "Expected a '", kDevice.type(), "' device type for generator but found '",
          generator.device().type(), "' (", call.name, ")");
    }
    (*stack)[first + k] = take_value(call, k, value);
  }
  bool view = !schema.returns().empty() && schema.returns()[0].alias_info() != nullptr &&
              !schema.returns()[0].alias_info()->isWrite();
  if (!view) {
    count("launch", call.name);
  }
  if (kWaits.count(base)) {
    count("wait", call.name);
  }
  if (op.hasTag(at::Tag::nondeterministic_seeded)) {
    run_random(op, stack, first, generator);
  } else {
    op.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  }
  const size_t results = schema.returns().size();
  const size_t start = stack->size() - results;
  for (size_t k = 0; k < results; ++k) {
    (*stack)[start + k] = give_value(call, schema.returns()[k], (*stack)[start + k]);
  }
}

// ------------------------------------------------------------------------------- operators that no CPU kernel does

Tensor empty_memory_format(
    c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
    std::optional<Device>, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  const auto type = c10::dtype_or_default(dtype);
  check_dtype(type, "empty");
  return at::detail::empty_generic(size, &device_allocator, DispatchKeySet(DispatchKey::PrivateUse1), type, format);
}

Tensor empty_strided(
    c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype,
    std::optional<c10::Layout>, std::optional<Device>, std::optional<bool>) {
  const auto type = c10::dtype_or_default(dtype);
  check_dtype(type, "empty_strided");
  return at::detail::empty_strided_generic(
      size, stride, &device_allocator, DispatchKeySet(DispatchKey::PrivateUse1), type);
}

Tensor copy_from(const Tensor& self, const Tensor& target, bool non_blocking) {
  const bool from_device = self.device() == kDevice;
  const bool to_device = target.device() == kDevice;
  if (from_device && to_device) {
    count("launch", "aten::copy_");
  } else if (from_device) {
    count("to_host", "aten::copy_");
  } else {
    count(non_blocking && is_pinned(self.const_data_ptr()) ? "to_device_async" : "to_device", "aten::copy_");
  }
  Tensor source = from_device ? on_cpu(self) : self;
  Tensor goal = to_device ? on_cpu(target) : target;
  goal.copy_(source);
  return target;
}

const Tensor& resize_to(
    const Tensor& self, c10::IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  if (format.has_value() && *format != c10::MemoryFormat::Preserve) {
    impl->empty_tensor_restride(*format);
  }
  const size_t bytes = (self.numel() + self.storage_offset()) * self.itemsize();
  if (bytes > self.storage().nbytes()) {
    at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
  }
  return self;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& target) {
  if (self.sizes() != target.sizes()) {
    target.resize_(self.sizes());
  }
  return copy_from(self, target, false);
}

c10::Scalar local_scalar_dense(const Tensor& self) {
  count("wait", "aten::_local_scalar_dense");
  return at::_local_scalar_dense(on_cpu(self));
}

Tensor& set_storage(
    Tensor& self, c10::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  std::vector<int64_t> steps(stride.begin(), stride.end());
  if (steps.empty() && !size.empty()) {
    int64_t step = 1;
    steps.resize(size.size());
    for (size_t k = size.size(); k-- > 0;) {
      steps[k] = step;
      step *= std::max<int64_t>(size[k], 1);
    }
  }
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, steps, offset);
  return self;
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}

Tensor& set_whole(Tensor& self, c10::Storage source) {
  const auto length = static_cast<int64_t>(source.nbytes() / self.itemsize());
  return set_storage(self, std::move(source), 0, {length}, {1});
}

Tensor& set_nothing(Tensor& self) {
  return set_tensor(self, at::empty({0}, self.options()));
}

Tensor convolve(
    const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
    int64_t groups) {
  count("launch", "aten::convolution");
  TORCH_CHECK(
      weight.device() == kDevice && input.device() == kDevice, "Input type (", input.device(),
      ") and weight type (", weight.device(), ") should be the same");
  std::optional<Tensor> host_bias;
  if (bias.has_value() && bias->defined()) {
    host_bias = on_cpu(*bias);
  }
  return on_device(at::convolution(
      on_cpu(input), on_cpu(weight), host_bias, stride, padding, dilation, transposed, output_padding, groups));
}

std::tuple<Tensor, Tensor, Tensor> convolve_backward(
    const Tensor& gradient, const Tensor& input, const Tensor& weight, c10::IntArrayRef stride,
    c10::IntArrayRef padding, c10::IntArrayRef dilation, bool transposed, c10::IntArrayRef output_padding,
    int64_t groups, std::array<bool, 3> mask) {
  count("launch", "aten::convolution_backward");
  const int64_t channels = gradient.size(1);
  auto [by_input, by_weight, by_bias] = at::convolution_backward(
      on_cpu(gradient), on_cpu(input), on_cpu(weight), c10::IntArrayRef(channels), stride, padding, dilation,
      transposed, output_padding, groups, mask);
  const auto move = [](const Tensor& tensor) { return tensor.defined() ? on_device(tensor) : tensor; };
  return {move(by_input), move(by_weight), move(by_bias)};
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty_memory_format);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize_to);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("set_.source_Storage", &set_whole);
  m.impl("set_", &set_nothing);
  m.impl("convolution_overrideable", &convolve);
  m.impl("convolution_backward_overrideable", &convolve_backward);
}

// CUDA has one kernel for each of these; elsewhere torch would take them apart.
bool fused_on_cuda(const std::string& name) {
  static const std::set<std::string> kNames = {
      "aten::native_layer_norm", "aten::native_group_norm", "aten::_softmax", "aten::native_dropout",
      "aten::_fused_adamw_", "aten::_fused_adam_"};
  return name.rfind("aten::_foreach_", 0) == 0 || kNames.count(name) > 0;
}

void register_fused() {
  static std::vector<std::unique_ptr<torch::Library>> libraries;
  auto library = std::make_unique<torch::Library>(
      torch::Library::IMPL, "aten", DispatchKey::PrivateUse1, __FILE__, __LINE__);
  for (const auto& operator_name : c10::Dispatcher::singleton().getAllOpNames()) {
    if (fused_on_cuda(operator_name.name)) {
      const auto full = operator_name.overload_name.empty()
          ? operator_name.name
          : operator_name.name + "." + operator_name.overload_name;
      library->impl(full.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
    }
  }
  libraries.push_back(std::move(library));
}

// ------------------------------------------------------------------------------------------------ seen from Python

void start() {
  static Hooks hooks;
  static std::once_flag once;
  std::call_once(once, [] {
    at::RegisterPrivateUse1HooksInterface(&hooks);
    register_fused();
  });
}

c10::Dict<std::string, int64_t> read_counts() {
  std::lock_guard<std::mutex> guard(count_lock);
  c10::Dict<std::string, int64_t> result;
  for (const auto& [name, number] : counts) {
    result.insert(name, number);
  }
  return result;
}

void reset_counts() {
  std::lock_guard<std::mutex> guard(count_lock);
  counts.clear();
}

void reset_peak() {
  peak = allocated.load();
}

void set_seed(int64_t seed) {
  std::lock_guard<std::mutex> guard(default_generator().mutex());
  default_generator().set_current_seed(static_cast<uint64_t>(seed));
}

Tensor get_random_state() {
  std::lock_guard<std::mutex> guard(default_generator().mutex());
  return default_generator().get_state();
}

void set_random_state(const Tensor& state) {
  std::lock_guard<std::mutex> guard(default_generator().mutex());
  default_generator().set_state(state);
}

TORCH_LIBRARY(standin, m) {
  m.def("start", &start);
  m.def("counts", &read_counts);
  m.def("reset_counts", &reset_counts);
  m.def("refuse_double(bool value) -> ()", [](bool value) { refuse_double = value; });
  m.def("peak() -> int", []() { return peak.load(); });
  m.def("allocated() -> int", []() { return allocated.load(); });
  m.def("reset_peak", &reset_peak);
  m.def("set_seed", &set_seed);
  m.def("get_random_state", &get_random_state);
  m.def("set_random_state", &set_random_state);
  m.def("synchronize() -> ()", []() { count("wait", "synchronize"); });
  // For kernels that are played on the host: the same memory under the other device's name, not counted.
  m.def("host_alias(Tensor tensor) -> Tensor", [](const Tensor& tensor) { return on_cpu(tensor); });
  m.def("device_alias(Tensor tensor) -> Tensor", [](const Tensor& tensor) { return on_device(tensor); });
  m.def("note(str kind, str name) -> ()", [](const std::string& kind, const std::string& name) {
    count(kind.c_str(), name);
  });
}

}  // namespace standin
