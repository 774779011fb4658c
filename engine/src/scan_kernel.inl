// The scan kernel over 64-byte chunks, written once; each including file defines `Chunk` for its instruction set:
// `static Masks load(const uint8_t*, Dialect)`, `static uint64_t prefix_xor(uint64_t)`,
// `static void emit(uint32_t* out, uint64_t bits, uint32_t base, int n)` (may write up to 64 values, more than are set).

namespace luckyfast {
namespace {

// The lowest bits, n of them (1 to 64).
inline uint64_t low_bits(size_t n) noexcept { return ~uint64_t{0} >> (64 - n); }

template <bool quotes, bool emit>
bool scan_chunks(const uint8_t* data, size_t stop, Dialect dialect, ScanState& state, ScanIndex& index) noexcept {
    size_t at = state.at;
    while (at < stop) {
        const size_t n = stop - at < 64 ? stop - at : 64;
        Masks m;
        if (n == 64) {
            m = Chunk::load(data + at, dialect);
        } else {
            uint8_t tail[64] = {};
            __builtin_memcpy(tail, data + at, n);
            m = Chunk::load(tail, dialect);
            const uint64_t valid = low_bits(n);
            m.quote &= valid;
            m.delimiter &= valid;
            m.newline &= valid;
        }
        uint64_t separators = m.delimiter | m.newline;
        uint64_t newlines = m.newline;
        if constexpr (quotes) {
            if (m.quote | state.in_quote | state.after_closing) {
                const uint64_t inside = Chunk::prefix_xor(m.quote) ^ state.in_quote;
                const uint64_t opening = m.quote & inside;
                const uint64_t closing = m.quote & ~inside;
                const uint64_t after_closing = (closing << 1) | state.after_closing;
                const uint64_t outside = separators & ~inside;
                const uint64_t after_separator = (outside << 1) | state.after_separator;
                const uint64_t wrong = (opening & ~(after_separator | after_closing)) |
                                       (after_closing & ~(separators | m.carriage_return | m.quote) & low_bits(n));
                if (wrong) {
                    state.at = at;
                    return false;
                }
                index.has_escapes |= (opening & after_closing) != 0;
                index.has_quoted_lines |= (newlines & inside) != 0;
                state.in_quote = static_cast<uint64_t>(static_cast<int64_t>(inside) >> 63);
                state.after_closing = (closing >> (n - 1)) & 1;
                separators = outside;
                newlines &= ~inside;
            }
            state.after_separator = (separators >> (n - 1)) & 1;
        }
        if constexpr (emit) {
            // PERF: one newline in 64 bytes or none is the rule, so this loop is well predicted; the positions
            // themselves are written without branches.
            for (uint64_t rest = newlines; rest; rest &= rest - 1) {
                const uint64_t up_to = rest ^ (rest - 1);
                index.row_stops[index.n_rows++] =
                    static_cast<uint32_t>(index.n_separators + __builtin_popcountll(separators & up_to));
            }
            const int n_found = __builtin_popcountll(separators);
            Chunk::emit(index.separators + index.n_separators, separators, static_cast<uint32_t>(at), n_found);
            index.n_separators += n_found;
        } else if (newlines) {
            index.last_line_end = at + 64 - __builtin_clzll(newlines);
        }
        at += n;
    }
    state.at = at;
    return true;
}

template <bool emit>
bool run(const uint8_t* data, size_t stop, Dialect dialect, ScanState& state, ScanIndex& index) {
    return dialect.has_quote ? scan_chunks<true, emit>(data, stop, dialect, state, index)
                             : scan_chunks<false, emit>(data, stop, dialect, state, index);
}

}  // namespace
}  // namespace luckyfast
