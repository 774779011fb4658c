// Sums of the rows of a table, and the way back.
#include "lanes.hpp"
#include "network.hpp"

namespace luckyfast {
namespace {

void add_rows(float* into, const float* row, float factor, size_t n) noexcept {
    for (size_t i = 0; i < n; i += L) store(into + i, load(into + i, n - i) + factor * load(row + i, n - i), n - i);
}

// What the rows of a bag are multiplied by; 0 where there are none.
float bag_factor(const Bags& bags, size_t bag) noexcept {
    const int64_t n = bags.start[bag + 1] - bags.start[bag];
    return n > 0 ? 1 / __builtin_sqrtf(static_cast<float>(n)) : 0.0f;
}

// PERF: a sum stays in registers until it is whole.
void sum_bags(const Bags& bags, const float* table, float* out, size_t bag_start, size_t bag_stop) noexcept {
    for (size_t bag = bag_start; bag < bag_stop; ++bag) {
        const int64_t start = bags.start[bag], stop = bags.start[bag + 1];
        const float factor = bag_factor(bags, bag);
        const auto sum_columns = [&]<size_t V>(size_t column, auto n) {
            Lanes total[V] = {};
            for (int64_t i = start; i < stop; ++i) {
                const float* row = table + static_cast<size_t>(bags.actions[i]) * bags.width + column;
#pragma GCC unroll 4
                for (size_t v = 0; v < V; ++v) total[v] += load(row + v * L, n);
            }
            float* to = out + bag * bags.width + column;
#pragma GCC unroll 4
            for (size_t v = 0; v < V; ++v) store(to + v * L, factor * total[v], n);
        };
        size_t column = 0;
        for (; column + 4 * L <= bags.width; column += 4 * L) sum_columns.template operator()<4>(column, WholeVector());
        for (; column < bags.width; column += L) sum_columns.template operator()<1>(column, bags.width - column);
    }
}

// Of some columns of the table.
void spread_bags(const Bags& bags, const float* grad, float* grad_table, size_t column_start, size_t column_stop) noexcept {
    for (size_t bag = 0; bag < bags.n; ++bag) {
        const float factor = bag_factor(bags, bag);
        for (int64_t i = bags.start[bag]; i < bags.start[bag + 1]; ++i)
            add_rows(grad_table + static_cast<size_t>(bags.actions[i]) * bags.width + column_start,
                     grad + bag * bags.width + column_start, factor, column_stop - column_start);
    }
}

}  // namespace
}  // namespace luckyfast
