// The device functions that kernels call and that CUDA's headers declare for nvcc only.
#pragma once

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  return T(a) < T(b) ? T(b) : T(a);
}

// --- Bits ---

namespace emu {
template <class To, class From>
inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(static_cast<void*>(&to), &from, sizeof to);
  return to;
}
}  // namespace emu

inline long long __double_as_longlong(double x) { return emu::bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu::bits<double>(x); }
inline int __float_as_int(float x) { return emu::bits<int>(x); }
inline float __int_as_float(int x) { return emu::bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emu::bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return emu::bits<float>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }

// --- Arithmetic and rounding ---

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.7071067811865476); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// On the device, a conversion from float to integer saturates and converts NaN to 0. In C++ both
// cases are undefined.
namespace emu {
template <class To>
inline To saturate(double x) {
  if (std::isnan(x)) return 0;
  if (x <= double(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (x >= double(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(x);
}
}  // namespace emu

inline int __float2int_rd(float x) { return emu::saturate<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return emu::saturate<int>(std::ceil(x)); }
inline int __float2int_rn(float x) { return emu::saturate<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return emu::saturate<int>(std::trunc(x)); }
inline unsigned __float2uint_rd(float x) { return emu::saturate<unsigned>(std::floor(x)); }
inline unsigned __float2uint_rn(float x) { return emu::saturate<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return emu::saturate<unsigned>(std::trunc(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

template <class T>
inline T __ldg(const T* p) {
  return *p;
}

// --- Halves ---
// These use an instruction of the processor. On a host, cuda_fp16.h converts bit by bit.

namespace emu {
inline float half_to_float(__half x) { return float(bits<_Float16>(x)); }
inline __half float_to_half(float x) { return bits<__half>(_Float16(x)); }
inline float2 half2_to_float2(__half2 x) { return {half_to_float(x.x), half_to_float(x.y)}; }
inline __half2 floats_to_half2(float x, float y) { return {float_to_half(x), float_to_half(y)}; }
}  // namespace emu

#define __half2float emu::half_to_float
#define __float2half emu::float_to_half
#define __float2half_rn emu::float_to_half
#define __half22float2 emu::half2_to_float2
#define __floats2half2_rn emu::floats_to_half2

#define EMU_HALF(name, expression)          \
  inline __half name(__half half) {         \
    float x = emu::half_to_float(half);     \
    return emu::float_to_half(expression);  \
  }
EMU_HALF(hsqrt, sqrtf(x))
EMU_HALF(hrsqrt, 1.0f / sqrtf(x))
EMU_HALF(hrcp, 1.0f / x)
EMU_HALF(hsin, sinf(x))
EMU_HALF(hcos, cosf(x))
EMU_HALF(hlog, logf(x))
EMU_HALF(hexp, expf(x))
EMU_HALF(hceil, ceilf(x))
EMU_HALF(hfloor, floorf(x))
#undef EMU_HALF

// --- Atomics ---

namespace emu {
template <size_t size>
struct Word;
template <>
struct Word<2> {
  using Type = uint16_t;
};
template <>
struct Word<4> {
  using Type = uint32_t;
};
template <>
struct Word<8> {
  using Type = uint64_t;
};

// Replaces the value at `p` by `change(value)` and returns the old value.
template <class T, class F>
inline T atomically(T* p, F change) {
  using W = typename Word<sizeof(T)>::Type;
  W* word = reinterpret_cast<W*>(p);
  W seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(word, &seen, bits<W>(T(change(bits<T>(seen)))), false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return bits<T>(seen);
}
}  // namespace emu

template <class T, class U>
inline T atomicAdd(T* p, U x) {
  return emu::atomically(p, [=](T old) { return T(old + T(x)); });
}
template <class T, class U>
inline T atomicSub(T* p, U x) {
  return emu::atomically(p, [=](T old) { return T(old - T(x)); });
}
template <class T, class U>
inline T atomicMax(T* p, U x) {
  return emu::atomically(p, [=](T old) { return old < T(x) ? T(x) : old; });
}
template <class T, class U>
inline T atomicMin(T* p, U x) {
  return emu::atomically(p, [=](T old) { return T(x) < old ? T(x) : old; });
}
template <class T, class U>
inline T atomicOr(T* p, U x) {
  return emu::atomically(p, [=](T old) { return T(old | T(x)); });
}
template <class T, class U>
inline T atomicExch(T* p, U x) {
  return emu::atomically(p, [=](T) { return T(x); });
}
template <class T, class C, class V>
inline T atomicCAS(T* p, C expected, V x) {
  return emu::atomically(p, [=](T old) { return old == T(expected) ? T(x) : old; });
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() {}

// --- Warp collectives ---

namespace emu {
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8);
  Exchange exchange{};
  memcpy(&exchange.value, &value, sizeof value);
  exchange.source = source;
  warp_exchange(mask, exchange);
  memcpy(&value, &exchange.result, sizeof value);
  return value;
}
inline int lane() { return int(thread_index() % 32); }
inline int first_lane(int width) { return lane() & ~(width - 1); }
}  // namespace emu

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return emu::shuffle(mask, value, emu::first_lane(width) + (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bit, int width = 32) {
  int source = emu::lane() ^ bit;
  return emu::shuffle(mask, value, source < emu::first_lane(width) + width ? source : emu::lane());
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, int delta, int width = 32) {
  int source = emu::lane() - delta;
  return emu::shuffle(mask, value, source < emu::first_lane(width) ? emu::lane() : source);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, int delta, int width = 32) {
  int source = emu::lane() + delta;
  return emu::shuffle(mask, value, source < emu::first_lane(width) + width ? source : emu::lane());
}
inline unsigned __ballot_sync(unsigned mask, int vote) {
  emu::Exchange exchange{uint64_t(vote != 0), unsigned(emu::lane()), 0, 0};
  emu::warp_exchange(mask, exchange);
  return exchange.votes;
}
inline int __any_sync(unsigned mask, int vote) { return __ballot_sync(mask, vote) != 0; }
inline int __all_sync(unsigned mask, int vote) { return __ballot_sync(mask, !vote) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffff) { __ballot_sync(mask, 0); }
