#include <immintrin.h>

#include "scan.hpp"

namespace luckyfast {
namespace {

struct Masks {
    uint64_t quote, delimiter, newline, carriage_return;
};

struct Chunk {
    static Masks load(const uint8_t* p, Dialect d) noexcept {
        const __m512i bytes = _mm512_loadu_si512(p);
        return {_mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(static_cast<char>(d.quote))),
                _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(static_cast<char>(d.delimiter))),
                _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\n')), _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('\r'))};
    }
    static uint64_t prefix_xor(uint64_t x) noexcept {
        const __m128i product = _mm_clmulepi64_si128(_mm_set_epi64x(0, static_cast<int64_t>(x)), _mm_set1_epi8(-1), 0);
        return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
    }
    // PERF: the positions of the set bits are the bytes 0..63 compressed by the mask; compressing in a register and
    // storing whole is many times faster on AMD than compressing into memory.
    static void emit(uint32_t* out, uint64_t bits, uint32_t base, int n) noexcept {
        const __m512i iota = _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42,
                                             41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20,
                                             19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i packed = _mm512_maskz_compress_epi8(bits, iota);
        const __m512i start = _mm512_set1_epi32(static_cast<int>(base));
        _mm512_storeu_si512(out, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed))));
        if (__builtin_expect(n > 16, 0)) {
            _mm512_storeu_si512(out + 16, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(packed, 1))));
            _mm512_storeu_si512(out + 32, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(packed, 2))));
            _mm512_storeu_si512(out + 48, _mm512_add_epi32(start, _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(packed, 3))));
        }
    }
};

}  // namespace
}  // namespace luckyfast

#include "scan_kernel.inl"

namespace luckyfast {
const ScanKernels avx512_kernels = {run<true>, run<false>, "avx512"};
}
