// A device "pretend" whose memory is the CPU's, for machines without an accelerator: operations run on the CPU, and an operation
// that gets tensors of both devices is refused, as on a GPU.
#include <torch/extension.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/set_native.h>
#include <c10/core/impl/alloc_cpu.h>
#include <cstring>
#include <mutex>
#include <set>

// What would make a host wait for a GPU, by its name: `reads` of the device's values, `writes` of the host's into it; and how many
// operations ran on it. Autograd runs in threads of its own.
struct Traffic {
  std::vector<std::string> reads, writes;
  int64_t operations = 0;
};
static Traffic traffic;
static std::mutex traffic_lock;
static bool reads_refused = false;
static thread_local bool inside = false;  // an operation that is already counted, and copies between its two names

struct Inside {
  bool outer = inside;
  Inside() { inside = true; }
  ~Inside() { inside = outer; }
};
static void count_operation() {
  std::lock_guard<std::mutex> hold(traffic_lock);
  ++traffic.operations;
}
static void count_read(const std::string& name) {
  std::lock_guard<std::mutex> hold(traffic_lock);
  TORCH_CHECK(!reads_refused, "the host waits for the device here (", name, ")");
  traffic.reads.push_back(name);
}
static void count_write(const std::string& name) {
  std::lock_guard<std::mutex> hold(traffic_lock);
  traffic.writes.push_back(name);
}

struct Memory final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    return {data, data, &c10::free_cpu, at::Device(at::kPrivateUse1, 0)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &c10::free_cpu; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};
static Memory memory;
REGISTER_ALLOCATOR(c10::DeviceType::PrivateUse1, &memory);
static const c10::DispatchKeySet keys(c10::DispatchKey::PrivateUse1);

// As on MPS. What needs 64 bits is computed on the CPU.
static at::ScalarType supported(std::optional<at::ScalarType> dtype) {
  const auto type = c10::dtype_or_default(dtype);
  TORCH_CHECK_TYPE(type != at::kDouble && type != at::kComplexDouble, "Cannot convert a pretend Tensor to float64 dtype: the device has none");
  return type;
}
static at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
                        std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, keys, supported(dtype), format);
}
static at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                                std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, keys, supported(dtype));
}
// The same memory, seen as the CPU's.
static at::Tensor here(const at::Tensor& t) {
  if (!t.is_privateuseone()) return t;
  return at::from_blob(t.storage().mutable_data(), {static_cast<int64_t>(t.storage().nbytes() / std::max<size_t>(1, t.element_size()))},
                       [keep = t](void*) {}, at::TensorOptions().dtype(t.dtype()))
      .as_strided(t.sizes(), t.strides(), t.storage_offset());
}
static at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  if (from.is_privateuseone() && from.scalar_type() != to.scalar_type()) supported(to.scalar_type());  // it is cast on the device
  if (!inside) {
    if (!to.is_privateuseone()) count_read("aten::_copy_from");
    else if (!from.is_privateuseone()) count_write("aten::_copy_from");
    else count_operation();
  }
  here(to).copy_(here(from));
  return to;
}
static at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());  // a view that keeps its size keeps its strides
  here(to).copy_(here(from));
  return to;
}
static const at::Tensor& resize(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto wanted = C10_AS_INTARRAYREF_SLOW(size);
  if (self.sizes() == wanted) return self;
  auto* impl = self.unsafeGetTensorImpl();
  int64_t count = 1; for (auto n : wanted) count *= n;
  size_t bytes = (count + self.storage_offset()) * self.element_size();
  if (bytes > self.storage().nbytes()) {
    auto fresh = memory.allocate(bytes);
    if (self.storage().nbytes()) std::memcpy(fresh.get(), self.storage().data(), self.storage().nbytes());
    self.storage().set_data_ptr_noswap(std::move(fresh));
    self.storage().unsafeGetStorageImpl()->set_nbytes(bytes);
  }
  impl->set_sizes_contiguous(wanted);
  return self;
}
static at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }
static at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> offset) {
  std::optional<int64_t> at_ = offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt;
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), at_);
}
static at::Tensor unfold(const at::Tensor& self, int64_t dimension, int64_t size, int64_t step) { return at::native::unfold(self, dimension, size, step); }
static at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}
static at::Scalar local_scalar(const at::Tensor& self) {
  count_read("aten::_local_scalar_dense");
  return here(self).item();
}

// What the CPU's operations get, without a copy. They may let a result grow, which then has memory of its own.
static std::vector<at::Tensor> to_cpu(at::TensorList tensors) {
  std::vector<at::Tensor> found;
  for (const at::Tensor& t : tensors) {
    if (!t.is_privateuseone()) { found.push_back(t.cpu()); continue; }
    c10::DataPtr data(t.storage().mutable_data(), new at::Tensor(t), [](void* keep) { delete static_cast<at::Tensor*>(keep); }, at::kCPU);
    c10::Storage same(c10::Storage::use_byte_size_t(), t.storage().nbytes(), std::move(data), c10::GetCPUAllocator(), true);
    found.push_back(at::empty({0}, t.options().device(at::kCPU)).set_(same, t.storage_offset(), t.sizes(), t.strides()));
  }
  return found;
}

static at::Tensor there(const at::Tensor& t) {
  if (!t.defined()) return t;
  auto to = at::empty(t.sizes(), t.options().device(at::Device(at::kPrivateUse1, 0)));
  here(to).copy_(t);
  return to;
}
static at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                              c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  TORCH_CHECK(x.is_privateuseone() && w.is_privateuseone() && (!bias || !bias->defined() || bias->is_privateuseone()),
              "Expected all tensors to be on the same device, but found at least two devices, pretend:0 and cpu! (aten::convolution)");
  count_operation();
  std::optional<at::Tensor> b = bias && bias->defined() ? std::optional<at::Tensor>(here(*bias)) : std::nullopt;
  return there(at::convolution_symint(here(x), here(w), b, stride, padding, dilation, transposed, output_padding, groups));
}
static std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& grad, const at::Tensor& x, const at::Tensor& w, c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
    bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups, std::array<bool, 3> mask) {
  count_operation();
  std::vector<c10::SymInt> bias_size = {grad.sym_size(1)};
  auto [gx, gw, gb] = at::convolution_backward_symint(here(grad), here(x), here(w), c10::SymIntArrayRef(bias_size), stride, padding, dilation, transposed, output_padding, groups, mask);
  return {there(gx), there(gw), there(gb)};
}
// Results whose size depends on values: a GPU's size is not known before these are.
static const std::set<std::string> sized_by_values = {
    "aten::nonzero", "aten::masked_select", "aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
    "aten::unique_dim_consecutive", "aten::bincount"};
static void count(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto& arguments = op.schema().arguments();
  bool read = sized_by_values.count(name) > 0;
  for (const auto& result : op.schema().returns())  // a bool, such as that of torch.equal
    if (result.type()->kind() != c10::TypeKind::TensorType && result.type()->kind() != c10::TypeKind::ListType) read = true;
  if (name == "aten::repeat_interleave") read = torch::jit::peek(*stack, arguments.size() - 1, arguments.size()).isNone();
  bool masked = false; bool number = false;
  const bool put = name.find("index_put") != std::string::npos;  // aten::index prepares its places by operations of their own
  for (size_t i = 0; put && i < arguments.size(); ++i) {
    const auto& value = torch::jit::peek(*stack, i, arguments.size());
    // x[mask] = number is a masked_fill.
    if (arguments[i].name() == "values") number = value.toTensor().numel() == 1;
    if (arguments[i].name() != "indices") continue;
    for (const c10::IValue& place : value.toListRef()) {
      if (!place.isTensor()) continue;
      masked |= place.toTensor().scalar_type() == at::kBool && place.toTensor().is_privateuseone();
      if (place.toTensor().is_cpu()) count_write(name);
    }
  }
  count_operation();
  if (read || (masked && !number)) count_read(name);
}
// A GPU takes from the CPU single numbers and the places of x[places], and nothing else; nor can it write into the CPU's memory.
static void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& name = op.schema().name();
  const auto& arguments = op.schema().arguments();
  bool there = false; bool cpu = false; bool written = false; bool generator = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = torch::jit::peek(*stack, i, arguments.size());
    const bool writes = arguments[i].alias_info() && arguments[i].alias_info()->isWrite();
    auto look = [&](const at::Tensor& t) {
      if (!t.defined()) return;
      if (t.is_privateuseone()) there = true;
      else if (t.is_cpu()) { cpu |= t.dim() > 0; written |= writes; }
    };
    if (value.isGenerator()) generator |= value.toGenerator().device().is_cpu();
    else if (value.isTensor()) look(value.toTensor());
    else if (value.isTensorList()) for (const at::Tensor& t : value.toTensorVector()) look(t);
    else if (value.isList())  // optional tensors: the places
      for (const c10::IValue& place : value.toListRef()) if (place.isTensor() && place.toTensor().is_privateuseone()) there = true;
  }
  TORCH_CHECK(!(there && generator), "Expected a 'pretend' device type for generator but found 'cpu' (", name, ")");
  TORCH_CHECK(!(there && (cpu || written)), "Expected all tensors to be on the same device, but found at least two devices, pretend:0 and cpu! (", name, ")");
  if (!inside) count(op, stack);
  Inside counted;
  at::native::cpu_fallback(op, stack);
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_to_cpu", &to_cpu);
  m.impl("resize_", &resize);
  m.impl("view", &view);
  m.impl("as_strided", &as_strided);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("unfold", &unfold);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}
// What torch.autocast computes in half precision there, as on a GPU.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(baddbmm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(scaled_dot_product_attention, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(softmax, int, fp32_set_opt_dtype)
  KERNEL_PRIVATEUSEONE(layer_norm, fp32)
  KERNEL_PRIVATEUSEONE(group_norm, fp32)
}
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("traffic", [] {
    std::lock_guard<std::mutex> hold(traffic_lock);
    return std::make_tuple(traffic.reads, traffic.writes, traffic.operations);
  });
  m.def("refuse_reads", [](bool refused) {
    std::lock_guard<std::mutex> hold(traffic_lock);
    return std::exchange(reads_refused, refused);
  });
}
