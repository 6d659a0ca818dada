// What it is: the server's memory contexts, known to AddressSanitizer: a byte too far, and what was freed or reset, are
// told; and where UBSan tells what it finds.
// Who calls it: the server, by the methods of its memory contexts, where the library was made with SANITIZE=.
// Never: is part of a library that is installed.
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <type_traits>

#include "postgres/prelude.hpp"

extern "C" {
#include "nodes/memnodes.h"
#include "utils/memutils.h"
}

namespace {

static_assert(std::is_same_v<decltype(MemoryContextMethods::free_p), void (*)(MemoryContext, void*)>,
              "written for PostgreSQL 15: other versions have other methods, and other structures behind them");

// As in aset.c, which keeps them to itself.
struct Block {
    void* set;
    Block* previous;
    Block* next;
    char* free_from;
    char* end;
};
struct Set {
    MemoryContextData header;
    Block* blocks;
};

// One kind of context: how much stands before a chunk, and how much room is left behind it.
template <Size header, Size room>
struct Watched {
    static inline MemoryContextMethods original;

    static Size capacity(void* chunk) { return GetMemoryChunkSpace(chunk) - header; }

    static void* allocate(MemoryContext context, Size size) {
        Size whole = room > 0 ? MAXALIGN(size) + room : size;
        void* chunk = original.alloc(context, whole);
        if (chunk == nullptr) return nullptr;
        __asan_unpoison_memory_region(chunk, size);
        __asan_poison_memory_region(static_cast<char*>(chunk) + size, whole - size);
        return chunk;
    }

    // Before the server frees it: a large chunk's block is no longer ours to mark then.
    static void release(MemoryContext context, void* chunk) {
        __asan_poison_memory_region(chunk, capacity(chunk));
        original.free_p(context, chunk);
    }

    // The server's own copies into a chunk that it has not from allocate().
    static void* reallocate(MemoryContext context, void* chunk, Size size) {
        void* fresh = allocate(context, size);
        if (fresh == nullptr) return nullptr;
        Size old = capacity(chunk);
        __asan_unpoison_memory_region(chunk, old);
        std::copy_n(static_cast<char*>(chunk), std::min(old, size), static_cast<char*>(fresh));
        release(context, chunk);
        return fresh;
    }

    // Of an allocation set one block is kept, and what is in it.
    static void reset(MemoryContext context) {
        for (Block* block = reinterpret_cast<Set*>(context)->blocks; block != nullptr; block = block->next) {
            char* begin = reinterpret_cast<char*>(block + 1);
            if (block->free_from > begin)
                __asan_poison_memory_region(begin, static_cast<Size>(block->free_from - begin));
        }
        original.reset(context);
    }

    static void watch(MemoryContext any) {
        auto* methods = const_cast<MemoryContextMethods*>(any->methods);
        original = *methods;
        auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        auto begin = reinterpret_cast<uintptr_t>(methods) & ~(page - 1);
        auto* pages = reinterpret_cast<void*>(begin);
        auto size = reinterpret_cast<uintptr_t>(methods + 1) - begin;
        if (mprotect(pages, size, PROT_READ | PROT_WRITE) != 0) elog(FATAL, "could not watch memory contexts: %m");
        methods->alloc = allocate;
        methods->free_p = release;
        if (room > 0) methods->realloc = reallocate;  // the others change no size
        if (IsA(any, AllocSetContext)) methods->reset = reset;
        if (mprotect(pages, size, PROT_READ) != 0) elog(FATAL, "could not watch memory contexts: %m");
    }
};

// The function that UBSan calls for that is AddressSanitizer's, which has the same name.
void report_to(const char* path) {
    void* undefined = dlopen("libubsan.so.1", RTLD_LAZY | RTLD_NOLOAD);
    void* set = undefined == nullptr ? nullptr : dlsym(undefined, "__sanitizer_set_report_path");
    if (set == nullptr) elog(FATAL, "UBSan's reports go nowhere: %s", dlerror());
    reinterpret_cast<void (*)(const char*)>(set)(path);
}

[[gnu::constructor]] void watch() {
    if (const char* path = getenv("UBSAN_REPORTS")) report_to(path);
    constexpr Size two = 2 * sizeof(void*);
    constexpr Size three = 3 * sizeof(void*);
    Watched<two, two>::watch(TopMemoryContext);
    MemoryContext generation = GenerationContextCreate(TopMemoryContext, "watched", ALLOCSET_SMALL_SIZES);
    Watched<three, two>::watch(generation);
    MemoryContextDelete(generation);
    MemoryContext slab = SlabContextCreate(TopMemoryContext, "watched", SLAB_DEFAULT_BLOCK_SIZE, 64);
    Watched<two, 0>::watch(slab);
    MemoryContextDelete(slab);
}

}  // namespace
