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
ErrorData* attempt(Work&& work, bool (*passes)(int sqlstate) = is_passing) {
    ErrorData* error =
        attempt_anything([](void* argument) { (*static_cast<std::remove_reference_t<Work>*>(argument))(); }, &work);
    if (error != nullptr && passes(error->sqlerrcode)) ReThrowError(error);
    return error;
}

// Message and detail.
const char* error_words(const ErrorData* error);

}  // namespace eventbus
