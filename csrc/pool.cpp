// Run work on the threads of the OpenMP runtime that torch has loaded, whichever that is.
#include "parallel.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#include <unistd.h>

static pid_t pool_of = getpid();
#endif

// Set the process that owns the pool, since the library may be loaded by a forked child of it.
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
    // GCC's entry point of a parallel region, which LLVM's and Intel's runtimes provide as well.
    using Start = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const Start start = reinterpret_cast<Start>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    // A forked process inherits the state of the runtime but none of its threads, and would wait for them forever.
    if (start == nullptr || getpid() != pool_of) return false;
    start(body, data, unsigned(threads), 0);
    return true;
#endif
}
