// Products of matrices as networks have them: many rows, some hundred columns.
#include "network.hpp"
#include "tile.hpp"

namespace luckyfast {
namespace {

// PERF: so many terms of the sums at a time keep a panel of b (96 kB at most) in the second-level cache; where rows of a
// are packed as well, half of that.
constexpr size_t depth_of(const Product& call) noexcept {
    const size_t depth = call.a_transposed ? 192 : 384;
    return call.K < depth ? call.K : depth;
}
constexpr size_t panel_width = tile_vectors * L;

// PERF: so many columns at a time, whose panels stay in the second-level cache while all rows go through them.
constexpr size_t columns_of(const Product& call) noexcept {
    constexpr size_t most_packed = 1 << 17;
    const size_t most = most_packed / (depth_of(call) + 1) / panel_width * panel_width;
    return call.N < most ? (call.N + panel_width - 1) / panel_width * panel_width : most;
}

size_t product_scratch(const Product& call) noexcept {
    return (columns_of(call) + (call.a_transposed ? block_rows : 0)) * depth_of(call);
}

// Panels of b, [column / panel width][k][column of the panel]; the last one is as many vectors wide as it must be.
void pack_panels(const Product& call, size_t first, size_t last, size_t k_start, size_t depth, float* packed) noexcept {
    const auto width_at = [&](size_t column) {
        const size_t n = last - column;
        return n < panel_width ? (n + L - 1) / L * L : panel_width;
    };
    if (call.b_transposed) {
        for (size_t column = first; column < last; column += panel_width)
            pack_transposed(call.b + column * call.K + k_start, call.K, last - column, width_at(column), depth,
                            packed + (column - first) * depth);
    } else {  // PERF: b is read as it lies
        for (size_t k = 0; k < depth; ++k) {
            const float* from = call.b + (k_start + k) * call.N;
            for (size_t column = first; column < last; column += panel_width) {
                const size_t n = last - column, width = width_at(column);
                float* to = packed + (column - first) * depth + k * width;
                for (size_t i = 0; i < width; i += L) store(to + i, load(from + column + i, n - i));
            }
        }
    }
}

// PERF: rows that lie in columns of a are gathered once for all panels, [k][row of the block].
void pack_rows(const Product& call, size_t row_start, size_t row_stop, size_t k_start, size_t depth, float* packed) noexcept {
    const size_t n = row_stop - row_start;
    for (size_t k = 0; k < depth; ++k) {
        const float* from = call.a + (k_start + k) * call.M + row_start;
        for (size_t i = 0; i < n; i += L) store(packed + k * block_rows + i, load(from + i, n - i));
    }
}

// a of the first row: [row][k] with stride K or, transposed, [k][row] as pack_rows leaves it.
template <size_t V, bool transposed>
void multiply_panel(const Product& call, size_t row_start, size_t row_stop, const float* a, size_t k_start, size_t depth,
                    size_t column, const float* panel) noexcept {
    const bool adds = call.adds || k_start > 0;
    for_tiles(row_start, row_stop, [&]<size_t R>(size_t row) {
        Lanes acc[R][V];
        float* c = call.c + row * call.N + column;
        clear(acc);
        multiply<R, V, transposed>(a, transposed ? block_rows : call.K, panel, depth, acc);
        a += R * (transposed ? 1 : call.K);
#pragma GCC unroll 8
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
    const size_t most = depth_of(call);
    const auto part = [&](size_t first, size_t last, size_t k_start, size_t depth) {
        float *panels = transposed ? scratch + block_rows * depth : scratch, *rows = scratch;
        pack_panels(call, first, last, k_start, depth, panels);
        for_blocks(row_start, row_stop, [&](size_t start, size_t stop) {
            const float* a = transposed ? rows : call.a + start * call.K + k_start;
            if (transposed) pack_rows(call, start, stop, k_start, depth, rows);
            for (size_t column = first; column < last; column += panel_width) {
                const float* panel = panels + (column - first) * depth;
                switch ((last - column + L - 1) / L) {
                    case 1: multiply_panel<1, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    case 2: multiply_panel<2, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    case 3: multiply_panel<3, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                    default: multiply_panel<4, transposed>(call, start, stop, a, k_start, depth, column, panel); break;
                }
            }
        });
    };
    const size_t width = columns_of(call);
    for (size_t first = 0; first < call.N; first += width)
        for (size_t k_start = 0; k_start < call.K; k_start += most)
            part(first, call.N - first < width ? call.N : first + width, k_start, call.K - k_start < most ? call.K - k_start : most);
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
