// Products of matrices as networks have them: many rows, some hundred columns.
#include "network.hpp"
#include "tile.hpp"

namespace luckyfast {
namespace {

// PERF: so many terms of the sums at a time keep a panel of b (96 kB at most) in the second-level cache.
constexpr size_t product_depth = 384;
constexpr size_t panel_width = tile_vectors * L;

size_t product_scratch(const Product& call) noexcept {
    const size_t depth = call.K < product_depth ? call.K : product_depth;
    return ((call.N + panel_width - 1) / panel_width * panel_width + (call.a_transposed ? block_rows : 0)) * depth;
}

// Panels of b, [column / panel width][k][column of the panel]; the last one is as many vectors wide as it must be.
void pack_panels(const Product& call, size_t k_start, size_t depth, float* packed) noexcept {
    for (size_t column = 0; column < call.N; column += panel_width) {
        const size_t n = call.N - column < panel_width ? call.N - column : panel_width, width = (n + L - 1) / L * L;
        if (call.b_transposed) {
            for (size_t i = 0; i < width; ++i) {
                const float* from = call.b + (column + i) * call.K + k_start;
                for (size_t k = 0; k < depth; ++k) packed[k * width + i] = i < n ? from[k] : 0.0f;
            }
        } else {
            for (size_t k = 0; k < depth; ++k) {
                const float* from = call.b + (k_start + k) * call.N + column;
                for (size_t i = 0; i < n; i += L) store(packed + k * width + i, load(from + i, n - i));
            }
        }
        packed += panel_width * depth;
    }
}

// PERF: rows that lie in columns of a are gathered once for all panels; a column at a time would visit a line per term.
void pack_rows(const Product& call, size_t row_start, size_t row_stop, size_t k_start, size_t depth, float* packed) noexcept {
    for_tiles(row_start, row_stop, [&]<size_t R>(size_t row) {
        const float* from = call.a + k_start * call.M + row;
        for (size_t k = 0; k < depth; ++k) std::memcpy(packed + k * R, from + k * call.M, sizeof(float[R]));
        packed += depth * R;
    });
}

// a [row][k] of the first row with stride K; or, transposed, as pack_rows leaves it.
template <size_t V, bool transposed>
void multiply_panel(const Product& call, size_t row_start, size_t row_stop, const float* a, size_t k_start, size_t depth,
                    size_t column, const float* panel) noexcept {
    const bool adds = call.adds || k_start > 0;
    for_tiles(row_start, row_stop, [&]<size_t R>(size_t row) {
        Lanes acc[R][V];
        float* c = call.c + row * call.N + column;
        for (size_t r = 0; r < R; ++r)
            for (size_t v = 0; v < V; ++v) acc[r][v] = Lanes{};
        multiply<R, V, transposed>(a, transposed ? R : call.K, panel, depth, acc);
        a += R * (transposed ? depth : call.K);
        for (size_t r = 0; r < R; ++r)
#pragma GCC unroll 4
            for (size_t v = 0; v < V; ++v) {
                const size_t n = call.N - column - v * L;
                float* out = c + r * call.N + v * L;
                if (adds) acc[r][v] += load(out, n);
                if (call.bias && k_start == 0) acc[r][v] += load(call.bias + column + v * L, n);
                store(out, acc[r][v], n);
            }
    });
}

template <bool transposed>
void multiply_all(const Product& call, size_t row_start, size_t row_stop, float* scratch) noexcept {
    for (size_t k_start = 0; k_start < call.K; k_start += product_depth) {
        const size_t depth = call.K - k_start < product_depth ? call.K - k_start : product_depth;
        float *panels = transposed ? scratch + block_rows * depth : scratch, *rows = scratch;
        pack_panels(call, k_start, depth, panels);
        for_blocks(row_start, row_stop, [&](size_t start, size_t stop) {
            const float* a = transposed ? rows : call.a + start * call.K + k_start;
            if (transposed) pack_rows(call, start, stop, k_start, depth, rows);
            for (size_t column = 0; column < call.N; column += panel_width) {
                const float* panel = panels + column * depth;
                switch ((call.N - column + L - 1) / L) {
                    case 1: multiply_panel<1, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    case 2: multiply_panel<2, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    case 3: multiply_panel<3, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    default: multiply_panel<4, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                }
            }
        });
    }
}

void product(const Product& call, size_t row_start, size_t row_stop, float* scratch) noexcept {
    if (call.K == 0)  // an empty sum
        for (size_t row = row_start; row < row_stop; ++row)
            for (size_t column = 0; column < call.N; ++column) {
                float& c = call.c[row * call.N + column];
                c = (call.adds ? c : 0.0f) + (call.bias ? call.bias[column] : 0.0f);
            }
    (call.a_transposed ? multiply_all<true> : multiply_all<false>)(call, row_start, row_stop, scratch);
}

}  // namespace
}  // namespace luckyfast
