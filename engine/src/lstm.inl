// LSTM over whole sequences: each step is one product with the recurrent weights, whose tiles go through the gates
// while they are still in registers.
#include "network.hpp"
#include "tile.hpp"

namespace luckyfast {
namespace {

constexpr size_t wide = tile_vectors * L;
constexpr size_t n_blocks(size_t n, size_t width) noexcept { return (n + width - 1) / width; }

size_t packed_size(size_t H) noexcept {
    const size_t forward = n_blocks(H, L) * H * wide, backward = n_blocks(H, wide) * 4 * H * wide;
    return forward > backward ? forward : backward;
}

// [block of L units][k of H][gate][unit]
void pack_forward(const float* weight, size_t H, float* packed) noexcept {
    for (size_t block = 0; block < n_blocks(H, L); ++block)
        for (size_t k = 0; k < H; ++k)
            for (size_t gate = 0; gate < 4; ++gate)
                for (size_t lane = 0; lane < L; ++lane) {
                    const size_t unit = block * L + lane;
                    *packed++ = unit < H ? weight[k * 4 * H + gate * H + unit] : 0.0f;
                }
}

// Transposed: [block of 4 L units][k of 4H][unit]
void pack_backward(const float* weight, size_t H, float* packed) noexcept {
    for (size_t unit = 0; unit < H; unit += wide, packed += 4 * H * wide)
        pack_transposed(weight + unit * 4 * H, 4 * H, H - unit, wide, 4 * H, packed);
}

// PERF: lines that are asked for before a tile's product are there after it.
LUCKYFAST_INLINE void prefetch(const float* from, size_t n) noexcept {
    for (size_t i = 0; i < n; i += 16) __builtin_prefetch(from + i);
}

// The gates of R rows for n units, from the first row's panel and state, of whose outputs so many are looked at; pointers
// are to the first row and unit.
template <size_t R, typename Width>
LUCKYFAST_INLINE void forward_tile(size_t H, size_t depth, Width n, const float* panel, const float* before, const float* cells,
                                   float* gates, float* after, float* next_cells) noexcept {
    for (size_t r = 0; r < R; ++r) {
        for (size_t gate = 0; gate < 4; ++gate) prefetch(gates + r * 4 * H + gate * H, n);
        prefetch(cells + r * H, n);
    }
    Lanes acc[R][4];
    clear(acc);
    multiply<R, 4>(before, H, panel, depth, acc);
#pragma GCC unroll 8
    for (size_t r = 0; r < R; ++r) {
        float* own = gates + r * 4 * H;
        const Lanes i = sigmoid(acc[r][0] + load(own, n)), f = sigmoid(acc[r][1] + load(own + H, n));
        const Lanes o = sigmoid(acc[r][2] + load(own + 2 * H, n)), g = tanh(acc[r][3] + load(own + 3 * H, n));
        const Lanes c = f * load(cells + r * H, n) + i * g;
        store(next_cells + r * H, c, n);
        store(after + r * H, o * tanh(c), n);
        store(own, i, n);
        store(own + H, f, n);
        store(own + 2 * H, o, n);
        store(own + 3 * H, g, n);
    }
}

void lstm_forward(const LstmForward& call, size_t row_start, size_t row_stop) noexcept {
    const size_t T = call.shape.T, B = call.shape.B, H = call.shape.H;
    for (size_t t = 0; t < T; ++t) {
        const float *before = call.outputs + t * B * H, *cells = call.cells + t * B * H;
        float *after = call.outputs + (t + 1) * B * H, *next_cells = call.cells + (t + 1) * B * H;
        float* gates = call.gates + t * B * 4 * H;
        const size_t depth = t == 0 && call.from_zeros ? 0 : H;
        for_blocks(row_start, row_stop, [&](size_t first_row, size_t last_row) {
            for (size_t unit = 0; unit < H; unit += L) {
                const float* panel = call.packed + unit * 4 * H;
                const auto tiles = [&](auto n) {
                    for_tiles(first_row, last_row, [&]<size_t R>(size_t row) {
                        const size_t at = row * H + unit;
                        forward_tile<R>(H, depth, n, panel, before + row * H, cells + at, gates + row * 4 * H + unit, after + at,
                                        next_cells + at);
                    });
                };
                if (H - unit < L) tiles(H - unit);
                else tiles(WholeVector());
            }
        });
    }
}

// grad_h of step t, in tiles, goes to use(row, unit, n, grad_h); fetch(row, unit, n) is called before its product.
template <typename Fetch, typename Use>
LUCKYFAST_INLINE void pull_back(const LstmBackward& call, const float* next_grad_gates, size_t row_start, size_t row_stop,
                                Fetch fetch, Use use) noexcept {
    const size_t H = call.shape.H;
    const auto units = [&](size_t unit, size_t first_row, size_t last_row) {
        const float* panel = call.packed + unit / wide * 4 * H * wide;
        for_tiles(first_row, last_row, [&]<size_t R>(size_t row) {
            const Use use_here = use;  // PERF: whatever it holds is in registers, as stores could change what lies elsewhere
            for (size_t r = 0; r < R; ++r) fetch(row + r, unit, H - unit < wide ? H - unit : wide);
            Lanes acc[R][tile_vectors];
            clear(acc);
            multiply<R, tile_vectors>(next_grad_gates + row * 4 * H, 4 * H, panel, 4 * H, acc);
            for (size_t r = 0; r < R; ++r)
#pragma GCC unroll 4
                for (size_t v = 0; v < tile_vectors; ++v) {
                    const size_t at = unit + v * L;
                    if (at + L <= H) use_here(row + r, at, WholeVector(), acc[r][v]);
                    else if (at < H) use_here(row + r, at, H - at, acc[r][v]);
                }
        });
    };
    for_blocks(row_start, row_stop, [&](size_t first_row, size_t last_row) {
        for (size_t unit = 0; unit < H; unit += wide) units(unit, first_row, last_row);
    });
}

void lstm_backward(const LstmBackward& call, size_t row_start, size_t row_stop) noexcept {
    const size_t T = call.shape.T, B = call.shape.B, H = call.shape.H;
    for (size_t t = T; t-- > 0;) {
        const float *cells = call.cells + t * B * H, *next_cells = call.cells + (t + 1) * B * H;
        const float* grad_outputs = call.grad_outputs + t * B * H;
        float* gates = call.gates + t * B * 4 * H;
        const auto fetch = [&](size_t row, size_t unit, size_t n) {
            for (size_t gate = 0; gate < 4; ++gate) prefetch(gates + row * 4 * H + gate * H + unit, n);
            prefetch(grad_outputs + row * H + unit, n);
            prefetch(cells + row * H + unit, n);
            prefetch(next_cells + row * H + unit, n);
        };
        const auto through_gates = [=, grad_c_all = call.grad_c](size_t row, size_t unit, auto n, Lanes grad_h) {
            const size_t at = row * H + unit, first = row * 4 * H + unit;
            grad_h += load(grad_outputs + at, n);
            const Lanes i = load(gates + first, n), f = load(gates + first + H, n), o = load(gates + first + 2 * H, n);
            const Lanes g = load(gates + first + 3 * H, n), c = tanh(load(next_cells + at, n));
            const Lanes grad_c = load(grad_c_all + at, n) + grad_h * o * (1.0f - c * c);
            store(grad_c_all + at, grad_c * f, n);
            store(gates + first, grad_c * g * i * (1.0f - i), n);
            store(gates + first + H, grad_c * load(cells + at, n) * f * (1.0f - f), n);
            store(gates + first + 2 * H, grad_h * c * o * (1.0f - o), n);
            store(gates + first + 3 * H, grad_c * i * (1.0f - g * g), n);
        };
        if (t + 1 < T) {
            pull_back(call, call.gates + (t + 1) * B * 4 * H, row_start, row_stop, fetch, through_gates);
        } else {
            for (size_t row = row_start; row < row_stop; ++row)
                for (size_t unit = 0; unit < H; unit += L) {
                    const size_t n = H - unit < L ? H - unit : L;
                    through_gates(row, unit, n, load(call.grad_h + row * H + unit, n));
                }
        }
    }
    if (!call.wants_grad_h) return;
    pull_back(call, call.gates, row_start, row_stop, [](size_t, size_t, size_t) {},
              [&](size_t row, size_t unit, auto n, Lanes grad_h) { store(call.grad_h + row * H + unit, grad_h, n); });
}

}  // namespace
}  // namespace luckyfast
