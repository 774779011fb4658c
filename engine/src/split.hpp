// How work on rows is split among threads, and what each of them needs.
#pragma once

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>
#include <vector>

#include "network.hpp"
#include "pool.hpp"

namespace luckyfast {

// PERF: what is packed for a product begins at a cache line, lest every load of a vector of 64 bytes touch two of them.
class Scratch {
public:
    explicit Scratch(size_t n) : data_(static_cast<float*>(::operator new(n * sizeof(float), alignment))) {}
    ~Scratch() { ::operator delete(data_, alignment); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* get() const noexcept { return data_; }

private:
    static constexpr std::align_val_t alignment{64};
    float* const data_;
};

// No thread takes part for fewer operations than take several times as long as waking it.
inline constexpr double operations_per_thread = 2e6;

inline size_t threads_worth(double operations, double each, size_t n_threads) noexcept {
    const double n_worth = operations / each;
    if (n_worth < static_cast<double>(n_threads)) n_threads = static_cast<size_t>(n_worth);
    return std::max<size_t>(n_threads, 1);
}

// Calls work(thread, start, stop) for equal parts of n rows, in a thread each. A part that lacks memory lets the others
// end before that is told.
template <typename Work>
void split_evenly(size_t n, size_t n_threads, Work work) {
    std::atomic<bool> lacks_memory{false};
    auto part = [&](size_t i) {
        try {
            work(i, n * i / n_threads, n * (i + 1) / n_threads);
        } catch (const std::bad_alloc&) {
            lacks_memory = true;
        }
    };
    if (n_threads == 1 || !Pool::run(n_threads, part)) {
        std::vector<std::jthread> threads;
        for (size_t i = 1; i < n_threads; ++i) threads.emplace_back(part, i);
        part(0);
    }
    if (lacks_memory) throw std::bad_alloc();
}

// The same for rows of so many operations each, in as many threads as that is worth.
template <typename Work>
void split_rows(size_t n, double row_operations, size_t n_threads, Work work) {
    n_threads = threads_worth(static_cast<double>(n) * row_operations, operations_per_thread, n_threads);
    split_evenly(n, std::max<size_t>(std::min(n_threads, n), 1), work);
}

// Of the score of a pair, about: error functions take dozens.
inline double score_operations(const HabitScores& call) noexcept {
    return static_cast<double>(2 * call.F * (call.hidden + 2) + 40 * call.hidden);
}

// The hidden layer of the habits' network, transposed and filled up to whole blocks of units that do nothing.
struct HiddenLayer {
    std::vector<float> first, bias, second;

    explicit HiddenLayer(HabitScores& call) {
        const size_t n = (call.hidden + habit_block - 1) / habit_block * habit_block;
        first.resize((call.F + 1) * n);
        for (size_t h = 0; h < call.hidden; ++h)
            for (size_t k = 0; k <= call.F; ++k) first[k * n + h] = call.first[h * (call.F + 1) + k];
        bias.assign(call.bias, call.bias + call.hidden);
        second.assign(call.second, call.second + call.hidden);
        bias.resize(n);
        second.resize(n);
        call.first = first.data();
        call.bias = bias.data();
        call.second = second.data();
        call.hidden = n;
    }
};

}  // namespace luckyfast
