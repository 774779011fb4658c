// Lines of JSON objects to rows of the few values that are needed, in the form that the parse kernels read.
//
// A line is one object (RFC 8259). Its structure is checked whole: brackets, commas, colons, strings. What is inside
// strings, numbers and words that are not needed is not looked at, so that a wrong escape there does no harm. A needed
// string is unescaped to UTF-8 (half a surrogate pair to its three bytes, which are no UTF-8, so that the kernel rejects
// it); numbers, true, false, objects and arrays keep their text; null and what is not there are empty. Of a key that
// comes twice the last counts, as in most readers.
#pragma once

#include "bytes.hpp"

namespace luckyfast {

// Path i is text[stops[i - 1]:stops[i]], keys joined by dots; a key may hold dots itself.
struct JsonPaths {
    const uint8_t* text = nullptr;
    const uint32_t* stops = nullptr;
    size_t n = 0;
};

// As `ScanIndex`, of the projected bytes: a row has a field per path and, behind them, a hash of the whole line in eight
// bytes, so that rows are equal only where lines are, and no value is next to the line end. A line that is no object is one field, `?`; an empty line stays an empty line.
struct JsonRows {
    uint8_t* out = nullptr;
    size_t capacity = 0;
    uint32_t* separators = nullptr;
    size_t separator_capacity = 0;
    uint32_t* row_stops = nullptr;
    size_t n_out = 0;
    size_t n_separators = 0;
    size_t n_rows = 0;
};

// Projects lines, the first of which begins at `start`; `line_ends[line_stops[i] - 1]` is where line i ends. 64 bytes
// behind the last must be readable. Returns how many lines were done, fewer than n_lines where a capacity is too small.
size_t project_json(const uint8_t* data, size_t start, const uint32_t* line_ends, const uint32_t* line_stops, size_t first,
                    size_t n_lines, const JsonPaths& paths, JsonRows& rows) noexcept;

}  // namespace luckyfast
