// Dealing out work to threads, for the files that hold C functions.
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

// Instruction sets by level: 0 portable, 1 AVX2, 2 AVX-512; a higher level than the machine has is lowered.
int best_level();

namespace {

// Call work(0), ..., work(count - 1), each once, on up to `threads` threads. Returns what the C functions do.
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
    std::vector<std::thread> others;
    try {
        const int64_t wanted = std::min<int64_t>(threads, count) - 1;
        if (wanted > 0) others.reserve(size_t(wanted));
        for (int64_t t = 0; t < wanted; ++t) others.emplace_back(run);
    } catch (const std::system_error&) {  // no more threads to be had: those there are do the work
    } catch (const std::bad_alloc&) {
    }
    run();
    for (auto& thread : others) thread.join();
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
