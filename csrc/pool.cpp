// Threads from the OpenMP runtime that torch has loaded, without a dependence on any one of them.
#include "parallel.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#include <unistd.h>

static pid_t pool_of = getpid();
#endif

// Name the process in which the pool lives: the library may be loaded by a child that was forked since.
EXPORT int bixt3d_pool_of(int64_t process) {
#if !defined(_WIN32)
    pool_of = pid_t(process);
#else
    (void)process;
#endif
    return 0;
}

bool run_on_pool(void (*body)(void*), void* data, int threads) {
#if defined(_WIN32)
    (void)body, (void)data, (void)threads;
    return false;
#else
    // GCC's name for the start of a parallel region; LLVM's and Intel's runtimes answer to it as well.
    using Start = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const Start start = reinterpret_cast<Start>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    // A forked process has the runtime's books but none of its threads, and would wait for them for ever.
    if (start == nullptr || getpid() != pool_of) return false;
    start(body, data, unsigned(threads), 0);
    return true;
#endif
}
