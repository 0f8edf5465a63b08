// Distribution of work over threads, for the files with the C interface.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Run body(data) on up to `threads` threads of the pool that torch uses, and return true. Return false if there is no
// such pool. Separate threads would compete with torch's, which keep spinning after each of its operations.
bool run_on_pool(void (*body)(void*), void* data, int threads);

namespace {

template <class Run>
void run_on_own_threads(const Run& run, int threads) {
    std::vector<std::thread> others;
    try {
        others.reserve(size_t(threads - 1));
        for (int t = 1; t < threads; ++t) others.emplace_back(run);
    } catch (const std::system_error&) {  // no more threads available: continue with those there are
    } catch (const std::bad_alloc&) {
    }
    run();
    for (auto& thread : others) thread.join();
}

// Call work(0), ..., work(count - 1), each once, on up to `threads` threads. Return 0, or 1 if memory ran out.
template <class Work>
int parallel(int64_t count, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<int> failed{0};
    const auto run = [&] {
        try {
            for (int64_t i; !failed && (i = next++) < count;) work(i);
        } catch (const std::bad_alloc&) {
            failed = 1;
        }
    };
    using Run = decltype(run);
    const auto body = [](void* data) { (*static_cast<Run*>(data))(); };
    threads = int(std::min<int64_t>(threads, count));
    if (threads <= 1)
        run();
    else if (!run_on_pool(body, const_cast<void*>(static_cast<const void*>(&run)), threads))
        run_on_own_threads(run, threads);
    return failed;
}

template <class Call>
int guarded(const Call& call) {
    try {
        return call();
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace
