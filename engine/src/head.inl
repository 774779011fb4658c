// What lies between the products of a network's head: activation, dropout and trends, forward and backward.
#include "lanes.hpp"
#include "network.hpp"

namespace luckyfast {
namespace {

// Every bit of the result depends on every bit of x (Wellons, "Prospecting for hash functions", 2018).
LUCKYFAST_INLINE Words mixed(Words x) noexcept {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

// The same of a seed (Steele et al., "Fast splittable pseudorandom number generators", 2014): else seeds that are close
// would drop the same in another order.
uint64_t mixed_seed(uint64_t seed) noexcept {
    seed += 0x9e3779b97f4a7c15u;
    seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9u;
    seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebu;
    return seed ^ (seed >> 31);
}

// What L numbers from number `at` on are multiplied by: 0 for the share that is dropped, else 1 / (1 - share).
LUCKYFAST_INLINE Lanes kept(double share, uint64_t key, size_t at) noexcept {
    Words number{};
    for (size_t i = 0; i < L; ++i) number[i] = static_cast<uint32_t>(at + i);
    const uint32_t low = static_cast<uint32_t>(key) ^ static_cast<uint32_t>(static_cast<uint64_t>(at) >> 32);
    const Words hash = mixed(mixed(number ^ low) + static_cast<uint32_t>(key >> 32));
    const auto threshold = static_cast<uint32_t>(share * 4294967296.0);
    return hash >= threshold ? splat(static_cast<float>(1 / (1 - share))) : Lanes{};
}

void drop(const Dropout& dropout, size_t first, const float* values, float* out, size_t n) noexcept {
    const uint64_t key = mixed_seed(dropout.seed);
    for (size_t i = 0; i < n; i += L) store(out + i, load(values + i, n - i) * kept(dropout.share, key, first + i), n - i);
}

// out = gelu(x), of which some are dropped; numbers are counted from `first`.
void activate(const Dropout& dropout, size_t first, const float* x, float* out, size_t n) noexcept {
    const uint64_t key = mixed_seed(dropout.seed);
    for (size_t i = 0; i < n; i += L) {
        const Lanes own = load(x + i, n - i);
        const Lanes y = own * normal_cdf(own);
        store(out + i, dropout.share > 0 ? y * kept(dropout.share, key, first + i) : y, n - i);
    }
}

// The gradient of x from that of activate's result, in its place.
void activate_grad(const Dropout& dropout, size_t first, const float* x, float* grad, size_t n) noexcept {
    const uint64_t key = mixed_seed(dropout.seed);
    for (size_t i = 0; i < n; i += L) {
        const Lanes slope = load(grad + i, n - i) * activated(load(x + i, n - i)).slope;
        store(grad + i, dropout.share > 0 ? slope * kept(dropout.share, key, first + i) : slope, n - i);
    }
}

// out += a * b
void add_products_of(float* out, const float* a, const float* b, size_t n) noexcept {
    for (size_t i = 0; i < n; i += L) store(out + i, load(out + i, n - i) + load(a + i, n - i) * load(b + i, n - i), n - i);
}

}  // namespace
}  // namespace luckyfast
