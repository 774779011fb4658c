// Every kernel against the portable one at every block border, over texts made of nothing but trouble.
#include <cassert>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "scan.hpp"

using namespace luckyfast;

namespace {

struct Found {
    std::vector<uint32_t> separators, row_stops;
    bool operator==(const Found&) const = default;
};

Found run(const std::string& text, size_t stop, Dialect dialect, const ScanKernels& kernels) {
    // copied to the exact size, so that a sanitizer sees every byte read too much
    const std::vector<uint8_t> data(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(stop));
    Found found{std::vector<uint32_t>(stop + ScanIndex::slack), std::vector<uint32_t>(stop + ScanIndex::slack)};
    ScanIndex index;
    index.separators = found.separators.data();
    index.row_stops = found.row_stops.data();
    scan(data.data(), 0, stop, false, dialect, index, kernels);
    found.separators.resize(index.n_separators);
    found.row_stops.resize(index.n_rows);
    return found;
}

size_t boundary(const std::string& text, size_t stop, bool at_eof, Dialect dialect, const ScanKernels& kernels) {
    const std::vector<uint8_t> data(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(stop));
    return find_boundary(data.data(), 0, stop, at_eof, false, dialect, kernels);
}

}  // namespace

int main() {
    const char* pieces[] = {",", "\"", "\n", "\r\n", "\r", "a", "bcdefgh", "\"\"", "\",\"", "\"\n\"", "0123456789abcdef0123456789"};
    std::mt19937 random(1);
    size_t n_checked = 0;
    for (int round = 0; round < 3000; ++round) {
        std::string text;
        for (unsigned i = random() % 60; i > 0; --i) text += pieces[random() % std::size(pieces)];
        text += '\n';
        for (const bool has_quote : {true, false}) {
            const Dialect dialect{',', '"', has_quote};
            const Found expected = run(text, text.size(), dialect, portable_kernels);
            assert(!expected.row_stops.empty());
            assert(expected.separators.back() == text.size() - 1);
            for (int level = 1; level <= 2; ++level) assert(run(text, text.size(), dialect, scan_kernels(level)) == expected);
            assert(boundary(text, text.size(), true, dialect, scan_kernels()) == text.size());
            // a border found early is one that the whole text has too
            for (size_t stop = 0; stop <= text.size(); stop += 1 + random() % 7) {
                const size_t border = boundary(text, stop, false, dialect, portable_kernels);
                assert(border <= stop);
                for (int level = 1; level <= 2; ++level) assert(boundary(text, stop, false, dialect, scan_kernels(level)) == border);
                bool known = border == 0;
                for (const uint32_t row : expected.row_stops)
                    known |= expected.separators[(row & ~ScanIndex::unclosed) - 1] + size_t{1} == border;
                assert(known);
                ++n_checked;
            }
        }
    }
    std::printf("%zu borders, best kernel: %s\n", n_checked, scan_kernels().name);
}
