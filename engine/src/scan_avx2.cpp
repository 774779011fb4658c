#include <immintrin.h>

#include "scan.hpp"

namespace luckyfast {
namespace {

struct Masks {
    uint64_t quote, delimiter, newline, carriage_return;
};

struct Chunk {
    static uint64_t equal(__m256i low, __m256i high, uint8_t byte) noexcept {
        const __m256i wanted = _mm256_set1_epi8(static_cast<char>(byte));
        const uint32_t a = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)));
        const uint32_t b = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)));
        return a | (static_cast<uint64_t>(b) << 32);
    }
    static Masks load(const uint8_t* p, Dialect d) noexcept {
        const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
        const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32));
        return {equal(low, high, d.quote), equal(low, high, d.delimiter), equal(low, high, '\n'), equal(low, high, '\r')};
    }
    static uint64_t prefix_xor(uint64_t x) noexcept {
        const __m128i product = _mm_clmulepi64_si128(_mm_set_epi64x(0, static_cast<int64_t>(x)), _mm_set1_epi8(-1), 0);
        return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
    }
    // PERF: eight positions a step without asking how many there are; what is too much is written over later.
    static void emit(uint32_t* out, uint64_t bits, uint32_t base, int n) noexcept {
        for (int done = 0; done < n; done += 8) {
            for (int i = 0; i < 8; ++i) {
                out[done + i] = base + static_cast<uint32_t>(_tzcnt_u64(bits));
                bits = _blsr_u64(bits);
            }
        }
    }
};

}  // namespace
}  // namespace luckyfast

#include "scan_kernel.inl"

namespace luckyfast {
const ScanKernels avx2_kernels = {run<true>, run<false>, "avx2"};
}
