#include "scan.hpp"

namespace luckyfast {
namespace {

struct Masks {
    uint64_t quote, delimiter, newline, carriage_return;
};

struct Chunk {
    static uint64_t equal(const uint8_t* p, uint8_t byte) noexcept {
        const uint64_t wanted = 0x0101010101010101ull * byte;
        uint64_t bits = 0;
        for (int i = 0; i < 8; ++i) {
            const uint64_t x = load_u64(p + 8 * i) ^ wanted;
            // exact zero-byte test: the high bit of each byte that equals `byte`
            const uint64_t hit = ~(((x & 0x7f7f7f7f7f7f7f7full) + 0x7f7f7f7f7f7f7f7full) | x | 0x7f7f7f7f7f7f7f7full);
            bits |= (((hit >> 7) * 0x0102040810204080ull) >> 56) << (8 * i);
        }
        return bits;
    }
    static Masks load(const uint8_t* p, Dialect d) noexcept {
        return {d.has_quote ? equal(p, d.quote) : 0, equal(p, d.delimiter), equal(p, '\n'), d.has_quote ? equal(p, '\r') : 0};
    }
    static uint64_t prefix_xor(uint64_t x) noexcept {
        for (int shift = 1; shift < 64; shift *= 2) x ^= x << shift;
        return x;
    }
    static void emit(uint32_t* out, uint64_t bits, uint32_t base, int) noexcept {
        for (; bits; bits &= bits - 1) *out++ = base + static_cast<uint32_t>(__builtin_ctzll(bits));
    }
};

}  // namespace
}  // namespace luckyfast

#include "scan_kernel.inl"

namespace luckyfast {
const ScanKernels portable_kernels = {run<true>, run<false>, "portable"};
}
