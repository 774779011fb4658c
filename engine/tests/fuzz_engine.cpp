// Coverage-guided fuzzing of the scanners and of the projection of JSON lines: any bytes, exact buffers.
//
// The first four bytes choose delimiter, quote and where the text is cut; the rest is the text. Checked are: every
// instruction set against a state machine that looks at one byte after another; that blocks which end anywhere give
// the rows of the whole; and that a projected row has as many fields as there are paths and one more, or is one field.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "json.hpp"
#include "scan.hpp"

using namespace luckyfast;

namespace {

#define CHECK(condition)                                                  \
    do {                                                                  \
        if (!(condition)) {                                               \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                 \
        }                                                                 \
    } while (0)

struct Rows {
    std::vector<uint32_t> separators, row_stops;
    bool operator==(const Rows&) const = default;
};

// One record by the rules in scan.hpp; where the next one begins.
size_t read_record(const std::vector<uint8_t>& data, size_t start, Dialect d, Rows& rows) {
    const size_t first = rows.separators.size();
    const auto give_up = [&] {
        size_t at = start;
        while (data[at] != '\n') ++at;
        rows.separators.resize(first);
        rows.separators.push_back(static_cast<uint32_t>(at));
        rows.row_stops.push_back(static_cast<uint32_t>(rows.separators.size()) | ScanIndex::unclosed);
        return at + 1;
    };
    size_t at = start;
    while (true) {
        if (d.has_quote && data[at] == d.quote) {
            bool crossed = false;
            for (++at;; ++at) {
                if (at >= data.size()) return give_up();
                if (data[at] == d.quote) {
                    if (at + 1 >= data.size() || data[at + 1] != d.quote) break;
                    ++at;
                }
                crossed |= data[at] == '\n';
            }
            ++at;
            if (at >= data.size()) return give_up();
            if (crossed && data[at] != d.delimiter && data[at] != '\n' && data[at] != '\r') return give_up();
        }
        while (data[at] != d.delimiter && data[at] != '\n') ++at;
        rows.separators.push_back(static_cast<uint32_t>(at));
        if (data[at] == '\n') {
            rows.row_stops.push_back(static_cast<uint32_t>(rows.separators.size()));
            return at + 1;
        }
        ++at;
    }
}

Rows take(ScanIndex& index, std::vector<uint32_t>& separators, std::vector<uint32_t>& row_stops) {
    return {{separators.begin(), separators.begin() + static_cast<std::ptrdiff_t>(index.n_separators)},
            {row_stops.begin(), row_stops.begin() + static_cast<std::ptrdiff_t>(index.n_rows)}};
}

void check_scan(const std::vector<uint8_t>& data, Dialect dialect, size_t cut) {
    Rows expected;
    for (size_t at = 0; at < data.size();) at = read_record(data, at, dialect, expected);
    for (int level = 0; level <= 2; ++level) {
        const ScanKernels& kernels = scan_kernels(level);
        std::vector<uint32_t> separators(data.size() + ScanIndex::slack), row_stops(data.size() + ScanIndex::slack);
        ScanIndex index;
        index.separators = separators.data();
        index.row_stops = row_stops.data();
        scan(data.data(), 0, data.size(), false, dialect, index, kernels);
        CHECK(take(index, separators, row_stops) == expected);
        CHECK(find_boundary(data.data(), 0, data.size(), true, false, dialect, kernels) == data.size());

        // what ends anywhere: its complete records are the first ones of the whole
        const std::vector<uint8_t> part(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(cut));
        const size_t border = find_boundary(part.data(), 0, cut, false, false, dialect, kernels);
        ScanIndex some;
        some.separators = separators.data();
        some.row_stops = row_stops.data();
        CHECK(scan_complete(part.data(), 0, cut, false, false, dialect, some, kernels) == border);
        const Rows found = take(some, separators, row_stops);
        CHECK(found.row_stops.size() <= expected.row_stops.size());
        for (size_t i = 0; i < found.row_stops.size(); ++i) CHECK(found.row_stops[i] == expected.row_stops[i]);
        for (size_t i = 0; i < found.separators.size(); ++i) CHECK(found.separators[i] == expected.separators[i]);
        CHECK(border == (found.separators.empty() ? 0 : found.separators.back() + size_t{1}));
    }
}

void check_json(const std::vector<uint8_t>& text, size_t capacity) {
    std::vector<uint8_t> data = text;
    std::vector<uint32_t> ends, stops;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\n') continue;
        ends.push_back(static_cast<uint32_t>(i));
        stops.push_back(static_cast<uint32_t>(ends.size()));
    }
    data.resize(text.size() + ScanIndex::slack);
    const uint8_t path_text[] = {'a', 'a', '.', 'b', 'a', '.', 'b', '.', 'c', 'i', 'd'};
    const uint32_t path_stops[] = {1, 4, 9, 11};
    const JsonPaths paths{path_text, path_stops, 4};
    std::vector<uint8_t> out(capacity);
    std::vector<uint32_t> separators(capacity), row_stops(ends.size());
    JsonRows rows{out.data(), out.size(), separators.data(), separators.size(), row_stops.data()};
    const size_t n_done = project_json(data.data(), 0, ends.data(), stops.data(), 0, ends.size(), paths, rows);
    CHECK(n_done <= ends.size());
    CHECK(rows.n_rows == n_done && rows.n_out <= capacity && rows.n_separators <= capacity);
    uint32_t first = 0, at = 0;
    for (size_t row = 0; row < n_done; ++row) {
        const uint32_t n_fields = row_stops[row] - first;
        CHECK(n_fields == 1 || n_fields == paths.n + 1);
        for (uint32_t i = first; i < row_stops[row]; ++i) {
            CHECK(separators[i] >= at && separators[i] < rows.n_out);
            at = separators[i] + 1;
        }
        first = row_stops[row];
    }
    // with room for anything, all is done
    if (capacity >= 16 * text.size() + 64) CHECK(n_done == ends.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    if (size < 5) return 0;
    std::vector<uint8_t> text(bytes + 4, bytes + size);
    text.push_back('\n');
    const uint8_t delimiters[] = {',', ';', '\t', '|', 0x1f, ':', ' ', bytes[0]};
    const uint8_t quotes[] = {'"', '"', '\'', bytes[1]};
    Dialect dialect;
    dialect.delimiter = delimiters[bytes[0] % 8];
    dialect.quote = quotes[bytes[1] % 4];
    dialect.has_quote = bytes[2] % 4 != 0;
    const bool is_dialect = dialect.delimiter != '\n' && dialect.delimiter != '\r' && dialect.quote != '\n' &&
                            dialect.quote != '\r' && dialect.quote != dialect.delimiter;
    if (is_dialect) check_scan(text, dialect, bytes[3] * text.size() / 255);
    check_json(text, bytes[2] % 2 ? 16 * text.size() + 64 : 16 + bytes[3]);
    return 0;
}
