// Where the fields end: bytes in, positions of delimiters and line ends outside quotes out.
//
// What a quote means (RFC 4180, and Python's csv for what the RFC leaves open): it opens only at a field's first byte,
// is doubled inside, and closes before a delimiter or line end. Bytes between a closing quote and the next delimiter
// are data, and so is a quote in a field that does not begin with one. A quoted field that never closes, or that
// closes after a line end but not before a delimiter or line end, was opened by mistake: its first line alone is
// given up (`unclosed`) and reading goes on with the next line.
#pragma once

#include "bytes.hpp"

namespace luckyfast {

struct Dialect {
    uint8_t delimiter = ',';
    uint8_t quote = '"';
    bool has_quote = true;
};

// What the wide kernels carry from one chunk of 64 bytes to the next; the initial state is that of a record's start.
struct ScanState {
    size_t at = 0;
    uint64_t in_quote = 0;         // all ones between quotes
    uint64_t after_separator = 1;  // bit 0: the byte before was a separator outside quotes
    uint64_t after_closing = 0;    // bit 0: the byte before was a closing quote
};

struct ScanIndex {
    static constexpr uint32_t unclosed = 0x80000000u;
    static constexpr size_t slack = 64;  // the kernels write up to so many values too much

    uint32_t* separators = nullptr;  // positions of delimiters and line ends
    uint32_t* row_stops = nullptr;   // for each row, the number of separators up to its line end, perhaps | unclosed
    size_t n_separators = 0;
    size_t n_rows = 0;
    size_t last_line_end = 0;       // behind the last line end outside quotes (kept by `measure` only)
    bool has_escapes = false;       // some quoted field holds a doubled quote, or quotes are irregular
    bool has_quoted_lines = false;  // some quoted field holds a line end, so that lines and rows differ in number
};

// Scans [state.at, stop). False: a quote stands where none may, in the chunk at state.at, which is not yet indexed.
using ScanKernel = bool (*)(const uint8_t* data, size_t stop, Dialect dialect, ScanState& state, ScanIndex& index);

struct ScanKernels {
    ScanKernel index;    // fills separators and row_stops
    ScanKernel measure;  // fills last_line_end only
    const char* name;
};

// The widest kernels that this processor has; `level` 0 portable, 1 AVX2, 2 AVX-512, -1 the best.
const ScanKernels& scan_kernels(int level = -1) noexcept;

extern const ScanKernels portable_kernels;
#ifdef LUCKYFAST_X86
extern const ScanKernels avx2_kernels;
extern const ScanKernels avx512_kernels;
#endif

// Position behind the last complete record in [start, stop). At the end of a file the caller has added a line end if
// there was none. `first_unclosed`: the first line is known to open a quote by mistake.
size_t find_boundary(const uint8_t* data, size_t start, size_t stop, bool at_eof, bool first_unclosed, Dialect dialect,
                     const ScanKernels& kernels = scan_kernels()) noexcept;

// Indexes [start, stop), which must end where `find_boundary` says; `index` has room for stop - start + slack values.
void scan(const uint8_t* data, size_t start, size_t stop, bool first_unclosed, Dialect dialect, ScanIndex& index,
          const ScanKernels& kernels = scan_kernels()) noexcept;

// The same for bytes that end anywhere (unless `at_eof`): indexes the complete records of [start, stop) and returns the
// position behind them.
size_t scan_complete(const uint8_t* data, size_t start, size_t stop, bool at_eof, bool first_unclosed, Dialect dialect,
                     ScanIndex& index, const ScanKernels& kernels = scan_kernels()) noexcept;

// Forgets the rows that begin at `border` or later, of an index that began at `start`; returns the end of those left.
size_t drop_rows_from(size_t border, size_t start, ScanIndex& index) noexcept;

}  // namespace luckyfast
