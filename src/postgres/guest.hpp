// What it is: the wall between the two worlds. Host code calls guest code through call_guest and only so.
// Who calls it: every host room that uses core, router, delivery or a driver.
// Never: lets an exception out into PostgreSQL, or an ereport happen under a C++ frame that has destructors.
#pragma once

#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/bad_input.hpp"
#include "postgres/prelude.hpp"

namespace eventbus {

// What a guest threw, copied out of its handler.
struct GuestError {
    enum class Kind : unsigned char { none, bad_input, out_of_memory, other } kind = Kind::none;
    char message[1024];
    char detail[1024];
    char hint[1024];

    static void copy(char (&to)[1024], std::string_view from) noexcept {
        std::size_t n = from.size() < sizeof to - 1 ? from.size() : sizeof to - 1;
        while (n < from.size() && n > 0 && (static_cast<unsigned char>(from[n]) & 0xC0) == 0x80)
            --n;  // whole characters
        std::memcpy(to, from.data(), n);
        to[n] = '\0';
    }
};

// Runs `work` and says what it threw. The lambda must not call anything of PostgreSQL's that can ereport.
template <class Work>
void catch_guest(GuestError& error, Work&& work) noexcept {
    error.kind = GuestError::Kind::none;
    try {
        std::forward<Work>(work)();
    } catch (const BadInput& bad) {
        error.kind = GuestError::Kind::bad_input;
        GuestError::copy(error.message, bad.message());
        GuestError::copy(error.detail, bad.detail());
        GuestError::copy(error.hint, bad.hint());
    } catch (const std::bad_alloc&) {
        error.kind = GuestError::Kind::out_of_memory;
    } catch (const std::exception& other) {
        error.kind = GuestError::Kind::other;
        GuestError::copy(error.message, other.what());
    } catch (...) {
        error.kind = GuestError::Kind::other;
        GuestError::copy(error.message, "unknown exception");
    }
}

// Reports the PostgreSQL way; called only after the handler has been left.
[[noreturn]] void report_guest_error(const GuestError& error);

// Runs guest code; whatever it throws becomes an ERROR.
template <class Work>
auto call_guest(Work&& work) -> decltype(work()) {
    using Result = decltype(work());
    static_assert(std::is_void_v<Result> || std::is_trivially_destructible_v<Result>,
                  "only plain data crosses the wall");
    GuestError error;
    if constexpr (std::is_void_v<Result>) {
        catch_guest(error, std::forward<Work>(work));
        if (error.kind != GuestError::Kind::none) report_guest_error(error);
    } else {
        Result result{};
        catch_guest(error, [&] { result = std::forward<Work>(work)(); });
        if (error.kind != GuestError::Kind::none) report_guest_error(error);
        return result;
    }
}

// A guest object that lives as long as the memory context.
template <class Object, class... Arguments>
Object* make_guest(MemoryContext memory, const Arguments&... arguments) {
    auto* callback = static_cast<MemoryContextCallback*>(MemoryContextAllocZero(memory, sizeof(MemoryContextCallback)));
    auto* object = call_guest([&] { return new Object(arguments...); });
    callback->arg = object;
    callback->func = [](void* made) { delete static_cast<Object*>(made); };
    MemoryContextRegisterResetCallback(memory, callback);
    return object;
}

// A text argument as a view; the datum must stay alive (and detoasted) as long as the view.
inline std::string_view text_view(const text* value) {
    return {VARDATA_ANY(value), static_cast<std::size_t>(VARSIZE_ANY_EXHDR(value))};
}

}  // namespace eventbus
