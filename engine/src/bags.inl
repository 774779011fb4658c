// Sums of the rows of a table, and the way back.
#include "lanes.hpp"
#include "network.hpp"

namespace luckyfast {
namespace {

void add_rows(float* into, const float* row, float factor, size_t n) noexcept {
    for (size_t i = 0; i < n; i += L) store(into + i, load(into + i, n - i) + factor * load(row + i, n - i), n - i);
}

float bag_factor(const Bags& bags, size_t bag) noexcept {
    return 1 / __builtin_sqrtf(static_cast<float>(bags.start[bag + 1] - bags.start[bag]));
}

// PERF: a sum stays in registers until it is whole.
void sum_bags(const Bags& bags, const float* table, float* out, size_t bag_start, size_t bag_stop) noexcept {
    for (size_t bag = bag_start; bag < bag_stop; ++bag) {
        const int64_t start = bags.start[bag], stop = bags.start[bag + 1];
        const float factor = start < stop ? bag_factor(bags, bag) : 0.0f;
        const auto sum_columns = [&]<size_t V>(size_t column) {
            const size_t n = bags.width - column;
            Lanes total[V] = {};
            for (int64_t i = start; i < stop; ++i) {
                const float* row = table + static_cast<size_t>(bags.actions[i]) * bags.width + column;
#pragma GCC unroll 4
                for (size_t v = 0; v < V; ++v) total[v] += V == 1 ? load(row, n) : load(row + v * L);
            }
            float* to = out + bag * bags.width + column;
#pragma GCC unroll 4
            for (size_t v = 0; v < V; ++v)
                if (V == 1) store(to, factor * total[v], n);
                else store(to + v * L, factor * total[v]);
        };
        size_t column = 0;
        for (; column + 4 * L <= bags.width; column += 4 * L) sum_columns.template operator()<4>(column);
        for (; column < bags.width; column += L) sum_columns.template operator()<1>(column);
    }
}

// Of some columns of the table.
void spread_bags(const Bags& bags, const float* grad, float* grad_table, size_t column_start, size_t column_stop) noexcept {
    for (size_t bag = 0; bag < bags.n; ++bag)
        for (int64_t i = bags.start[bag]; i < bags.start[bag + 1]; ++i)
            add_rows(grad_table + static_cast<size_t>(bags.actions[i]) * bags.width + column_start,
                     grad + bag * bags.width + column_start, bag_factor(bags, bag), column_stop - column_start);
}

}  // namespace
}  // namespace luckyfast
