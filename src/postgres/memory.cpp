#include "postgres/memory.hpp"

#include <sys/mman.h>

#include <cstdint>

#include "postgres/prelude.hpp"

namespace eventbus {

void forget_touched_buffers() {
    // For a shared mapping MADV_DONTNEED only unmaps (madvise(2)); where it cannot be had (huge pages on older
    // kernels) nothing is lost but the small size.
    constexpr std::uintptr_t page = 4096;
    auto begin = reinterpret_cast<std::uintptr_t>(BufferBlocks);
    char* first_page = BufferBlocks + (page - begin % page) % page;
    (void)madvise(first_page, (static_cast<Size>(NBuffers) - 1) * BLCKSZ, MADV_DONTNEED);
}

}  // namespace eventbus
