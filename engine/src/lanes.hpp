// Vectors of LUCKYFAST_LANES floats, and the functions on them that networks need.
//
// Each kernel file is built once per instruction set; everything here has internal linkage, so that no code of a wide
// build can be linked into a narrow one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if LUCKYFAST_LANES == 16
#include <immintrin.h>
#endif

namespace luckyfast {
namespace {

constexpr size_t L = LUCKYFAST_LANES;
typedef float Lanes __attribute__((vector_size(4 * LUCKYFAST_LANES)));
typedef int32_t Bits __attribute__((vector_size(4 * LUCKYFAST_LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LUCKYFAST_LANES)));
typedef Lanes LooseLanes __attribute__((aligned(4), may_alias));

#define LUCKYFAST_INLINE inline __attribute__((always_inline))

LUCKYFAST_INLINE Lanes load(const float* p) noexcept { return *reinterpret_cast<const LooseLanes*>(p); }
LUCKYFAST_INLINE void store(float* p, Lanes x) noexcept { *reinterpret_cast<LooseLanes*>(p) = x; }
// PERF: x + 0 is another number where x is -0, so that the sum would be computed; x - 0 is x, and is loaded as it lies.
LUCKYFAST_INLINE Lanes splat(float x) noexcept { return x - Lanes{}; }

// The first n lanes alone; the others are 0.
#if LUCKYFAST_LANES == 16
LUCKYFAST_INLINE Lanes load(const float* p, size_t n) noexcept {
    return n >= L ? load(p) : Lanes(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
}
LUCKYFAST_INLINE void store(float* p, Lanes x, size_t n) noexcept {
    if (n >= L) return store(p, x);
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), __m512(x));
}
#else
LUCKYFAST_INLINE Lanes load(const float* p, size_t n) noexcept {
    if (n >= L) return load(p);
    Lanes x{};
    for (size_t i = 0; i < n; ++i) x[i] = p[i];
    return x;
}
LUCKYFAST_INLINE void store(float* p, Lanes x, size_t n) noexcept {
    if (n >= L) return store(p, x);
    for (size_t i = 0; i < n; ++i) p[i] = x[i];
}
#endif

// PERF: a number of lanes that is known to be all of them, so that there is no branch for the lanes that are left.
using WholeVector = std::integral_constant<size_t, L>;

// x[first], y[first], x[first + 1] and so on.
template <size_t first, size_t... lane>
LUCKYFAST_INLINE Lanes zip(Lanes x, Lanes y, std::index_sequence<lane...>) noexcept {
#ifdef __clang__
    return __builtin_shufflevector(x, y, (first + lane / 2 + lane % 2 * L)...);
#else  // the same in versions of GCC before 12, too
    return __builtin_shuffle(x, y, Bits{static_cast<int32_t>(first + lane / 2 + lane % 2 * L)...});
#endif
}

// Row i becomes lane i of all rows: rows that are half of all apart are zipped, as often as n_rows can be halved.
template <size_t n_rows>
LUCKYFAST_INLINE void transpose(Lanes (&rows)[L]) noexcept {
    if constexpr (n_rows > 1) {
        Lanes zipped[L];
#pragma GCC unroll 8
        for (size_t i = 0; i < L / 2; ++i) {
            zipped[2 * i] = zip<0>(rows[i], rows[i + L / 2], std::make_index_sequence<L>());
            zipped[2 * i + 1] = zip<L / 2>(rows[i], rows[i + L / 2], std::make_index_sequence<L>());
        }
        transpose<n_rows / 2>(zipped);
#pragma GCC unroll 16
        for (size_t i = 0; i < L; ++i) rows[i] = zipped[i];
    }
}

// to[k * width + i] = from[i * stride + k] for i < n, and 0 from there to the width, a multiple of L.
inline void pack_transposed(const float* from, size_t stride, size_t n, size_t width, size_t depth, float* to) noexcept {
    for (size_t i = 0; i < width; i += L)
        for (size_t k = 0; k < depth; k += L) {
            const size_t n_left = depth - k < L ? depth - k : L;
            Lanes rows[L];
#pragma GCC unroll 16
            for (size_t r = 0; r < L; ++r) rows[r] = i + r < n ? load(from + (i + r) * stride + k, n_left) : Lanes{};
            transpose<L>(rows);
#pragma GCC unroll 16
            for (size_t r = 0; r < L; ++r)
                if (r < n_left) store(to + (k + r) * width + i, rows[r]);
        }
}

LUCKYFAST_INLINE float sum(Lanes x) noexcept {
    float total[L];
    store(total, x);
    for (size_t width = L / 2; width > 0; width /= 2)
        for (size_t i = 0; i < width; ++i) total[i] += total[i + width];
    return total[0];
}
#if LUCKYFAST_LANES == 16
LUCKYFAST_INLINE Lanes lower(Lanes x, Lanes y) noexcept { return Lanes(_mm512_min_ps(__m512(x), __m512(y))); }
LUCKYFAST_INLINE Lanes upper(Lanes x, Lanes y) noexcept { return Lanes(_mm512_max_ps(__m512(x), __m512(y))); }
// PERF: an estimate of 1 / y and one step of Newton's method are two units in the last place off, and several times as
// fast as a division.
LUCKYFAST_INLINE Lanes divide(Lanes x, Lanes y) noexcept {
    const Lanes estimate = Lanes(_mm512_rcp14_ps(__m512(y)));
    return x * (estimate * (2.0f - y * estimate));
}
LUCKYFAST_INLINE Lanes square_root(Lanes x) noexcept { return Lanes(_mm512_sqrt_ps(__m512(x))); }
// The nearest number of -bound to bound.
LUCKYFAST_INLINE Lanes within(Lanes x, float bound) noexcept {
    constexpr int smaller_of_sizes = 2;  // with the sign of x
    return Lanes(_mm512_range_ps(__m512(x), __m512(splat(bound)), smaller_of_sizes));
}
#else
LUCKYFAST_INLINE Lanes lower(Lanes x, Lanes y) noexcept { return x < y ? x : y; }
LUCKYFAST_INLINE Lanes upper(Lanes x, Lanes y) noexcept { return x > y ? x : y; }
LUCKYFAST_INLINE Lanes divide(Lanes x, Lanes y) noexcept { return x / y; }
LUCKYFAST_INLINE Lanes square_root(Lanes x) noexcept {
    for (size_t i = 0; i < L; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
}
LUCKYFAST_INLINE Lanes within(Lanes x, float bound) noexcept { return lower(upper(x, splat(-bound)), splat(bound)); }
#endif

// Rational functions as in Eigen: a few units in the last place.
template <bool halved>
LUCKYFAST_INLINE Lanes scaled_tanh(Lanes x) noexcept {  // tanh(x), or tanh(x / 2) / 2
    constexpr float scale = halved ? 0.25f : 1.0f;    // of the square of x, whose powers stand in the coefficients instead
    constexpr auto at = [](float coefficient, int power) {
        for (; power > 0; --power) coefficient *= scale;
        return coefficient;
    };
    x = within(x, halved ? 2 * 7.90531110763549805f : 7.90531110763549805f);
    const Lanes y = x * x;
    Lanes p = splat(at(-2.76076847742355e-16f, 7));
    p = p * y + at(2.00018790482477e-13f, 6);
    p = p * y + at(-8.60467152213735e-11f, 5);
    p = p * y + at(5.12229709037114e-08f, 4);
    p = p * y + at(1.48572235717979e-05f, 3);
    p = p * y + at(6.37261928875436e-04f, 2);
    p = p * y + at(4.89352455891786e-03f, 1);
    Lanes q = splat(at(1.19825839466702e-06f, 3));
    q = q * y + at(1.18534705686654e-04f, 2);
    q = q * y + at(2.26843463243900e-03f, 1);
    q = q * y + 4.89352518554385e-03f;
    return divide(x * p, q);
}
LUCKYFAST_INLINE Lanes tanh(Lanes x) noexcept { return scaled_tanh<false>(x); }
LUCKYFAST_INLINE Lanes sigmoid(Lanes x) noexcept { return scaled_tanh<true>(x) + 0.5f; }

LUCKYFAST_INLINE Lanes erf(Lanes x) noexcept {
    x = within(x, 4.0f);
    const Lanes y = x * x;
    Lanes p = splat(-2.72614225801306e-10f);
    p = p * y + 2.77068142495902e-08f;
    p = p * y - 2.10102402082508e-06f;
    p = p * y - 5.69250639462346e-05f;
    p = p * y - 7.34990630326855e-04f;
    p = p * y - 2.95459980854025e-03f;
    p = p * y - 1.60960333262415e-02f;
    Lanes q = splat(-1.45660718464996e-05f);
    q = q * y - 2.13374055278905e-04f;
    q = q * y - 1.68282697438203e-03f;
    q = q * y - 7.37332916720468e-03f;
    q = q * y - 1.42647390514189e-02f;
    return divide(x * p, q);
}

// Polynomials as in Cephes.
LUCKYFAST_INLINE Lanes exp(Lanes x) noexcept {
    x = lower(upper(x, splat(-87.0f)), splat(88.0f));
    constexpr float rounder = 12582912.0f;  // 1.5 * 2 ** 23: what is added to it is rounded to a whole number
    const Lanes n = (x * 1.44269504088896341f + rounder) - rounder;
    Lanes r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    Lanes p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const Bits scale = (__builtin_convertvector(n, Bits) + 127) << 23;
    return p * __builtin_bit_cast(Lanes, scale);
}

// Of positive normal numbers; of others it is any number.
LUCKYFAST_INLINE Lanes log(Lanes x) noexcept {
    const Words bits = __builtin_bit_cast(Words, x);
    const Bits exponent = __builtin_bit_cast(Bits, bits - 0x3f3504f3u) >> 23;  // of the power of two nearest to x
    const Words mantissa = bits - (__builtin_bit_cast(Words, exponent) << 23);
    const Lanes r = __builtin_bit_cast(Lanes, mantissa) - 1.0f, e = __builtin_convertvector(exponent, Lanes);
    Lanes p = splat(7.0376836292e-2f);
    p = p * r - 1.1514610310e-1f;
    p = p * r + 1.1676998740e-1f;
    p = p * r - 1.2420140846e-1f;
    p = p * r + 1.4249322787e-1f;
    p = p * r - 1.6668057665e-1f;
    p = p * r + 2.0000714765e-1f;
    p = p * r - 2.4999993993e-1f;
    p = p * r + 3.3333331174e-1f;
    const Lanes square = r * r;
    return e * 0.693359375f + (r - 0.5f * square + p * square * r - e * 2.12194440e-4f);
}

}  // namespace
}  // namespace luckyfast
