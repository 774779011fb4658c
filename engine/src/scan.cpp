#include "scan.hpp"

namespace luckyfast {
namespace {

const uint8_t* find_byte(const uint8_t* from, const uint8_t* to, uint8_t byte) noexcept {
    const void* hit = std::memchr(from, byte, static_cast<size_t>(to - from));
    return hit ? static_cast<const uint8_t*>(hit) : to;
}

enum class RecordEnd : uint8_t { complete, unclosed, incomplete };

// One record by the book, byte by byte. Separators go to `index` if there is one.
RecordEnd scan_record(const uint8_t* data, size_t start, size_t stop, bool at_eof, Dialect dialect, ScanIndex* index,
                      size_t& record_stop) noexcept {
    const uint8_t* const end = data + stop;
    const uint8_t* at = data + start;
    const size_t first = index ? index->n_separators : 0;
    const auto add = [&](const uint8_t* p) {
        if (index) index->separators[index->n_separators++] = static_cast<uint32_t>(p - data);
    };
    const auto give_up = [&] {
        const uint8_t* newline = find_byte(data + start, end, '\n');
        if (index) index->n_separators = first;
        add(newline);
        record_stop = static_cast<size_t>(newline - data) + 1;
        return RecordEnd::unclosed;
    };
    record_stop = start;
    while (true) {
        if (dialect.has_quote && at < end && *at == dialect.quote) {
            const uint8_t* const opened = at;
            const uint8_t* closing = find_byte(at + 1, end, dialect.quote);
            while (closing + 1 < end && closing[1] == dialect.quote) closing = find_byte(closing + 2, end, dialect.quote);
            // a quote in the last byte may be the first of two
            if (closing + 1 >= end) return at_eof ? give_up() : RecordEnd::incomplete;
            const uint8_t next = closing[1];
            const bool closes_well = next == dialect.delimiter || next == '\n' || next == '\r';
            const bool holds_line_end = find_byte(opened, closing, '\n') != closing;
            if (!closes_well && holds_line_end) return give_up();
            if (index) index->has_quoted_lines |= holds_line_end;
            at = closing + 1;
        }
        while (at < end && *at != dialect.delimiter && *at != '\n') ++at;
        if (at == end) return RecordEnd::incomplete;
        add(at);
        if (*at == '\n') {
            record_stop = static_cast<size_t>(at - data) + 1;
            return RecordEnd::complete;
        }
        ++at;
    }
}

size_t first_line_stop(const uint8_t* data, size_t start, size_t stop) noexcept {
    const uint8_t* newline = find_byte(data + start, data + stop, '\n');
    return newline == data + stop ? stop : static_cast<size_t>(newline - data) + 1;
}

}  // namespace

const ScanKernels& scan_kernels(int level) noexcept {
#ifdef LUCKYFAST_X86
    __builtin_cpu_init();
    static const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi2") &&
                             __builtin_cpu_supports("pclmul");
    static const bool middle = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul") &&
                               __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    if (wide && (level < 0 || level == 2)) return avx512_kernels;
    if (middle && level != 0) return avx2_kernels;
#else
    static_cast<void>(level);
#endif
    return portable_kernels;
}

size_t find_boundary(const uint8_t* data, size_t start, size_t stop, bool at_eof, bool first_unclosed, Dialect dialect,
                     const ScanKernels& kernels) noexcept {
    size_t boundary = first_unclosed ? first_line_stop(data, start, stop) : start;
    // PERF: where no quote is, the last line end is the border, and a byte is looked for faster than pairs are counted
    if (!dialect.has_quote || find_byte(data + boundary, data + stop, dialect.quote) == data + stop) {
        while (stop > boundary && data[stop - 1] != '\n') --stop;
        return stop;
    }
    ScanIndex index;
    while (boundary < stop) {
        ScanState state;
        state.at = index.last_line_end = boundary;
        const bool clean = kernels.measure(data, stop, dialect, state, index);
        boundary = index.last_line_end;
        if (clean && (!at_eof || boundary == stop)) break;
        // behind a wrong quote, and where a quote is still open at the end of the file, one record goes by the book
        size_t record_stop;
        if (scan_record(data, boundary, stop, at_eof, dialect, nullptr, record_stop) == RecordEnd::incomplete) break;
        boundary = record_stop;
    }
    return boundary;
}

size_t scan_complete(const uint8_t* data, size_t start, size_t stop, bool at_eof, bool first_unclosed, Dialect dialect,
                     ScanIndex& index, const ScanKernels& kernels) noexcept {
    size_t row_start = start;
    if (first_unclosed && start < stop) {
        row_start = first_line_stop(data, start, stop);
        index.separators[index.n_separators++] = static_cast<uint32_t>(row_start - 1);
        index.row_stops[index.n_rows++] = static_cast<uint32_t>(index.n_separators) | ScanIndex::unclosed;
    }
    while (row_start < stop) {
        ScanState state;
        state.at = row_start;
        const bool clean = kernels.index(data, stop, dialect, state, index);
        // behind a wrong quote, and where a quote is still open at the end, one record goes by the book
        const size_t n_complete = index.n_rows ? index.row_stops[index.n_rows - 1] & ~ScanIndex::unclosed : 0;
        index.n_separators = n_complete;
        if (n_complete) row_start = index.separators[n_complete - 1] + size_t{1};
        if (row_start >= stop || (clean && !at_eof)) break;
        const RecordEnd end = scan_record(data, row_start, stop, at_eof, dialect, &index, row_start);
        if (end == RecordEnd::incomplete) {
            index.n_separators = n_complete;
            break;
        }
        index.has_escapes = true;
        index.row_stops[index.n_rows++] =
            static_cast<uint32_t>(index.n_separators) | (end == RecordEnd::unclosed ? ScanIndex::unclosed : 0);
    }
    return row_start;
}

size_t drop_rows_from(size_t border, size_t start, ScanIndex& index) noexcept {
    const auto end_of = [&](size_t row) {
        return row ? index.separators[(index.row_stops[row - 1] & ~ScanIndex::unclosed) - 1] + size_t{1} : start;
    };
    while (index.n_rows && end_of(index.n_rows - 1) >= border) --index.n_rows;
    return end_of(index.n_rows);
}

void scan(const uint8_t* data, size_t start, size_t stop, bool first_unclosed, Dialect dialect, ScanIndex& index,
          const ScanKernels& kernels) noexcept {
    scan_complete(data, start, stop, true, first_unclosed, dialect, index, kernels);
}

}  // namespace luckyfast
