// Threads that stay for the next piece of work: a step of training has dozens of pieces, each as short as the start of
// a thread.
#pragma once

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>

namespace luckyfast {

class Pool {
public:
    // Calls work(i) for each i below n, work(0) in the calling thread. False, with nothing done, if the pool is at work
    // for another caller, those are more threads than it has, or they were left behind in the process from which this
    // one was forked.
    template <typename Work>
    static bool run(size_t n, Work& work) {
        Pool& pool = the_one();
        const std::unique_lock<std::mutex> lock(pool.mutex_, std::try_to_lock);
        if (!lock || n > most_threads || pool.process_ != getpid()) return false;
        while (pool.n_workers_ + 1 < n) pool.add_worker();
        pool.call_ = [](void* context, size_t i) { (*static_cast<Work*>(context))(i); };
        pool.context_ = &work;
        pool.n_left_.store(static_cast<uint32_t>(n) - 1, std::memory_order_relaxed);
        const uint32_t number = pool.round_.load(std::memory_order_relaxed) / (most_threads + 1) + 1;
        pool.round_.store(number * (most_threads + 1) + static_cast<uint32_t>(n), std::memory_order_release);
        pool.round_.notify_all();
        work(size_t{0});
        for (uint32_t left; (left = pool.n_left_.load(std::memory_order_acquire)) != 0;) await(pool.n_left_, left);
        return true;
    }

private:
    // Not a part of `run`, of which every kind of work has its own: the thread that waits must be the one that is needed.
    static Pool& the_one() {
        static Pool& pool = *new Pool;  // its threads may outlast every destructor
        return pool;
    }

    // PERF: pieces follow each other after some tens of microseconds, which is what waking a thread takes; who waits
    // longer than that gives up the core.
    static constexpr int n_spins = 2000;
    static constexpr uint32_t most_threads = 255;

    static void await(const std::atomic<uint32_t>& value, uint32_t old) noexcept {
        for (int i = 0; i < n_spins; ++i) {
            if (value.load(std::memory_order_acquire) != old) return;
#ifdef LUCKYFAST_X86
            __builtin_ia32_pause();
#endif
        }
        value.wait(old, std::memory_order_acquire);
    }

    void add_worker() {
        const size_t i = n_workers_ + 1;
        std::thread([this, i, seen = round_.load()]() mutable {
            for (;;) {
                uint32_t now;
                while ((now = round_.load(std::memory_order_acquire)) == seen) await(round_, seen);
                seen = now;
                if (i >= now % (most_threads + 1)) continue;
                call_(context_, i);
                if (n_left_.fetch_sub(1, std::memory_order_acq_rel) == 1) n_left_.notify_one();
            }
        }).detach();
        ++n_workers_;
    }

    std::mutex mutex_;
    const pid_t process_ = getpid();
    size_t n_workers_ = 0;
    void (*call_)(void*, size_t) = nullptr;
    void* context_ = nullptr;
    // The number of the round and, in its low bits, how many threads take part, so that a thread that does not, and comes
    // late, never looks at the work of the next round; nobody waits for it.
    alignas(64) std::atomic<uint32_t> round_{0};
    alignas(64) std::atomic<uint32_t> n_left_{0};
};

}  // namespace luckyfast
