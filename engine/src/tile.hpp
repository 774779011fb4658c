// The inner loop of every matrix product: a tile of R rows times V vectors, kept in registers.
#pragma once

#include "lanes.hpp"

namespace luckyfast {
namespace {

// PERF: R * 4 accumulators, 4 vectors of b and one of a fill the registers (32 of them from AVX-512 on, else 16), and
// each loaded value is used R or 4 times, so that multiplication and not loading is the limit.
constexpr size_t tile_rows = LUCKYFAST_LANES == 16 ? 6 : 3;
constexpr size_t tile_vectors = 4;

// PERF: only loops that are unrolled everywhere keep acc in registers before and after a product, too.
template <size_t R, size_t V>
LUCKYFAST_INLINE void clear(Lanes (&acc)[R][V]) noexcept {
#pragma GCC unroll 8
    for (size_t r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (size_t v = 0; v < V; ++v) acc[r][v] = Lanes{};
}

// acc += a @ b, where a[r, k] is at a[r * stride + k], or at a[k * stride + r], and b is packed as [K][V][L].
template <size_t R, size_t V, bool transposed = false>
LUCKYFAST_INLINE void multiply(const float* a, size_t stride, const float* b, size_t K, Lanes (&acc)[R][V]) noexcept {
    for (size_t k = 0; k < K; ++k) {
        Lanes column[V];
#pragma GCC unroll 4
        for (size_t v = 0; v < V; ++v) column[v] = load(b + (k * V + v) * L);
#pragma GCC unroll 8
        for (size_t r = 0; r < R; ++r) {
            const Lanes x = splat(transposed ? a[k * stride + r] : a[r * stride + k]);
#pragma GCC unroll 4
            for (size_t v = 0; v < V; ++v) acc[r][v] += x * column[v];
        }
    }
}

// Calls body<R>(row) for tiles that cover the rows, as equal in height as can be.
template <typename Body>
LUCKYFAST_INLINE void for_tiles(size_t row_start, size_t row_stop, Body body) noexcept {
    while (row_start < row_stop) {
        const size_t n_left = row_stop - row_start, n_tiles = (n_left + tile_rows - 1) / tile_rows;
        const size_t n = (n_left + n_tiles - 1) / n_tiles;
        switch (n) {
            case 1: body.template operator()<1>(row_start); break;
            case 2: body.template operator()<2>(row_start); break;
            case 3: body.template operator()<3>(row_start); break;
#if LUCKYFAST_LANES == 16
            case 4: body.template operator()<4>(row_start); break;
            case 5: body.template operator()<5>(row_start); break;
            case 6: body.template operator()<6>(row_start); break;
#endif
            default: return;
        }
        row_start += n;
    }
}

// PERF: so many rows at a time go through all columns, which keeps what they read and write in the second-level cache.
constexpr size_t block_rows = 48;

// Calls body(start, stop) for blocks of rows.
template <typename Body>
LUCKYFAST_INLINE void for_blocks(size_t row_start, size_t row_stop, Body body) noexcept {
    for (; row_start < row_stop; row_start += block_rows)
        body(row_start, row_stop - row_start < block_rows ? row_stop : row_start + block_rows);
}

}  // namespace
}  // namespace luckyfast
