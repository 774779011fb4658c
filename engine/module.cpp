// The Python module luckyfast._engine: a table of contents; what it names is in src/.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>

#include "json.hpp"
#include "scan.hpp"

namespace nb = nanobind;
using namespace nb::literals;
using namespace luckyfast;

void add_network(nb::module_& m);

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using WritableBytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Positions = nb::ndarray<uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Dialect make_dialect(int delimiter, int quote) {
    return {static_cast<uint8_t>(delimiter), static_cast<uint8_t>(quote < 0 ? '"' : quote), quote >= 0};
}

void check_range(const Bytes& data, size_t start, size_t stop) {
    if (start > stop || stop > data.size() || stop >= ScanIndex::unclosed) throw nb::value_error("range outside of the buffer");
}

void check_room(const Positions& separators, const Positions& row_stops, size_t n_bytes) {
    if (std::min(separators.size(), row_stops.size()) < n_bytes + ScanIndex::slack)
        throw nb::value_error("no room for every byte to be a separator");
}

ScanIndex make_index(const Positions& separators, const Positions& row_stops) {
    ScanIndex index;
    index.separators = separators.data();
    index.row_stops = row_stops.data();
    return index;
}

size_t count_lines(const Bytes& data, size_t start, size_t stop, const ScanIndex& index) {
    if (!index.has_quoted_lines) return index.n_rows;
    return static_cast<size_t>(std::count(data.data() + start, data.data() + stop, uint8_t{'\n'}));
}

}  // namespace

NB_MODULE(_engine, m) {
    m.doc() = "What needs the widest instructions at hand: the structure of delimited text, and networks.";
    add_network(m);
    m.attr("SLACK") = ScanIndex::slack;
    m.attr("UNCLOSED") = ScanIndex::unclosed;
    m.def("kernel_name", [](int level) { return std::string(scan_kernels(level).name); }, "level"_a = -1,
          "The instruction set of the scanner: the best one here, or that of level 0 (portable), 1 (AVX2), 2 (AVX-512).");

    m.def(
        "find_boundary",
        [](Bytes data, size_t start, size_t stop, bool at_eof, bool first_unclosed, int delimiter, int quote, int level) {
            check_range(data, start, stop);
            nb::gil_scoped_release release;
            return find_boundary(data.data(), start, stop, at_eof, first_unclosed, make_dialect(delimiter, quote),
                                 scan_kernels(level));
        },
        "data"_a, "start"_a, "stop"_a, "at_eof"_a, "first_unclosed"_a, "delimiter"_a, "quote"_a, "level"_a = -1,
        "Position behind the last complete record in data[start:stop].");

    m.def(
        "scan",
        [](Bytes data, size_t start, size_t stop, bool first_unclosed, int delimiter, int quote, Positions separators,
           Positions row_stops, int level) {
            check_range(data, start, stop);
            check_room(separators, row_stops, stop - start);
            nb::gil_scoped_release release;
            ScanIndex index = make_index(separators, row_stops);
            scan(data.data(), start, stop, first_unclosed, make_dialect(delimiter, quote), index, scan_kernels(level));
            return std::make_tuple(index.n_rows, count_lines(data, start, stop, index), index.has_escapes);
        },
        "data"_a, "start"_a, "stop"_a, "first_unclosed"_a, "delimiter"_a, "quote"_a, "separators"_a, "row_stops"_a, "level"_a = -1,
        "Index complete records: positions of separators and, for each row, their number up to its line end (with the "
        "UNCLOSED bit where the line opens a quote that never closes). Returns the numbers of rows and lines, and whether "
        "quoted fields need more than their two quotes taken off.");

    m.def(
        "project_json",
        [](Bytes data, size_t start, Positions line_ends, Positions line_stops, size_t first, size_t n_lines, Bytes path_text,
           Positions path_stops, WritableBytes out, Positions separators, Positions row_stops) {
            if (first + n_lines > line_stops.size() || row_stops.size() < n_lines || path_stops.size() > 32)
                throw nb::value_error("more lines or paths than there is room for");
            if (n_lines > 0) {
                const size_t n_ends = line_stops.data()[first + n_lines - 1] & ~ScanIndex::unclosed;
                if (n_ends > line_ends.size() || line_ends.data()[n_ends - 1] + ScanIndex::slack > data.size())
                    throw nb::value_error("lines outside of the buffer");
            }
            nb::gil_scoped_release release;
            const JsonPaths paths{path_text.data(), path_stops.data(), path_stops.size()};
            JsonRows rows{out.data(), out.size(), separators.data(), separators.size(), row_stops.data()};
            const size_t n_done = project_json(data.data(), start, line_ends.data(), line_stops.data(), first, n_lines, paths, rows);
            return std::make_tuple(n_done, rows.n_out);
        },
        "data"_a, "start"_a, "line_ends"_a, "line_stops"_a, "first"_a, "n_lines"_a, "path_text"_a, "path_stops"_a, "out"_a,
        "separators"_a, "row_stops"_a,
        "The values of some paths in lines of JSON objects, as rows of fields with their index. Returns the numbers of lines "
        "done, fewer where `out` or `separators` is too small, and of bytes written.");

    m.def(
        "scan_until",
        [](Bytes data, size_t start, size_t stop, size_t border, bool at_eof, int delimiter, int quote, Positions separators,
           Positions row_stops, int level) {
            check_range(data, start, stop);
            check_room(separators, row_stops, stop - start);
            nb::gil_scoped_release release;
            ScanIndex index = make_index(separators, row_stops);
            scan_complete(data.data(), start, stop, at_eof, false, make_dialect(delimiter, quote), index, scan_kernels(level));
            const size_t end = drop_rows_from(border, start, index);
            return std::make_tuple(index.n_rows, count_lines(data, start, end, index), index.has_escapes, end);
        },
        "data"_a, "start"_a, "stop"_a, "border"_a, "at_eof"_a, "delimiter"_a, "quote"_a, "separators"_a, "row_stops"_a,
        "level"_a = -1,
        "Index the complete records of bytes that end anywhere, those that begin before the border. Returns what `scan` "
        "does, and the position behind the last of them.");
}
