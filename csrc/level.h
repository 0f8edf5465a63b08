// Choice of the instruction set at run time.
#pragma once

#include <algorithm>

// Highest level that the machine supports: 0 portable, 1 AVX2, 2 AVX-512.
int best_level();

// The table of kernels compiled for a level, or for the machine's if that is lower. Example: AT_LEVEL(mlp, level).
#ifdef BIXT3D_X86
#define AT_LEVEL(table, level) (at_level(level, table##_portable, table##_avx2, table##_avx512))
template <class Table>
const Table& at_level(int level, const Table& portable, const Table& avx2, const Table& avx512) {
    level = std::min(level, best_level());
    return level >= 2 ? avx512 : level == 1 ? avx2 : portable;
}
#else
#define AT_LEVEL(table, level) (static_cast<void>(level), table##_portable)
#endif
