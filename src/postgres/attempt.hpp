// What it is: running what may fail because of one event, row or route, so that it fails for that one alone.
// Who calls it: whoever makes events, stores dead letters, or shows routes.
// Never: swallows what is nobody's fault: a shortage, a cancelled statement, a conflict of transactions.
#pragma once

#include <type_traits>

#include "postgres/prelude.hpp"

namespace eventbus {

// Of an error that has nothing to do with the data at hand, and is not there the next time.
bool is_passing(int sqlstate);

// Runs work in a subtransaction. nullptr: it went well. Otherwise all of it is undone, and this is why, in the memory
// context that is current. Wants a transaction.
ErrorData* attempt_anything(void (*work)(void*), void* argument);
// The same; errors that pass are thrown on.
template <class Work>
ErrorData* attempt(Work&& work) {
    ErrorData* error =
        attempt_anything([](void* argument) { (*static_cast<std::remove_reference_t<Work>*>(argument))(); }, &work);
    if (error != nullptr && is_passing(error->sqlerrcode)) ReThrowError(error);
    return error;
}

// The same, without waiting for a lock: where somebody else has it, the work ends with ERRCODE_LOCK_NOT_AVAILABLE, and
// that is returned.
int begin_without_waiting();
void end_without_waiting(int level);
template <class Work>
ErrorData* attempt_without_waiting(Work&& work) {
    ErrorData* error = attempt_anything(
        [](void* argument) {
            const int level = begin_without_waiting();
            (*static_cast<std::remove_reference_t<Work>*>(argument))();
            end_without_waiting(level);
        },
        &work);
    if (error != nullptr && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE && is_passing(error->sqlerrcode))
        ReThrowError(error);
    return error;
}

// Message and detail.
const char* error_words(const ErrorData* error);

}  // namespace eventbus
